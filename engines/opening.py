"""Opening whatever a user names as a runner."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..export.artifact import OnnxArtifact, read_artifact
from ..models.options import LoadOptions
from .artifact import is_engine
from .onnxruntime.runner import OnnxRuntimeRunner
from .openvino.choice import choose_runner
from .openvino.runner import OpenVinoRunner
from .runner import Runner
from .tensorrt.runner import TensorRTRunner

__all__ = ["RUNTIMES", "is_onnx", "open_onnx", "open_runner", "refuse_model_options"]

RUNTIMES = ("auto", "onnxruntime", "openvino")
"""What runs ONNX files: OpenVINO where it holds and is faster here, else ONNX Runtime; or one of the two."""


def is_onnx(source: str | Path) -> bool:
    """Whether a name means an ONNX file."""
    return Path(source).suffix.lower() == ".onnx"


def refuse_model_options(source: str | Path, options: LoadOptions) -> None:
    """Refuses options of `load_model` for a file that was exported with its own.

    Raises:
        InputError: One was given.
    """
    for name in options.given():
        raise InputError(
            f"{source} is an exported file: --{name.replace('_', '-')} was decided at export.",
            fix="Leave the option out, or export again with it.",
        )


def open_onnx(artifact: OnnxArtifact, runtime: str = "auto") -> OnnxRuntimeRunner | OpenVinoRunner:
    """A runner for an artifact.

    Args:
        artifact: The ONNX file.
        runtime: One of `RUNTIMES`.

    Raises:
        InputError: There is no such runtime.
        AgileIRError: What the runners raise.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"{runtime!r} is no runtime of ONNX files: there are {', '.join(RUNTIMES)}.")
    if runtime == "onnxruntime":
        return OnnxRuntimeRunner(artifact)
    return OpenVinoRunner(artifact) if runtime == "openvino" else choose_runner(artifact)


def open_runner(source: str | Path, options: LoadOptions | None = None, runtime: str = "auto") -> Runner:
    """A runner for an engine (TensorRT), an ONNX file (ONNX Runtime, OpenVINO) or a model (PyTorch, folded).

    Args:
        source: Engine, ONNX file, preset, packaged model or checkpoint.
        options: How to load a model.
        runtime: What runs an ONNX file, one of `RUNTIMES`.

    Raises:
        InputError: Model options were given for a file that is exported already, or a runtime for what is no ONNX file.
        AgileIRError: What loading raises.
    """
    if is_onnx(source):
        refuse_model_options(source, options or LoadOptions())
        return open_onnx(read_artifact(source), runtime)
    if runtime != "auto":
        raise InputError(
            f"{source} is no ONNX file: {runtime} runs ONNX files only.",
            fix="Leave --runtime out, or export the model with `agileir-export onnx` and name that file.",
        )
    if is_engine(source):
        refuse_model_options(source, options or LoadOptions())
        return TensorRTRunner(source)
    from ..models import fold, load_model
    from .torch_runner import TorchRunner

    return TorchRunner(fold(load_model(source, options)))
