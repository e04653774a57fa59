"""The Triton kernel of GroupShiftedWindowAttention: one program takes one window through the whole cascade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton
import triton.language as tl

from ..blocks import LOG2E, LOWEST, accumulate_base2, at_seam, pixels_at, rows_and_columns, scaled_bias, sides
from ..launch import ITEM_BYTES, Launch, NoKernel, Shape, block_size, check_biases, check_image, pick
from . import NAME

__all__ = ["OUTPUT_TYPE", "SCRATCH", "TACTICS", "group_shifted_window_attention_kernel", "launch", "output_shape"]

OUTPUT_TYPE: str | None = None
"""Type of the output; None where it is the image's."""

SCRATCH = True
"""Whether the kernel takes scratch memory."""

TACTICS = ((64, 64, 4), (128, 64, 8))
"""Queries and keys of a block, and warps: several small programs a multiprocessor, or one of twice the warps alone."""

FLOAT32 = (64, 32, 4)
"""Most queries and keys of a block, and most warps, in float32, whose products take more registers."""

FLOAT32_TABLE = (64, 16, 4)
"""The same for biases in a table, whose addresses take more registers."""

TABLE = (128, 64, 8)
"""And for such biases in half precision."""

WARP_QUERIES = 16
"""Least queries of a warp: the rows of a tensor-core product. In windows smaller than a block twice as many."""

LEAST_BLOCKS = 2 if (3, 7) <= tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9) else 1
"""Least blocks of keys: where one is all keys of a window, Triton 3.8 spills 500 bytes a thread."""

SMALLEST_KEYS = 16
"""Least keys of a block: the columns of a tensor-core product."""

MAX_QUERIES = 256
"""Tokens of a window."""

MAX_LANES = 64
"""Width of a group."""

MAX_NUMBERS = 12288
"""Numbers of a window's q: keys are 32 wide in windows of `MAX_QUERIES` tokens and wider in smaller ones."""

RESIDENT_BYTES = 16 * 1024
"""Weights of a group's projection that stay on chip from block to block of its tokens."""

WIDE_KEYS = 64
"""Lanes of a key beyond which blocks are small."""

UNROLLED_TAPS = 35
"""Most taps that are all written out: more compile for minutes. Of more, and in float32, those of a row are."""

WIDE = (16, 16, 4)
"""Queries and keys of a block, and warps, of keys wider than `WIDE_KEYS`."""


