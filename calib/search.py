"""Which layers are INT8: all that the budget allows, those that lose most given back to float first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ..errors import ParityMissed
from .options import CalibrationOptions
from .quality import Quality, describe

__all__ = ["fewest_promotions", "greatest_loss_first"]


def greatest_loss_first(names: Sequence[str], losses: Mapping[str, Quality], options: CalibrationOptions) -> list[str]:
    """Layers in the order in which they go back to float: by the part of an allowance that each alone uses."""
    return sorted(names, key=lambda name: losses[name].usage(options), reverse=True)


def fewest_promotions(
    order: Sequence[str],
    judge: Callable[[Collection[str]], Quality],
    options: CalibrationOptions,
    at_least: int = 0,
) -> tuple[list[str], Quality]:
    """Promotes as few layers to float, those that lose most first, as the budget asks for.

    The number is found by bisection: what k promotions do not bring into the budget, fewer do not either.

    Args:
        order: Names of the layers, greatest loss first.
        judge: Quality with the given layers in INT8.
        options: The allowances.
        at_least: Least number to promote.

    Returns:
        Names of the layers that stay INT8, and their quality together.

    Raises:
        ParityMissed: Not even the cheapest layer alone keeps within the budget.
    """
    low, high = at_least, len(order)
    best: tuple[list[str], Quality] | None = None
    tried: Quality | None = None
    promoted = low  # all layers first: mostly none has to go
    while low < high:
        kept = list(order[promoted:])
        tried = judge(kept)
        if tried.holds(options):
            best, high = (kept, tried), promoted
        else:
            low = promoted + 1
        promoted = (low + high) // 2
    if best is None:
        told = "" if tried is None else f": with the cheapest one alone {describe(tried)}"
        keys = tried is not None and tried.agreement is not None
        raise ParityMissed(
            f"No layer can be INT8 within {options.psnr_budget:g} dB of loss and {options.min_parity:g} dB of parity"
            f"{f', with {options.min_agreement:.1%} of equal keys' if keys else ''}{told}.",
            fix="Allow more with --psnr-budget, give images like those the model is used on, or use FP16.",
        )
    return best
