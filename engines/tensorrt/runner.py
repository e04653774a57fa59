"""TensorRT and TensorRT-RTX as targets: engines on a GPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...images.resizing import pad_to_multiple, pad_to_size
from ...models.spec import ModelSpec
from ...plugins.cuda_kernels import cuda_driver
from ...plugins.kernel_records import LAYOUT, check_layout
from ...plugins.plugin_layers import plugin_failures
from ...plugins.python_plugins import register_python_plugins
from ..artifact import EngineArtifact, read_engine
from ..runner import Images, check_images
from ..targets import TARGETS, load_target
from .device_memory import DeviceMemory, open_memory
from .execution import Executor
from .fitting import fit_profile
from .plan_loading import deserialize, require_gpu

__all__ = ["TensorRTRunner"]


class TensorRTRunner:
    """Runs an engine; pads to the model's multiple and up to a profile, and crops.

    A batch larger than the profile goes through in several steps. Of several profiles, the one that computes the
    fewest pixels is taken. Calls from several threads wait for each other. The device memory is given back by `close`,
    at the end of a ``with`` block, or with the object.

    Args:
        engine: The plan, whose sidecar lies beside it, or what `read_engine` made of it.
        memory: ``"torch"`` or ``"pycuda"``, a `DeviceMemory`, or None for the first that works here.
        cuda_graphs: Use a CUDA graph from the second execution of a shape on, where that is possible.

    Raises:
        InputError: Plan or sidecar are damaged, or the plan is of another program.
        EnvironmentProblem: No GPU, driver too old, TensorRT missing, or not enough memory.
        Unsupported: The plan is for another GPU or another version of TensorRT.
    """

    def __init__(
        self,
        engine: str | Path | EngineArtifact,
        memory: str | DeviceMemory | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        self.artifact = engine if isinstance(engine, EngineArtifact) else read_engine(engine)
        self._lock = threading.Lock()
        self._trt = load_target(TARGETS[self.artifact.target])
        require_gpu(self.artifact.target)
        self._memory = open_memory(memory) if memory is None or isinstance(memory, str) else memory
        with self._memory.current(), plugin_failures():
            self._register_plugins()
            self._runtime, self._engine = deserialize(self._trt, self.artifact, self._memory)
            self._executor: Executor | None = Executor(
                self._trt, self.artifact, self._engine, self._memory, cuda_graphs
            )

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self.artifact.spec

    def run(self, images: Images) -> Images:
        """See `Runner.run`.

        Raises:
            InputError: The images do not fit the model, or are larger than every profile; or the runner is closed.
            OutOfDeviceMemory: The GPU has no room for them.
            InternalError: TensorRT failed.
        """
        check_images(images, self.spec)
        padded, (height, width) = pad_to_multiple(images, self.spec.pad_multiple)
        batch, _, rows, columns = padded.shape
        fit = fit_profile(self.artifact.profiles, batch, rows, columns)
        if fit is None:
            raise InputError(
                f"{height}x{width} pixels (padded {rows}x{columns}) are outside every profile of {self.artifact.path}: "
                f"{', '.join(map(str, self.artifact.profiles))}.",
                fix=f"Build an engine with --max {rows}x{columns} or larger, or cut the picture.",
            )
        padded = pad_to_size(padded, fit.rows, fit.columns)
        scale = self.spec.scale
        output = np.empty((batch, images.shape[1], height * scale, width * scale), np.float32)
        with self._lock:
            executor = self._open()
            with self._memory.current(), plugin_failures():
                for start, count in zip(range(0, batch, fit.step), fit.chunks(batch), strict=True):
                    chunk = padded[start : start + fit.step]
                    wanted = len(chunk)
                    if wanted < count:
                        chunk = np.concatenate([chunk, np.repeat(chunk[-1:], count - wanted, axis=0)])
                    result = executor(fit.profile, chunk)
                    output[start : start + wanted] = result[:wanted, :, : height * scale, : width * scale]
        return output

    def device_bytes(self, batch: int, rows: int, columns: int) -> int | None:
        """Device memory that running images of a size needs, as the engine tells it; nothing is run.

        Beside it, the host holds input and output page-locked.

        Args:
            batch: Images at once.
            rows: Their height (pixels).
            columns: Their width (pixels).

        Returns:
            None for images outside every profile.

        Raises:
            InputError: The runner is closed.
            InternalError: TensorRT refuses the shape.
        """
        multiple = self.spec.pad_multiple
        fit = fit_profile(self.artifact.profiles, batch, rows + -rows % multiple, columns + -columns % multiple)
        if fit is None:
            return None
        shape = (max(fit.chunks(batch)), self.spec.channels, fit.rows, fit.columns)
        with self._lock:
            executor = self._open()
            with self._memory.current():
                return executor.device_bytes(fit.profile, shape)

    def free_bytes(self) -> int:
        """Device memory that is free now."""
        with self._memory.current():
            return self._memory.free_bytes()

    def _register_plugins(self) -> None:
        """Those that the engine does not run without.

        Raises:
            Unsupported: A newer version of this package laid out their kernels.
            EnvironmentProblem: What launches them is missing.
        """
        if self.artifact.needs_this_package:
            check_layout(self.artifact.plugins.get("layout", LAYOUT))
            cuda_driver()
            register_python_plugins(self._trt)

    def _open(self) -> Executor:
        if self._executor is None:
            raise InputError(f"The runner of {self.artifact.path} is closed.", fix="Open it again.")
        return self._executor

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        return {
            "target": self.artifact.target,
            "version": self._trt.__version__,
            **self._memory.describe(),
            "precision": self.artifact.precision,
            "cuda_graphs": self._executor.cuda_graphs if self._executor else "off",
            "sha256": self.artifact.sha256,
        }

    def close(self) -> None:
        """Gives back everything on the GPU; calling it again does nothing."""
        with self._lock:
            if self._executor is None:
                return
            with self._memory.current():
                self._executor.close()
                self._executor = None
                self._engine = self._runtime = None

    def __enter__(self) -> TensorRTRunner:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
