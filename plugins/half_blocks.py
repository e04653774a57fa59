"""Half blocks of a transformer for inference: layer norm, products, attention and residual fused around each other.

Four functions on tensors of one CUDA device: `norm`, `norm_projection`, `token_tail` and `window_attention`. Each takes
its weights packed, as the kernels read them: made once by the function's ``pack_...`` and then given at every call.
A ``..._launch`` says how the kernel is started, and refuses (`NoKernel`) what it was not made for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .bias_rows import bias_rows
from .launch import ITEM_BYTES, MAX_HEAD_WIDTH, MAX_PIXELS, Launch, NoKernel, block_size, check_image

__all__ = [
    "MAX_TOKENS",
    "Choice",
    "Fused",
    "norm_launch",
    "norm_projection_launch",
    "pack_norm",
    "pack_norm_projection",
    "pack_token_tail",
    "pack_window_attention",
    "start",
    "token_tail_launch",
    "window_attention_launch",
]

PART = 64
"""Channels that the kernels handle together: widths are padded to a multiple."""

MAX_CHANNELS = {"float32": 192, "float16": 512, "bfloat16": 512}
"""Width beyond which a row does not fit into registers."""

MAX_WINDOW_CHANNELS = {"float32": 64, "float16": 192, "bfloat16": 192}
"""The same where a whole window is held."""

MAX_PADDED_CHANNELS = {"float32": 64, "float16": 96, "bfloat16": 96}
"""The same where its tokens are not a power of two: their mask takes registers, too."""

MAX_TOKENS = 64
"""Tokens of a window up to which one program attends to all of them at once."""

WARP_ROWS = 16
"""Rows of a product that a warp has at least. Where a program has more warps than that, Triton 3.6 gives some of them
rows beyond the last of a narrow product, and on Hopper the program ends with an illegal memory access."""


@dataclass(frozen=True)
class Choice:
    """How a kernel cuts its work: what a sweep on a GPU decides.

    Attributes:
        tokens: Tokens (lanes of windows for window attention) a program.
        step: Output columns, or hidden units, at a time; nothing for window attention.
        num_warps: Warps a program.
        stages: Tiles of a loop's loads in flight.
    """

    tokens: int
    step: int
    num_warps: int
    stages: int


class Fused(NamedTuple):
    """A launch and the packed weights that it goes with."""

    launch: Launch
    weights: tuple[Tensor, ...]


def kernels() -> ModuleType:
    """The kernels; needs Triton."""
    from . import half_block_kernels

    return half_block_kernels


def parts_of(channels: int) -> int:
    """Parts that a row of channels is held in."""
    return -(-channels // PART)


def padded(size: int) -> int:
    """The next multiple of `PART`."""
    return parts_of(size) * PART


def check(channels: int, dtype: str, largest: Mapping[str, int] = MAX_CHANNELS) -> None:
    """Refuses (NoKernel) a type or a width that the kernels were not made for."""
    if dtype not in ITEM_BYTES:
        raise NoKernel(f"half blocks: the kernels take {', '.join(ITEM_BYTES)}, got {dtype}")
    if not 1 <= channels <= largest[dtype]:
        raise NoKernel(f"half blocks: the kernel takes 1 to {largest[dtype]} channels in {dtype}, got {channels}")


def token_choice(channels: int, dtype: str) -> Choice:
    """How a kernel that goes token by token cuts its work: as many tokens as registers hold at a width."""
    if dtype == "float32":
        return Choice(32, 32, 4, 1) if channels <= PART else Choice(16, 16, 4, 1)
    if channels <= 3 * PART:
        return Choice(64, 64, 4, 1)
    return Choice(32, 32, 4, 1) if channels <= 4 * PART else Choice(32, 32, 8, 1)


def norm_launch(channels: int, dtype: str, epsilon: float = 1e-5) -> Launch:
    """How to start `norm_kernel`.

    Raises:
        NoKernel: The kernel was not made for this type or width.
    """
    check(channels, dtype)
    constants = {"channels": channels, "parts": parts_of(channels), "tokens": 16, "epsilon": epsilon}
    return Launch(kernels().norm_kernel, constants, 1, 1, 4, unit=16)


def norm_projection_launch(
    channels: int, outputs: int, dtype: str, epsilon: float = 1e-5, choice: Choice | None = None
) -> Launch:
    """How to start `norm_projection_kernel`.

    Raises:
        NoKernel: The kernel was not made for this type or width.
    """
    check(channels, dtype)
    choice = choice or token_choice(channels, dtype)
    constants = {
        "channels": channels,
        "parts": parts_of(channels),
        "outputs": outputs,
        "padded": padded(outputs),
        "tokens": choice.tokens,
        "step": choice.step,
        "stages": choice.stages,
        "epsilon": epsilon,
    }
    kernel = kernels().norm_projection_kernel
    return Launch(kernel, constants, 1, 1, choice.num_warps, choice.stages, unit=choice.tokens)


def token_tail_launch(
    channels: int,
    hidden: int,
    dtype: str,
    *,
    projected: bool,
    rectified: bool = False,
    epsilon: float = 1e-5,
    choice: Choice | None = None,
) -> Launch:
    """How to start `token_tail_kernel`.

    Args:
        channels: C.
        hidden: Hidden width of the MLP.
        dtype: Tensor type.
        projected: Whether a projection and its residual come first.
        rectified: Whether a ReLU comes before that.
        epsilon: Of the layer norm.
        choice: How the work is cut.

    Raises:
        NoKernel: The kernel was not made for this type or width.
    """
    check(channels, dtype)
    choice = choice or token_choice(channels, dtype)
    constants = {
        "channels": channels,
        "parts": parts_of(channels),
        "hidden": padded(hidden),
        "projected": projected,
        "rectified": rectified,
        "tokens": choice.tokens,
        "step": choice.step,
        "stages": choice.stages,
        "epsilon": epsilon,
    }
    kernel = kernels().token_tail_kernel
    return Launch(kernel, constants, 1, 1, choice.num_warps, choice.stages, unit=choice.tokens)


def window_attention_launch(
    channels: int,
    attributes: Mapping[str, int],
    dtype: str,
    epsilon: float = 1e-5,
    choice: Choice | None = None,
) -> Launch:
    """How to start `window_attention_kernel`.

    Args:
        channels: C.
        attributes: window_size, shift_size, num_heads.
        dtype: Tensor type.
        epsilon: Of the layer norm.
        choice: How the work is cut.

    Raises:
        NoKernel: The kernel was not made for this type, width or window.
    """
    window_size, heads = attributes["window_size"], attributes["num_heads"]
    slot = block_size(window_size**2)
    if slot > MAX_TOKENS:
        raise NoKernel(f"half blocks: a window may have {MAX_TOKENS} tokens, got {window_size**2}")
    check(channels, dtype, MAX_WINDOW_CHANNELS if slot == window_size**2 else MAX_PADDED_CHANNELS)
    if heads < 1 or channels % heads or channels // heads > MAX_HEAD_WIDTH:
        raise NoKernel(f"half blocks: {channels} channels do not divide into {heads} heads up to {MAX_HEAD_WIDTH} wide")
    choice = choice or Choice(MAX_TOKENS, 0, MAX_TOKENS // WARP_ROWS, 1)
    windows = max(1, choice.tokens // slot)
    constants = {
        "window_size": window_size,
        "shift_size": attributes["shift_size"],
        "heads": heads,
        "head_width": channels // heads,
        "lanes": block_size(channels // heads),
        "channels": channels,
        "parts": parts_of(channels),
        "slot": slot,
        "windows": windows,
        "stages": choice.stages,
        "epsilon": epsilon,
    }
    kernel = kernels().window_attention_kernel
    return Launch(kernel, constants, window_size, 1, choice.num_warps, choice.stages, unit=windows)


def pack_norm(gain: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
    """Gain and shift of a layer norm, padded."""
    return _vector(gain), _vector(shift)


def pack_norm_projection(gain: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    """What `norm_projection_kernel` takes, of a layer norm and a linear layer ``[out, in]``."""
    return *pack_norm(gain, shift), *_linear(weight, bias)


def pack_token_tail(
    projection: tuple[Tensor, Tensor | None] | None,
    gain: Tensor,
    shift: Tensor,
    first: tuple[Tensor, Tensor | None],
    second: tuple[Tensor, Tensor | None],
) -> tuple[Tensor, ...]:
    """What `token_tail_kernel` takes, of the projection (or None), layer norm and linear layers of the MLP."""
    norm = pack_norm(gain, shift)
    before = _linear(*projection) if projection else norm  # which are not read
    return *before, *norm, *_linear(*first), *_linear(*second)


def pack_window_attention(
    gain: Tensor,
    shift: Tensor,
    qkv: tuple[Tensor, Tensor | None],
    projection: tuple[Tensor, Tensor | None],
    table: Tensor,
    window_size: int,
) -> tuple[Tensor, ...]:
    """What `window_attention_kernel` takes, of layer norm, linear layers and table ``[(2w-1)^2, heads]``."""
    heads, channels = table.shape[1], gain.shape[0]
    width, wide = channels // heads, padded(channels)
    lanes = block_size(width) - width
    weight = qkv[0].reshape(3, heads, width, channels).transpose(2, 3)
    bias = gain.new_zeros(3 * channels) if qkv[1] is None else qkv[1]
    out = projection[0].reshape(channels, heads, width).permute(1, 2, 0)
    rows = bias_rows(table.float(), window_size, width).to(table.dtype)
    packed = (
        *pack_norm(gain, shift),
        pad(weight, (0, lanes, 0, wide - channels)),
        pad(bias.reshape(3, heads, width), (0, lanes)),
        pad(out, (0, wide - channels, 0, lanes)),
        _vector(gain.new_zeros(channels) if projection[1] is None else projection[1]),
        rows,
    )
    return tuple(each.contiguous() for each in packed)


def _vector(vector: Tensor) -> Tensor:
    return pad(vector, (0, padded(len(vector)) - len(vector))).contiguous()


def _linear(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight ``[in, out]`` and bias, padded."""
    outputs, inputs = weight.shape
    turned = pad(weight.T, (0, padded(outputs) - outputs, 0, padded(inputs) - inputs)).contiguous()
    return turned, _vector(weight.new_zeros(outputs) if bias is None else bias)


