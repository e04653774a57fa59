"""The Triton kernel of GroupShiftedWindowAttention: one program takes one window through the whole cascade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton
import triton.language as tl

from ..blocks import FLOAT32_STEP, LOWEST, accumulate, pixels, regions, same_region_or_masked, scaled_bias
from ..launch import MAX_SHARED_BYTES, Launch, NoKernel, Shape, block_size, check_biases, check_image, pick
from . import NAME

__all__ = ["OUTPUT_TYPE", "SCRATCH", "TACTICS", "group_shifted_window_attention_kernel", "launch", "output_shape"]

OUTPUT_TYPE: str | None = None
"""Type of the output; None where it is the image's."""

SCRATCH = False
"""Whether the kernel takes scratch memory."""

TACTICS = (8, 16)
"""Warps of a program at most; each is given sixteen queries at least."""

KEYS = 16
"""Keys of a block."""

WARP_QUERIES = 16
"""Queries a warp is given at least: the rows of a tensor-core product."""

MAX_QUERIES = 256
"""Tokens of a window: one program holds the queries of all of them."""

FEW_WARPS = 8
"""Warps that leave each thread 255 registers. More leave 128, into which only narrow keys in half precision fit."""

NARROW_KEYS = 16
"""Lanes of a key up to which three rows of the filter, or sixteen warps, fit into registers in half precision."""

MAX_LANES = 64
"""Width of a group."""


@triton.jit  # type: ignore[untyped-decorator]
def unknown_zero(group: tl.tensor, size: tl.tensor, groups: tl.constexpr) -> tl.tensor:
    """0 for every image, which no compiler can know.

    Added to token numbers it keeps the addresses made from them inside the loop over groups: computed before it, they
    would occupy more registers than there are.
    """
    return (group >= size * groups).to(tl.int32)


