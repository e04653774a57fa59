"""Opening whatever a user names as a runner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .artifact import is_engine
from .onnxruntime.runner import OnnxRuntimeRunner
from .runner import Runner
from .tensorrt.runner import TensorRTRunner

__all__ = ["is_onnx", "open_runner", "refuse_model_options"]


def is_onnx(source: str | Path) -> bool:
    """Whether a name means an ONNX file."""
    return Path(source).suffix.lower() == ".onnx"


def refuse_model_options(source: str | Path, options: Mapping[str, Any]) -> None:
    """Refuses options of `load_model` for a file that was exported with its own.

    Raises:
        InputError: One was given.
    """
    given = [key for key, value in options.items() if value not in (None, "paper")]
    if given:
        raise InputError(
            f"{source} is an exported file: --{given[0].replace('_', '-')} was decided at export.",
            fix="Leave the option out, or export again with it.",
        )


def open_runner(source: str | Path, options: Mapping[str, Any]) -> Runner:
    """A runner for an engine (TensorRT), an ONNX file (ONNX Runtime) or a model (PyTorch, folded).

    Args:
        source: Engine, ONNX file, preset, packaged model or checkpoint.
        options: Keyword arguments of `load_model`.

    Raises:
        InputError: Model options were given for a file that is exported already.
        AgileIRError: What loading raises.
    """
    if is_onnx(source) or is_engine(source):
        refuse_model_options(source, options)
        return TensorRTRunner(source) if is_engine(source) else OnnxRuntimeRunner(source)
    from ..models import fold, load_model
    from .torch_runner import TorchRunner

    return TorchRunner(fold(load_model(source, **options)))
