"""ONNX Runtime as a target; files in half precision are emulated on the CPU (`half_emulation`)."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...errors import OnnxFileError
from ...export.artifact import OnnxArtifact
from ..runner import ExportedRunner, Images
from .arena import exact_session
from .half_emulation import computes_in_half, emulate_half
from .integers import IN_FLOAT, wrong_products

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = ["OnnxRuntimeRunner", "create_session", "faithful_session", "load_onnxruntime", "run_session"]

LOG = logging.getLogger(__name__)

UNFIT = ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException")
"""Classes of ONNX Runtime's errors that say that a node cannot compute what it is given."""


def load_onnxruntime() -> ModuleType:
    """The package, silent: from 1.29 it tells its maker of every session unless the environment forbids it before."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def create_session(
    model: str | bytes, threads: int | None = None, name: str = "the model", *, in_order: bool = False
) -> onnxruntime.InferenceSession:
    """An inference session on the CPU; quantised layers are in float32 where INT8 ones would be wrong (`integers`).

    Args:
        model: Path or serialised model.
        threads: Threads inside an operator, or None for the runtime's choice.
        name: What an error calls a serialised model.
        in_order: Run nodes in the order of the file. The runtime's own order may put off nodes that only outputs wait
            for, and keeps every tensor they read.

    Raises:
        OnnxFileError: The runtime refuses the model.
    """
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # it keeps a block for the second run beside what the first left: twice the peak
    if wrong_products(onnxruntime.__version__):
        options.add_session_config_entry(*IN_FLOAT)
    if threads is not None:
        options.intra_op_num_threads = threads
    if in_order:
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    try:
        return exact_session(model, options)
    except Exception as error:  # the runtime's exception classes share no base but Exception
        subject = model if isinstance(model, str) else name
        raise OnnxFileError(
            f"ONNX Runtime {onnxruntime.__version__} refuses {subject}: {error}",
            fix="Export it again, or update onnxruntime.",
        ) from error


def faithful_session(
    model: onnx.ModelProto, threads: int | None = None, name: str = "the model"
) -> onnxruntime.InferenceSession:
    """`create_session` of a model whose half-precision numbers are rounded where the model says so.

    Args:
        model: The model; not changed.
        threads: Threads inside an operator, or None for the runtime's choice.
        name: What an error calls the model.

    Raises:
        OnnxFileError: The runtime refuses the model, or it is not sound.
        Unsupported: Its half precision cannot be emulated.
    """
    if computes_in_half(model):
        from onnx.shape_inference import InferenceError

        try:
            model = emulate_half(model)
        except (ValueError, RuntimeError, InferenceError) as error:
            raise OnnxFileError(f"{name} is not sound: {error}", fix="Export it again.") from error
    return create_session(model.SerializeToString(), threads, name)


def run_session(
    session: onnxruntime.InferenceSession, outputs: Sequence[str] | None, feeds: Mapping[str, Any], name: str
) -> list[Any]:
    """Runs a session.

    Args:
        session: The session.
        outputs: Names of the outputs to compute; None for all.
        feeds: Inputs by name.
        name: What an error calls the model.

    Raises:
        OnnxFileError: Its nodes do not fit together. Errors of other kinds, such as of memory, stay as they are.
    """
    try:
        results: list[Any] = session.run(outputs, feeds)
        return results
    except Exception as error:  # the runtime's exception classes share no base but Exception
        if type(error).__name__ not in UNFIT or "alloc" in str(error).lower():
            raise
        raise OnnxFileError(
            f"{name} cannot be run: {error}", why="It may be damaged.", fix="Export it again."
        ) from error


class OnnxRuntimeRunner(ExportedRunner):
    """Runs an exported file under ONNX Runtime on the CPU; pads to the model's multiple and crops.

    Half precision is emulated: results are a GPU's up to the order of summation, the time is not.

    Args:
        source: The file, or its artifact.
        threads: Threads inside an operator, or None for the runtime's choice.

    Raises:
        OnnxFileError: The file is not one of ours, or the runtime refuses it.
    """

    def __init__(self, source: str | Path | OnnxArtifact, threads: int | None = None) -> None:
        super().__init__(source, threads)
        self.session = faithful_session(self.artifact.model, threads, self.artifact.name)
        version = load_onnxruntime().__version__
        self.int8_in_float = self.artifact.precision == "int8" and wrong_products(version)
        if self.int8_in_float:
            LOG.warning(
                f"{self.artifact.name} is computed in float32, which takes longer: ONNX Runtime {version} multiplies "
                "INT8 matrices wrong on processors with AMX. 1.25 and newer are right (Python 3.11 and newer), and so "
                "is OpenVINO."
            )

    def infer(self, images: Images) -> Images:
        """See `ExportedRunner.infer`."""
        feeds = {self.session.get_inputs()[0].name: images}
        output: Images = run_session(self.session, None, feeds, self.artifact.name)[0]
        return output

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        import onnxruntime

        half = {"half_precision": "emulated"} if self.artifact.conversion else {}
        integers = {"int8": "in float32"} if self.int8_in_float else {}
        return {
            "target": "onnxruntime",
            "version": onnxruntime.__version__,
            "providers": self.session.get_providers(),
            "sha256": self.artifact.sha256,
            **half,
            **integers,
        }
