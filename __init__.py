"""agileir-export: AgileIR, SemanIR and SwinIR from a checkpoint to a verified ONNX file.

`import agileir_export` is instant: the public names are imported from their rooms when they are
first used, so that PyTorch and ONNX load only for the work that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_attributes

if TYPE_CHECKING:
    from .errors import AgileIRError
    from .export import export_onnx
    from .models import list_models, load_model
    from .parity import verify
    from .version import __version__

__all__ = [
    "AgileIRError",
    "__version__",
    "export_onnx",
    "list_models",
    "load_model",
    "verify",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "AgileIRError": ".errors",
        "__version__": ".version",
        "export_onnx": ".export",
        "list_models": ".models",
        "load_model": ".models",
        "verify": ".parity",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
