"""agileir-export: AgileIR, SemanIR and SwinIR from a checkpoint to a verified ONNX file.

`import agileir_export` is instant: the public names are imported from their rooms when they are
first used, so that PyTorch and ONNX load only for the work that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import AgileIRError
    from .export import export_onnx
    from .models import list_models, load_model
    from .parity import verify

__version__ = "0.1.0"

__all__ = [
    "AgileIRError",
    "__version__",
    "export_onnx",
    "list_models",
    "load_model",
    "verify",
]

_HOME = {
    "AgileIRError": "errors",
    "export_onnx": "export",
    "list_models": "models",
    "load_model": "models",
    "verify": "parity",
}
"""Public name -> the module it is imported from on first use (PEP 562)."""


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
