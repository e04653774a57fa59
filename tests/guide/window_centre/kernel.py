"""The Triton kernel of WindowCentre: one program for a window, which it holds whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton
import triton.language as tl

from ..blocks import pixels
from ..launch import Launch, NoKernel, Shape, block_size, check_image, pick
from . import NAME

__all__ = ["OUTPUT_TYPE", "SCRATCH", "TACTICS", "launch", "output_shape", "window_centre_kernel"]

OUTPUT_TYPE: str | None = None
"""Type of the output; None where it is the image's."""

SCRATCH = False
"""Whether the kernel takes scratch memory."""

TACTICS = (4, 8)
"""Warps of a program."""

MAX_NUMBERS = 2**14
"""Numbers of a window: they are held in registers."""


@triton.jit(do_not_specialize=["height", "width"])
def window_centre_kernel(
    x: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    output: tl.tensor,
    window_size: tl.constexpr,
    channels: tl.constexpr,
    tokens: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    """Takes the mean of a window off its pixels; sums are float32."""
    token = tl.arange(0, tokens)
    channel = tl.arange(0, lanes)[None, :]
    place = pixels(tl.program_id(0), token, height, width, window_size, 0)[:, None] * channels + channel
    mask = (token < window_size * window_size)[:, None] & (channel < channels)
    values = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(values, 0) / (window_size * window_size)
    tl.store(output + place, values - mean[None, :], mask=mask)


def launch(shapes: Sequence[Shape], attributes: Mapping[str, int], dtype: str, tactic: int = 1) -> Launch:
    """How to start the kernel; NoKernel where a window is too large."""
    (image,), window_size = shapes, attributes["window_size"]
    check_image(NAME, image, window_size, 0, dtype)
    tokens, lanes = block_size(window_size**2), block_size(image[3])
    if tokens * lanes > MAX_NUMBERS:
        raise NoKernel(f"{NAME}: the kernel takes windows of {MAX_NUMBERS} numbers at most, got {tokens * lanes}")
    return Launch(
        kernel=window_centre_kernel,
        constants={"window_size": window_size, "channels": image[3], "tokens": tokens, "lanes": lanes},
        window_size=window_size,
        programs=1,
        num_warps=pick(NAME, TACTICS, tactic),
    )


def output_shape(shapes: Sequence[Sequence[Any]], attributes: Mapping[str, int]) -> tuple[Any, ...]:
    """Shape of the output, of numbers or of TensorRT's shape expressions."""
    return tuple(shapes[0])
