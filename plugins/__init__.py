"""The operators of window-attention restorers: a folder each, and what their forms share.

What the registry holds loads at once; everything else on first use.
"""

from typing import TYPE_CHECKING

from ..lazy import lazy_attributes
from .registry import DOMAIN, NAMESPACE_ATTRIBUTE, VERSION, Operator

if TYPE_CHECKING:
    from .catalogue import OPERATORS
    from .engine_files import engine_form
    from .python_plugins import register_python_plugins
    from .tensorrt_plugins import register_tensorrt

__all__ = [
    "DOMAIN",
    "NAMESPACE_ATTRIBUTE",
    "OPERATORS",
    "VERSION",
    "Operator",
    "engine_form",
    "register_python_plugins",
    "register_tensorrt",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "OPERATORS": ".catalogue",
        "engine_form": ".engine_files",
        "register_python_plugins": ".python_plugins",
        "register_tensorrt": ".tensorrt_plugins",
    },
)
