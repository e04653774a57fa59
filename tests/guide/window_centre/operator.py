"""``torch.ops.agileir.window_centre``: every window less its mean."""

from typing import Any

import torch
from torch import Tensor

from ..checks import check_tensors, check_window
from ..dispatch import register_cuda
from ..registry import DOMAIN
from ..windows import from_windows, to_windows
from . import NAME, OPERATOR

__all__ = ["window_centre"]


@torch.library.custom_op(f"{DOMAIN}::{NAME}", mutates_args=())
def window_centre(x: Tensor, window_size: int) -> Tensor:
    """Takes the mean of every window off its pixels: ``[B, H, W, C]`` to the same; H and W multiples of the window."""
    check_window(NAME, x, window_size, 0)
    check_tensors(NAME, x=x)
    windows = to_windows(x, window_size, 0)
    return from_windows(windows - windows.mean(1, keepdim=True), *x.shape[1:3], window_size, 0)


@window_centre.register_fake
def _(x: Tensor, window_size: int) -> Tensor:
    check_window(NAME, x, window_size, 0)
    return x.new_empty(x.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.window_size = inputs


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return window_centre(gradient, ctx.window_size), None  # a projection, which is its own adjoint


window_centre.register_autograd(_backward, setup_context=_setup)
register_cuda(window_centre, OPERATOR)
