"""Opening whatever a user names as a runner."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..models.options import LoadOptions
from .artifact import is_engine
from .onnxruntime.runner import OnnxRuntimeRunner
from .runner import Runner
from .tensorrt.runner import TensorRTRunner

__all__ = ["is_onnx", "open_runner", "refuse_model_options"]


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


def open_runner(source: str | Path, options: LoadOptions | None = None) -> Runner:
    """A runner for an engine (TensorRT), an ONNX file (ONNX Runtime) or a model (PyTorch, folded).

    Args:
        source: Engine, ONNX file, preset, packaged model or checkpoint.
        options: How to load a model.

    Raises:
        InputError: Model options were given for a file that is exported already.
        AgileIRError: What loading raises.
    """
    if is_onnx(source) or is_engine(source):
        refuse_model_options(source, options or LoadOptions())
        return TensorRTRunner(source) if is_engine(source) else OnnxRuntimeRunner(source)
    from ..models import fold, load_model
    from .torch_runner import TorchRunner

    return TorchRunner(fold(load_model(source, options)))