@triton.jit  # type: ignore[untyped-decorator]
def group_input(
    x: tl.tensor,
    output: tl.tensor,
    pixel: tl.tensor,
    valid: tl.tensor,
    group: tl.tensor,
    channels: tl.constexpr,
    width: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """A group's channels plus the previous group's output, which lies in `output`."""
    lane = tl.arange(0, lanes)[None, :]
    mask = valid[:, None] & (lane < width)
    part = group * width + lane
    own = tl.load((x + part) + pixel[:, None] * channels, mask=mask, other=0.0)
    before = tl.load((output + (part - width)) + pixel[:, None] * channels, mask=mask & (group > 0), other=0.0)
    return (own.to(tl.float32) + before.to(tl.float32)).to(own.dtype)


@triton.jit  # type: ignore[untyped-decorator]
def projection(
    weight: tl.tensor,
    bias: tl.tensor,
    first: tl.tensor,
    count: tl.constexpr,
    lanes: tl.constexpr,
    width: tl.constexpr,
    width_lanes: tl.constexpr,
    spare: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Rows ``first .. first + count - 1`` of a projection, transposed and padded, and its bias as a float32 row.

    Lane `count` of the bias, where there is one, holds `spare`.
    """
    row = tl.arange(0, lanes)[None, :]
    column = tl.arange(0, width_lanes)[:, None]
    block = tl.load(weight + (first + row) * width + column, mask=(row < count) & (column < width), other=0.0)
    shift = tl.load(bias + first + row, mask=row < count, other=0.0).to(tl.float32)
    return block, tl.where(row == count, spare, shift)


@triton.jit  # type: ignore[untyped-decorator]
def store_taps(
    taps: tl.tensor,
    weight: tl.tensor,
    group: tl.tensor,
    key_width: tl.constexpr,
    key_lanes: tl.constexpr,
    count: tl.constexpr,
    count_lanes: tl.constexpr,
) -> None:
    """A group's depthwise filter ``[dk, count]`` as float32 ``[count, key_lanes]``, zeros in the spare lanes."""
    lane = tl.arange(0, key_lanes)[None, :]
    tap = tl.arange(0, count_lanes)[:, None]
    valid = (tap < count) & (lane < key_width)
    value = tl.load(weight + (group * key_width + lane) * count + tap, mask=valid, other=0.0)
    tl.store(taps + tap * key_lanes + lane, value.to(tl.float32), mask=(tap < count) & (lane < key_lanes))


@triton.jit  # type: ignore[untyped-decorator]
def depthwise(
    image: tl.tensor,
    taps: tl.tensor,
    shift: tl.tensor,
    corner: tl.tensor,
    kernel_height: tl.constexpr,
    kernel_width: tl.constexpr,
    rows: tl.constexpr,
    image_width: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """Depthwise filter of a bordered image at tokens whose first tap lies at pixel `corner`: ``[M, lanes]`` float32.

    `rows` of the filter are written out, the others a loop.

    Tensors of a rank of their own get a layout of their own: 16 bytes of float32 a thread, and not of the tensor type.
    """
    lane = tl.arange(0, lanes)[None, None, :]
    here = image + corner[:, None, None] * lanes + lane
    result = tl.broadcast_to(shift[None, :, :], [corner.shape[0], 1, lanes])
    for first in range(0, kernel_height, rows):
        for below in tl.static_range(rows):
            for column in tl.static_range(kernel_width):
                near = tl.load(here + ((first + below) * image_width + column) * lanes)
                tap = tl.load(taps + ((first + below) * kernel_width + column) * lanes + lane)
                result += near * tap
    return tl.reshape(result, [corner.shape[0], lanes])


@triton.jit  # type: ignore[untyped-decorator]
def attend(
    query: tl.tensor,
    key_memory: tl.tensor,
    value_memory: tl.tensor,
    bias_table: tl.tensor,
    window: tl.tensor,
    group: tl.tensor,
    token: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    groups: tl.constexpr,
    key_width: tl.constexpr,
    value_width: tl.constexpr,
    value_lanes: tl.constexpr,
    in_rows: tl.constexpr,
    keys: tl.constexpr,
    full: tl.constexpr,
    masked: tl.constexpr,
) -> tl.tensor:
    """Attention of a block of queries to all tokens of the window: ``[M, value_lanes]`` in the tensor type.

    The softmax is to base 2, one fused product and sum a logit. `full` says that no query or key is padding,
    `masked` that regions of a shift meet here.
    """
    tokens: tl.constexpr = window_size * window_size
    key_lanes: tl.constexpr = query.shape[1]
    spare: tl.constexpr = value_width < value_lanes
    exponent: tl.constexpr = LOG2E * key_width**-0.5
    key_lane = tl.arange(0, key_lanes)[None, :]
    lane = tl.arange(0, value_lanes)[None, :]
    result = tl.zeros([query.shape[0], value_lanes], tl.float32)
    top = tl.full([query.shape[0]], LOWEST, tl.float32)
    total = tl.zeros([query.shape[0]], tl.float32)
    for start in range(0, tokens, keys):
        key_token = start + tl.arange(0, keys)
        key = tl.load(key_memory + key_token[:, None] * key_lanes + key_lane)
        value = tl.load(value_memory + key_token[:, None] * value_lanes + lane)
        logits = scaled_bias(bias_table, group, token, key_token, window_size, groups, key_width, in_rows, full)
        logits = tl.dot(query, tl.trans(key), logits, input_precision="tf32x3")
        if masked:
            side = sides(window, token, height, width, window_size, shift_size)
            key_side = sides(window, key_token, height, width, window_size, shift_size)
            logits += tl.where(side[:, None] == key_side[None, :], 0.0, -100.0 * key_width**0.5)
        if not full:
            logits = tl.where((key_token < tokens)[None, :], logits, float("-inf"))
        result, top, total = accumulate_base2(logits, value, result, top, total, exponent, spare, tokens <= keys)
    if spare:
        total = tl.sum(tl.where(lane == value_width, result, 0.0), 1)
    return (result * (1.0 / total)[:, None]).to(query.dtype)


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
    scratch: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    groups: tl.constexpr,
    key_width: tl.constexpr,
    key_lanes: tl.constexpr,
    value_width: tl.constexpr,
    value_lanes: tl.constexpr,
    kernel_height: tl.constexpr,
    kernel_width: tl.constexpr,
    filter_rows: tl.constexpr,
    in_rows: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
    padded: tl.constexpr,
    resident: tl.constexpr,
    scratch_size: tl.constexpr,
) -> None:
    """All groups of one window in turn (AgileIR, arXiv 2409.06206): projection, depthwise q, attention.

    For every group the program first projects all tokens of its window and leaves q (float32, inside a border of zeros,
    so that no tap of the filter needs a mask), k and v (tensor type) in its scratch; behind a barrier it takes block
    after block of queries through filter and attention. Their output goes to its channels of `output`; behind another
    barrier the next group reads it from there.

    The weights of a group's projection are `resident`, or loaded for every block where they are large.
    Keys and values are padded to `key_lanes` and `value_lanes`, the tokens to `padded`. Where values leave a lane, it
    holds ones, and the sums of a softmax's weights come from the product with the values.
    """
    tokens: tl.constexpr = window_size * window_size
    channels: tl.constexpr = groups * value_width
    full: tl.constexpr = tokens % queries == 0 and tokens % keys == 0
    taps_count: tl.constexpr = kernel_height * kernel_width
    image_width: tl.constexpr = window_size + kernel_width - 1
    image_size: tl.constexpr = (window_size + kernel_height - 1) * image_width * key_lanes
    window = tl.program_id(0)
    key_lane = tl.arange(0, key_lanes)[None, :]
    lane = tl.arange(0, value_lanes)[None, :]

    image = scratch + window.to(tl.int64) * scratch_size
    taps = image + image_size
    key_memory = (taps + taps_count * key_lanes).to(tl.pointer_type(x.dtype.element_ty), bitcast=True)
    value_memory = key_memory + padded * key_lanes

    seam = False
    if shift_size > 0:
        seam = at_seam(window, height, width, window_size)

    for start in tl.range(0, image_size, 1024, num_stages=1):
        place = start + tl.arange(0, 1024)
        tl.store(image + place, tl.zeros([1024], tl.float32), mask=place < image_size)
    tl.debug_barrier()

    for group in range(groups):
        first = group * (2 * key_width + value_width)
        store_taps(taps, q_dw_weight, group, key_width, key_lanes, taps_count, triton.next_power_of_2(taps_count))
        query_weight, query_bias = projection(
            qkv_weight, qkv_bias, first, key_width, key_lanes, value_width, value_lanes, 0.0
        )
        key_weight, key_bias = projection(
            qkv_weight, qkv_bias, first + key_width, key_width, key_lanes, value_width, value_lanes, 0.0
        )
        value_weight, value_bias = projection(
            qkv_weight, qkv_bias, first + 2 * key_width, value_width, value_lanes, value_width, value_lanes, 1.0
        )
        for start in tl.range(0, tokens, queries, num_stages=1):
            token = start + tl.arange(0, queries)
            row, column = rows_and_columns(start, queries, window_size)
            pixel = pixels_at(window, row, column, height, width, window_size, shift_size)
            inputs = group_input(x, output, pixel, token < tokens, group, channels, value_width, value_lanes)
            if not resident:
                query_weight, query_bias = projection(
                    qkv_weight, qkv_bias, first, key_width, key_lanes, value_width, value_lanes, 0.0
                )
                key_weight, key_bias = projection(
                    qkv_weight, qkv_bias, first + key_width, key_width, key_lanes, value_width, value_lanes, 0.0
                )
                value_weight, value_bias = projection(
                    qkv_weight, qkv_bias, first + 2 * key_width, value_width, value_lanes, value_width, value_lanes, 1.0
                )
            query = tl.dot(inputs, query_weight, input_precision="tf32x3") + query_bias
            inside = (row + kernel_height // 2) * image_width + column + kernel_width // 2
            tl.store(image + inside[:, None] * key_lanes + key_lane, query, mask=(token < tokens)[:, None])
            key = tl.dot(inputs, key_weight, input_precision="tf32x3") + key_bias
            tl.store(key_memory + token[:, None] * key_lanes + key_lane, key.to(x.dtype.element_ty))
            value = tl.dot(inputs, value_weight, input_precision="tf32x3") + value_bias
            tl.store(value_memory + token[:, None] * value_lanes + lane, value.to(x.dtype.element_ty))
        tl.debug_barrier()

        shift = tl.load(q_dw_bias + group * key_width + key_lane, mask=key_lane < key_width, other=0.0)
        for start in tl.range(0, tokens, queries, num_stages=1):
            token = start + tl.arange(0, queries)
            row, column = rows_and_columns(start, queries, window_size)
            corner = (row if full else tl.minimum(row, window_size - 1)) * image_width + column
            query = depthwise(
                image,
                taps,
                shift.to(tl.float32),
                corner,
                kernel_height,
                kernel_width,
                filter_rows,
                image_width,
                key_lanes,
            ).to(x.dtype.element_ty)
            result = tl.zeros([queries, value_lanes], x.dtype.element_ty)
            for masked in tl.static_range(2 if shift_size > 0 else 1):
                if seam == (masked > 0):
                    result = attend(
                        query,
                        key_memory,
                        value_memory,
                        bias_table,
                        window,
                        group,
                        token,
                        height,
                        width,
                        window_size,
                        shift_size,
                        groups,
                        key_width,
                        value_width,
                        value_lanes,
                        in_rows,
                        keys,
                        full,
                        masked,
                    )
            pixel = pixels_at(window, row, column, height, width, window_size, shift_size)
            tl.store(
                (output + (group * value_width + lane)) + pixel[:, None] * channels,
                result,
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
    blocks = pick(NAME, TACTICS, tactic)
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
    tokens = window_size * window_size
    key_lanes, value_lanes = block_size(key_width), block_size(value_width)
    padded = block_size(tokens)
    if tokens > MAX_QUERIES or value_lanes > MAX_LANES or padded * key_lanes > MAX_NUMBERS:
        raise NoKernel(
            f"{NAME}: the kernel takes windows of {MAX_QUERIES} tokens, groups {MAX_LANES} wide and {MAX_NUMBERS} "
            f"numbers of q at most, got window_size {window_size}, group width {value_width}, and dk {key_width}, "
            f"which takes {padded * key_lanes} numbers"
        )
    if dtype == "float32":
        blocks = tuple(map(min, blocks, FLOAT32 if in_rows else FLOAT32_TABLE))
    elif not in_rows:
        blocks = tuple(map(min, blocks, TABLE))
    queries, keys, num_warps = blocks
    if key_lanes > WIDE_KEYS:
        queries, keys, num_warps = WIDE
    else:
        queries, keys = min(queries, padded), min(keys, max(padded // LEAST_BLOCKS, SMALLEST_KEYS))
        least = WARP_QUERIES if queries == blocks[0] else 2 * WARP_QUERIES
        num_warps = min(num_warps, max(1, queries // least))
    unrolled = kernel_height * kernel_width <= UNROLLED_TAPS and dtype != "float32"
    bordered = (window_size + kernel_height - 1) * (window_size + kernel_width - 1)
    halves = padded * (key_lanes + value_lanes) * ITEM_BYTES[dtype] // ITEM_BYTES["float32"]
    scratch = (bordered + kernel_height * kernel_width) * key_lanes + halves
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
            "filter_rows": kernel_height if unrolled else 1,
            "in_rows": in_rows,
            "queries": queries,
            "keys": keys,
            "padded": padded,
            "resident": value_lanes * (2 * key_lanes + value_lanes) * ITEM_BYTES[dtype] <= RESIDENT_BYTES,
            "scratch_size": scratch,
        },
        window_size=window_size,
        programs=1,
        num_warps=num_warps,
        key_width=key_width,
        scratch=scratch,
    )


def output_shape(shapes: Sequence[Sequence[Any]], attributes: Mapping[str, int]) -> tuple[Any, ...]:
    """Shape of the output, of numbers or of TensorRT's shape expressions."""
    del attributes
    return tuple(shapes[0])
