"""NVIDIA polygraphy that knows our operators: options for ``polygraphy run``, references, and the ready command."""

from typing import TYPE_CHECKING

from ...lazy import lazy_attributes

if TYPE_CHECKING:
    from .arguments import argument_groups
    from .command import Comparison, plan_comparison
    from .hooks import FixedPeakPsnr, Pictures, WithoutTf32, WithPlugins, WithPythonPlugins

__all__ = [
    "Comparison",
    "FixedPeakPsnr",
    "Pictures",
    "WithPlugins",
    "WithPythonPlugins",
    "WithoutTf32",
    "argument_groups",
    "plan_comparison",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "argument_groups": ".arguments",
        **dict.fromkeys(("Comparison", "plan_comparison"), ".command"),
        **dict.fromkeys(("FixedPeakPsnr", "Pictures", "WithPlugins", "WithPythonPlugins", "WithoutTf32"), ".hooks"),
    },
)
