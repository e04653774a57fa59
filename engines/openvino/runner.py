"""OpenVINO on a CPU as a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import EnvironmentProblem, OnnxFileError, Unsupported
from ...export.artifact import OnnxArtifact
from ..onnxruntime.half_emulation import computes_in_half
from ..runner import ExportedRunner, Images
from .graph import plain_graph
from .loading import core, load_openvino, openvino_version

__all__ = ["OpenVinoRunner"]

DEVICE = "CPU"

SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",  # unless told, it computes in bfloat16 where the processor can
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,  # threads bound to cores wait for whatever else runs there
}


class OpenVinoRunner(ExportedRunner):
    """Runs an exported file under OpenVINO on the CPU, in float32 or INT8; pads to the model's multiple and crops.

    OpenVINO knows no functions: they are written out, with the bodies that are in the file. Files in half precision are
    refused: it would compute them in float32, where a value past the range of float16 goes unnoticed, or all of them in
    bfloat16, what the file keeps in float32 included.

    Args:
        source: The file, or its artifact.
        threads: Threads, or None for the runtime's choice.

    Raises:
        EnvironmentProblem: OpenVINO is not installed.
        OnnxFileError: The file is not one of ours, or the runtime refuses it.
        Unsupported: The file is in half precision.
    """

    def __init__(self, source: str | Path | OnnxArtifact, threads: int | None = None) -> None:
        super().__init__(source, threads)
        if computes_in_half(self.artifact.model):
            raise Unsupported(
                f"{self.artifact.name} is in half precision, which OpenVINO does not compute on a CPU as it is meant.",
                why="It computes in float32 instead, where what a GPU would not hold goes unnoticed.",
                fix="Use the float32 or the INT8 file, or the runtime onnxruntime, which emulates half precision.",
            )
        load_openvino()
        self._compiled: Any = self._compile()

    def _compile(self) -> Any:
        """The file as OpenVINO executes it."""
        plain = plain_graph(self.artifact.model)
        settings = SETTINGS if self._threads is None else {**SETTINGS, "INFERENCE_NUM_THREADS": self._threads}
        try:
            return core().compile_model(core().read_model(plain.SerializeToString(), b""), DEVICE, settings)
        except RuntimeError as error:
            raise OnnxFileError(
                f"OpenVINO {openvino_version()} refuses {self.artifact.name}: {error}",
                fix="Use the runtime onnxruntime, or another release of OpenVINO.",
            ) from error

    def infer(self, images: Images) -> Images:
        """One call, in a request of its own, so that threads may share the runner.

        OpenVINO (2026.4) says nothing where it could not allocate a tensor: the result is empty. What it then gives in
        the same process was seen to be wrong, or a segmentation fault, compiled anew or not: so this runner is closed.

        Raises:
            EnvironmentProblem: There is too little memory, or was in an earlier call.
        """
        batch, channels, rows, columns = images.shape
        if self._compiled is not None:
            output: Images = self._compiled.create_infer_request().infer([images])[0]
            if output.shape == (batch, channels, rows * self.spec.scale, columns * self.spec.scale):
                return output
            self._compiled = None
        raise EnvironmentProblem(
            f"OpenVINO ran out of memory, at {batch} image(s) of {rows}x{columns} pixels or before.",
            why="It cannot go on in this process.",
            fix="Start again with smaller tiles (--tile, --memory), or with --runtime onnxruntime.",
        )

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        return {
            "target": "openvino",
            "version": openvino_version(),
            "device": f"{DEVICE}: {core().get_property(DEVICE, 'FULL_DEVICE_NAME')}",
            "precision": SETTINGS["INFERENCE_PRECISION_HINT"],
            "sha256": self.artifact.sha256,
        }