def start(fused: Fused, images: Sequence[Tensor], outputs: int | None = None) -> Tensor:
    """Starts a kernel on PyTorch's current stream of the tensors' device.

    Args:
        fused: Launch and packed weights.
        images: The kernel's features ``[B, H, W, C]`` in order, all of one type, contiguous or not.
        outputs: Channels of the output; as the features' where None.

    Raises:
        NoKernel: The image does not fit the launch; nothing was started.
    """
    launch, image = fused.launch, images[0]
    batch, height, width, channels = image.shape
    if launch.window_size > 1:
        shift = int(launch.constants["shift_size"])
        check_image("half blocks", image.shape, launch.window_size, shift, str(image.dtype).removeprefix("torch."))
    if batch * height * width > MAX_PIXELS - launch.unit:  # rows are counted in int32, those of the last program, too
        raise NoKernel(f"half blocks: {batch} images of {height}x{width} have too many tokens")
    output = image.new_empty(batch, height, width, outputs or channels)
    if output.numel() == 0:
        return output
    with torch.cuda.device_of(image):
        launch.kernel[(launch.grid(batch, height, width),)](
            *(each.contiguous() for each in images),
            *fused.weights,
            *launch.sides(batch, height, width),
            output,
            **launch.constants,
            num_warps=launch.num_warps,
            num_stages=launch.num_stages,
            enable_fp_fusion=True,
        )
    return output