@triton.jit  # type: ignore[untyped-decorator]
def group_input(
    x: tl.tensor,
    output: tl.tensor,
    pixel: tl.tensor,
    valid: tl.tensor,
    group: tl.tensor,
    start: tl.tensor,
    channels: tl.constexpr,
    width: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """A group's channels from `start` on plus the previous group's output, which lies in `output`."""
    lane = start + tl.arange(0, lanes)[None, :]
    mask = valid[:, None] & (lane < width)
    address = pixel[:, None] * channels + group * width + lane
    own = tl.load(x + address, mask=mask, other=0.0)
    before = tl.load(output + address - width, mask=mask & (group > 0), other=0.0)
    return (own.to(tl.float32) + before.to(tl.float32)).to(own.dtype)


@triton.jit  # type: ignore[untyped-decorator]
def weight_block(
    weight: tl.tensor,
    first: tl.tensor,
    start: tl.tensor,
    count: tl.constexpr,
    count_lanes: tl.constexpr,
    width: tl.constexpr,
    width_lanes: tl.constexpr,
) -> tl.tensor:
    """Rows ``first .. first + count - 1`` of a projection from input channel `start` on, transposed and padded."""
    row = tl.arange(0, count_lanes)[None, :]
    column = start + tl.arange(0, width_lanes)[:, None]
    mask = (row < count) & (column < width)
    return tl.load(weight + (first + row) * width + column, mask=mask, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def bias_row(bias: tl.tensor, first: tl.tensor, count: tl.constexpr, lanes: tl.constexpr) -> tl.tensor:
    """Biases ``first .. first + count - 1`` as a float32 row, padded with zeros."""
    lane = tl.arange(0, lanes)[None, :]
    return tl.load(bias + first + lane, mask=lane < count, other=0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def moved(
    block: tl.tensor,
    token: tl.tensor,
    down: tl.tensor,
    right: tl.constexpr,
    window_size: tl.constexpr,
) -> tl.tensor:
    """Token ``(row + down, column + right)`` of the window at every token, 0 beyond the window's border.

    The gather is written over the flattened block: along the token axis alone Triton would gather within warps, by
    many more shuffles than this takes loads.
    """
    rows: tl.constexpr = block.shape[0]
    lanes: tl.constexpr = block.shape[1]
    row = token // window_size + down
    column = token % window_size + right
    inside = (row >= 0) & (row < window_size) & (column >= 0) & (column < window_size)
    source = tl.where(inside, row * window_size + column, 0)
    index = source[:, None] * lanes + tl.arange(0, lanes)[None, :]
    flat = tl.gather(tl.reshape(block, [rows * lanes]), tl.reshape(index, [rows * lanes]), 0)
    return tl.where(inside[:, None], tl.reshape(flat, [rows, lanes]), 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def filter_rows(
    query: tl.tensor,
    address: tl.tensor,
    result: tl.tensor,
    token: tl.tensor,
    valid: tl.tensor,
    above: tl.tensor,
    rows: tl.constexpr,
    kernel_height: tl.constexpr,
    kernel_width: tl.constexpr,
    window_size: tl.constexpr,
) -> tl.tensor:
    """Adds to `result` what rows ``above .. above + rows - 1`` of a depthwise filter contribute."""
    sums = ()
    for right in tl.static_range(kernel_width):
        shifted = query
        if right != kernel_width // 2:
            shifted = moved(query, token, 0, right - kernel_width // 2, window_size)
        partial = ()
        for row in tl.static_range(rows):
            inside = valid & (above + row < kernel_height)
            tap = tl.load(address + (above + row) * kernel_width + right, mask=inside, other=0.0)
            term = shifted * tap.to(tl.float32)[None, :]
            if right > 0:
                term += sums[row]
            partial = partial + (term,)  # type: ignore[assignment]  # noqa: RUF005
        sums = partial
    for row in tl.static_range(rows):
        result += moved(sums[row], token, above + row - kernel_height // 2, 0, window_size)
    return result


@triton.jit  # type: ignore[untyped-decorator]
def depthwise(
    query: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    group: tl.tensor,
    token: tl.tensor,
    size: tl.tensor,
    key_width: tl.constexpr,
    kernel_height: tl.constexpr,
    kernel_width: tl.constexpr,
    rows_at_once: tl.constexpr,
    window_size: tl.constexpr,
) -> tl.tensor:
    """Depthwise convolution of q laid out as a w x w image, zero padding at the window's border, plus its bias.

    A shift by (dr, dc) is a shift along the row followed by one along the column, so the sums over dc come first, for
    `rows_at_once` rows of the filter at a time: kw shifts for each such pass and kh in all, instead of kh * kw.
    """
    lanes: tl.constexpr = query.shape[1]
    lane = tl.arange(0, lanes)
    taps: tl.constexpr = kernel_height * kernel_width
    address = weight + (group * key_width + lane) * taps
    shift = tl.load(bias + group * key_width + lane, mask=lane < key_width, other=0.0)
    result = tl.zeros_like(query) + shift.to(tl.float32)[None, :]
    for above in range(0, kernel_height, rows_at_once):
        here = token + unknown_zero(above, size, kernel_height)
        result = filter_rows(
            query,
            address,
            result,
            here,
            lane < key_width,
            above,
            rows_at_once,
            kernel_height,
            kernel_width,
            window_size,
        )
    return result


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator]
def group_shifted_window_attention_kernel(
    x: tl.tensor,
    qkv_weight: tl.tensor,
    qkv_bias: tl.tensor,
    q_dw_weight: tl.tensor,
    q_dw_bias: tl.tensor,
    bias_table: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    output: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    groups: tl.constexpr,
    key_width: tl.constexpr,
    key_lanes: tl.constexpr,
    value_width: tl.constexpr,
    value_lanes: tl.constexpr,
    kernel_height: tl.constexpr,
    kernel_width: tl.constexpr,
    rows_at_once: tl.constexpr,
    input_step: tl.constexpr,
    in_rows: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
) -> None:
    """All groups of one window in turn (AgileIR, arXiv 2409.06206): projection, depthwise q, attention.

    Every group's output goes to its channels of `output`; behind a barrier the next group reads it from there. The
    queries of the whole window are held at once (`queries` is w*w padded), keys and values are projected block by
    block. `key_lanes` and `value_lanes` are the widths of keys and values padded to powers of two. What
    is held in registers at once is bounded by `rows_at_once` (see `depthwise`) and by `input_step`, the input
    channels that a projection takes at a time.
    """
    tokens: tl.constexpr = window_size * window_size
    channels: tl.constexpr = groups * value_width
    full: tl.constexpr = tokens % queries == 0 and tokens % keys == 0
    window = tl.program_id(0)
    token = tl.arange(0, queries)
    region = regions(window, token, height, width, window_size, shift_size)

    for group in range(groups):
        here = token + unknown_zero(group, height, groups)
        pixel = pixels(window, here, height, width, window_size, shift_size)
        first = group * (2 * key_width + value_width)
        query = tl.zeros([queries, key_lanes], tl.float32)
        for part in range(0, value_lanes, input_step):
            inputs = group_input(x, output, pixel, token < tokens, group, part, channels, value_width, input_step)
            weight = weight_block(qkv_weight, first, part, key_width, key_lanes, value_width, input_step)
            query = tl.dot(inputs, weight, query, input_precision="tf32x3")
        query += bias_row(qkv_bias, first, key_width, key_lanes)
        query = depthwise(
            query,
            q_dw_weight,
            q_dw_bias,
            group,
            token,
            height,
            key_width,
            kernel_height,
            kernel_width,
            rows_at_once,
            window_size,
        ).to(x.dtype.element_ty)

        result = tl.zeros([queries, value_lanes], tl.float32)
        top = tl.full([queries], LOWEST, tl.float32)
        total = tl.zeros([queries], tl.float32)
        for start in range(0, tokens, keys):
            key_token = start + tl.arange(0, keys)
            key_pixel = pixels(window, key_token, height, width, window_size, shift_size)
            key = tl.zeros([keys, key_lanes], tl.float32)
            value = tl.zeros([keys, value_lanes], tl.float32)
            for part in range(0, value_lanes, input_step):
                inputs = group_input(
                    x, output, key_pixel, key_token < tokens, group, part, channels, value_width, input_step
                )
                weight = weight_block(
                    qkv_weight, first + key_width, part, key_width, key_lanes, value_width, input_step
                )
                key = tl.dot(inputs, weight, key, input_precision="tf32x3")
                weight = weight_block(
                    qkv_weight, first + 2 * key_width, part, value_width, value_lanes, value_width, input_step
                )
                value = tl.dot(inputs, weight, value, input_precision="tf32x3")
            key = (key + bias_row(qkv_bias, first + key_width, key_width, key_lanes)).to(x.dtype.element_ty)
            value += bias_row(qkv_bias, first + 2 * key_width, value_width, value_lanes)
            logits = scaled_bias(bias_table, group, token, key_token, window_size, groups, key_width, in_rows, full)
            logits = tl.dot(query, tl.trans(key), logits, input_precision="tf32x3") * key_width**-0.5
            if shift_size > 0:
                key_region = regions(window, key_token, height, width, window_size, shift_size)
                logits = same_region_or_masked(logits, region, key_region)
            if not full:
                logits = tl.where((key_token < tokens)[None, :], logits, float("-inf"))
            result, top, total = accumulate(logits, value.to(x.dtype.element_ty), result, top, total)

        here = token + unknown_zero(group, width, groups)
        pixel = pixels(window, here, height, width, window_size, shift_size)
        lane = tl.arange(0, value_lanes)[None, :]
        tl.store(
            output + pixel[:, None] * channels + group * value_width + lane,
            (result / total[:, None]).to(output.dtype.element_ty),
            mask=(token < tokens)[:, None] & (lane < value_width),
        )
        tl.debug_barrier()


def launch(shapes: Sequence[Shape], attributes: Mapping[str, int], dtype: str, tactic: int = 1) -> Launch:
    """How to start the kernel.

    Args:
        shapes: Shapes of x, qkv_weight, qkv_bias, q_dw_weight, q_dw_bias, bias_table.
        attributes: window_size, shift_size.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        tactic: Which of `TACTICS`, from 1.

    Raises:
        NoKernel: The kernel cannot be started for these shapes.
    """
    most_warps = pick(NAME, TACTICS, tactic)
    image, qkv_weight, qkv_bias, q_dw_weight, q_dw_bias, table = (tuple(s) for s in shapes)
    window_size, shift_size = attributes["window_size"], attributes["shift_size"]
    check_image(NAME, image, window_size, shift_size, dtype)
    if len(qkv_weight) != 3 or len(q_dw_weight) != 4:
        raise NoKernel(
            f"{NAME}: qkv_weight must be [G, 2dk+dv, Cg] and q_dw_weight [G, dk, kh, kw], "
            f"got {list(qkv_weight)} and {list(q_dw_weight)}"
        )
    groups, rows, value_width = qkv_weight
    key_width, kernel_height, kernel_width = q_dw_weight[1:]
    if key_width < 1:
        raise NoKernel(f"{NAME}: dk must be at least 1, got {key_width}")
    expected = {
        "image channels": (image[3:], (groups * value_width,)),
        "qkv_weight": (qkv_weight, (groups, 2 * key_width + value_width, value_width)),
        "qkv_bias": (qkv_bias, (groups, rows)),
        "q_dw_weight": (q_dw_weight, (groups, key_width, kernel_height | 1, kernel_width | 1)),
        "q_dw_bias": (q_dw_bias, (groups, key_width)),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise NoKernel(f"{NAME}: {name} must be {list(wanted)}, got {list(found)}")
    in_rows = check_biases(NAME, table, window_size, groups)
    queries = block_size(window_size * window_size)
    key_lanes, value_lanes = block_size(key_width), block_size(value_width)
    crowded = dtype == "float32" or key_lanes > NARROW_KEYS
    num_warps = min(queries // WARP_QUERIES, FEW_WARPS if crowded else most_warps)
    roomy = not crowded and num_warps <= FEW_WARPS
    shared = 4 * queries * key_lanes
    if queries > MAX_QUERIES or value_lanes > MAX_LANES or shared > MAX_SHARED_BYTES:
        raise NoKernel(
            f"{NAME}: the kernel takes windows of {MAX_QUERIES} tokens, groups {MAX_LANES} wide and "
            f"{MAX_SHARED_BYTES} bytes of shared memory for q at most, got window_size {window_size}, "
            f"group width {value_width}, and dk {key_width}, which takes {shared} bytes"
        )
    return Launch(
        kernel=group_shifted_window_attention_kernel,
        constants={
            "window_size": window_size,
            "shift_size": shift_size,
            "groups": groups,
            "key_width": key_width,
            "key_lanes": key_lanes,
            "value_width": value_width,
            "value_lanes": value_lanes,
            "kernel_height": kernel_height,
            "kernel_width": kernel_width,
            "rows_at_once": 3 if roomy else 1,
            "input_step": FLOAT32_STEP if dtype == "float32" else 16,
            "in_rows": in_rows,
            "queries": queries,
            "keys": KEYS,
        },
        window_size=window_size,
        programs=1,
        num_warps=num_warps,
        key_width=key_width,
    )


def output_shape(shapes: Sequence[Sequence[Any]], attributes: Mapping[str, int]) -> tuple[Any, ...]:
    """Shape of the output, of numbers or of TensorRT's shape expressions."""
    del attributes
    return tuple(shapes[0])
