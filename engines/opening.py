"""Opening whatever a user names as a runner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .onnxruntime_runner import OnnxRuntimeRunner
from .runner import Runner

__all__ = ["is_onnx", "open_runner"]


def is_onnx(source: str | Path) -> bool:
    """Whether a name means an ONNX file."""
    return Path(source).suffix.lower() == ".onnx"


def open_runner(source: str | Path, options: Mapping[str, Any]) -> Runner:
    """A runner for an ONNX file (ONNX Runtime) or a model (PyTorch, folded).

    Args:
        source: ONNX file, preset, packaged model or checkpoint.
        options: Keyword arguments of `load_model`.

    Raises:
        InputError: Model options were given for an ONNX file.
        AgileIRError: What loading raises.
    """
    if is_onnx(source):
        given = [key for key, value in options.items() if value not in (None, "paper")]
        if given:
            raise InputError(
                f"{source} is an exported file: --{given[0].replace('_', '-')} was decided at export.",
                fix="Leave the option out, or export again with it.",
            )
        return OnnxRuntimeRunner(source)
    from ..models import fold, load_model
    from .torch_runner import TorchRunner

    return TorchRunner(fold(load_model(source, **options)))
