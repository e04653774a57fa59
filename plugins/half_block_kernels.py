"""Triton kernels of half blocks: what a pre-norm transformer block computes around, and with, its attention.

Channels are held in parts of `PART` lanes, so that any width is a row of parts whose last one is padded; weights come
transposed (``[in, out]``) and padded with zeros to whole parts (`half_blocks` packs them). Sums, layer norms and
residuals are float32; operands of products have the tensors' type, and float32 products are exact to float32
("tf32x3"). Arguments are those of every kernel here: input pointers, height and width, the output pointer, constants.
The kernels that go token by token see only ``height * width`` rows: `height` may count the rows of a whole batch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .blocks import LOG2E, at_seam, pixels, scaled_bias, sides

__all__ = ["PART", "norm_kernel", "norm_projection_kernel", "token_tail_kernel", "window_attention_kernel"]

PART = tl.constexpr(64)
"""Channels that are handled together."""


@triton.jit  # type: ignore[untyped-decorator]
def gelu(value: tl.tensor, kind: tl.constexpr) -> tl.tensor:
    """The exact GELU ``v Phi(v)`` of float32 values, as exact as the type `kind` of the result can tell.

    For types of 16 bits it is ``max(v, 0) - |v| 2^P(|v|)``, where the polynomial P stands for ``log2 Phi(-|v|)``: a
    third of the error function's instructions, and a relative error below 4e-6 (minimax fit to 5.5; beyond that the
    result is less than 1e-7 away).
    """
    if kind == tl.float32:
        return 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    size = tl.abs(value)
    power = -1.7934564580783515e-06 * size + 6.090420077870922e-05
    power = power * size - 0.0009260292566532581
    power = power * size + 0.00849375825017078
    power = power * size - 0.05393784796054351
    power = power * size - 0.45848050600788975
    power = power * size - 1.151246836186573
    power = power * size - 0.999995465076557
    return tl.maximum(value, 0.0) - size * tl.exp2(power)


@triton.jit  # type: ignore[untyped-decorator]
def row_of(vector: tl.tensor, first: tl.tensor, size: tl.constexpr) -> tl.tensor:
    """Elements ``first..first+size-1`` of a padded vector as a row ``[1, size]`` of float32."""
    return tl.load(vector + first + tl.arange(0, size)).to(tl.float32)[None, :]


@triton.jit  # type: ignore[untyped-decorator]
def tile_of(
    matrix: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    rows: tl.constexpr,
    columns: tl.constexpr,
    stride: tl.constexpr,
) -> tl.tensor:
    """A block ``[rows, columns]`` of a padded weight with `stride` columns, from `row` and `column` on."""
    down = tl.arange(0, rows) + row
    along = tl.arange(0, columns) + column
    return tl.load(matrix + down[:, None] * stride + along[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def appended(held: tl.tuple, value: tl.tensor) -> tl.tuple:
    """Parts, and one more."""
    return held + (value,)  # noqa: RUF005 (Triton does not unpack)


@triton.jit  # type: ignore[untyped-decorator]
def load_parts(
    image: tl.tensor, place: tl.tensor, present: tl.tensor, channels: tl.constexpr, parts: tl.constexpr
) -> tl.tuple:
    """Rows of features from `place` (``[M, 1]``, int64) on, in float32 parts ``[M, PART]``; 0 where nothing is."""
    lane = tl.arange(0, PART)
    held = ()
    for part in tl.static_range(parts):
        mask = present & (lane + part * PART < channels)[None, :]
        value = tl.load(image + place + part * PART + lane[None, :], mask=mask, other=0.0)
        held = appended(held, value.to(tl.float32))
    return held


@triton.jit  # type: ignore[untyped-decorator]
def store_parts(
    output: tl.tensor, place: tl.tensor, present: tl.tensor, held: tl.tuple, channels: tl.constexpr
) -> None:
    """Stores what `load_parts` loads."""
    lane = tl.arange(0, PART)
    for part in tl.static_range(len(held)):
        mask = present & (lane + part * PART < channels)[None, :]
        value = held[part].to(output.dtype.element_ty)
        tl.store(output + place + part * PART + lane[None, :], value, mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def normalised(
    held: tl.tuple,
    gain: tl.tensor,
    shift: tl.tensor,
    channels: tl.constexpr,
    epsilon: tl.constexpr,
    kind: tl.constexpr,
) -> tl.tuple:
    """Layer norm over the channels of float32 parts, in the type `kind`; padding lanes become 0 (so are gain, shift).

    The variance is the mean of the squared distances from the mean, computed after it.
    """
    lane = tl.arange(0, PART)
    total = tl.sum(held[0], 1)
    for part in tl.static_range(1, len(held)):
        total += tl.sum(held[part], 1)
    mean = (total / channels)[:, None]
    square = tl.zeros_like(total)
    for part in tl.static_range(len(held)):
        centred = tl.where((lane + part * PART < channels)[None, :], held[part] - mean, 0.0)
        square += tl.sum(centred * centred, 1)
    scale = tl.rsqrt(square / channels + epsilon)[:, None]
    result = ()
    for part in tl.static_range(len(held)):
        factor, offset = row_of(gain, part * PART, PART), row_of(shift, part * PART, PART)
        result = appended(result, ((held[part] - mean) * scale * factor + offset).to(kind))
    return result


@triton.jit  # type: ignore[untyped-decorator]
def plus_bias(held: tl.tuple, bias: tl.tensor) -> tl.tuple:
    """Adds a padded vector to parts."""
    result = ()
    for part in tl.static_range(len(held)):
        result = appended(result, held[part] + row_of(bias, part * PART, PART))
    return result


@triton.jit  # type: ignore[untyped-decorator]
def plus_product(held: tl.tuple, left: tl.tensor, weight: tl.tensor, first: tl.tensor, inner: tl.constexpr) -> tl.tuple:
    """Adds ``left [M, inner] @ weight[first : first + inner]`` to parts, which are as many as the weight is wide."""
    stride: tl.constexpr = len(held) * PART
    result = ()
    for part in tl.static_range(len(held)):
        tile = tile_of(weight, first, part * PART, inner, PART, stride)
        result = appended(result, tl.dot(left, tile, held[part], input_precision="tf32x3"))
    return result


@triton.jit  # type: ignore[untyped-decorator]
def product(
    parts: tl.tuple,
    weight: tl.tensor,
    bias: tl.tensor,
    column: tl.tensor,
    size: tl.constexpr,
    stride: tl.constexpr,
) -> tl.tensor:
    """``parts @ weight + bias`` for `size` output columns from `column` on, ``[M, size]`` float32."""
    result = tl.zeros([parts[0].shape[0], size], tl.float32) + row_of(bias, column, size)
    for part in tl.static_range(len(parts)):
        tile = tile_of(weight, part * PART, column, PART, size, stride)
        result = tl.dot(parts[part], tile, result, input_precision="tf32x3")
    return result


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator]
def norm_kernel(
    image: tl.tensor,
    gain: tl.tensor,
    shift: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    output: tl.tensor,
    channels: tl.constexpr,
    parts: tl.constexpr,
    tokens: tl.constexpr,
    epsilon: tl.constexpr,
) -> None:
    """``LN(x)``: `tokens` rows a program."""
    row = (tl.program_id(0) * tokens + tl.arange(0, tokens))[:, None]
    present = row < height * width
    place = row.to(tl.int64) * channels
    held = load_parts(image, place, present, channels, parts)
    kind: tl.constexpr = image.dtype.element_ty
    store_parts(output, place, present, normalised(held, gain, shift, channels, epsilon, kind), channels)


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator]
def norm_projection_kernel(
    image: tl.tensor,
    gain: tl.tensor,
    shift: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    output: tl.tensor,
    channels: tl.constexpr,
    parts: tl.constexpr,
    outputs: tl.constexpr,
    padded: tl.constexpr,
    tokens: tl.constexpr,
    step: tl.constexpr,
    stages: tl.constexpr,
    epsilon: tl.constexpr,
) -> None:
    """``LN(x) W + b``: `tokens` rows a program, `step` of the `outputs` columns at a time.

    `weight` is ``[parts * PART, padded]``; `stages` tiles of it are in flight.
    """
    row = (tl.program_id(0) * tokens + tl.arange(0, tokens))[:, None]
    present = row < height * width
    held = load_parts(image, row.to(tl.int64) * channels, present, channels, parts)
    norm = normalised(held, gain, shift, channels, epsilon, image.dtype.element_ty)
    place = row.to(tl.int64) * outputs
    for column in tl.range(0, padded, step, num_stages=stages):
        value = product(norm, weight, bias, column, step, padded)
        along = (tl.arange(0, step) + column)[None, :]
        tl.store(output + place + along, value.to(output.dtype.element_ty), mask=present & (along < outputs))


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator]
def token_tail_kernel(
    attended: tl.tensor,
    image: tl.tensor,
    proj_weight: tl.tensor,
    proj_bias: tl.tensor,
    gain: tl.tensor,
    shift: tl.tensor,
    first_weight: tl.tensor,
    first_bias: tl.tensor,
    second_weight: tl.tensor,
    second_bias: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    output: tl.tensor,
    channels: tl.constexpr,
    parts: tl.constexpr,
    hidden: tl.constexpr,
    projected: tl.constexpr,
    rectified: tl.constexpr,
    tokens: tl.constexpr,
    step: tl.constexpr,
    stages: tl.constexpr,
    epsilon: tl.constexpr,
) -> None:
    """``y = x + a Wp + bp``, then ``y + gelu(LN(y) W1 + b1) W2 + b2``: `tokens` rows a program.

    Where not `projected`, y is x, and `attended`, `proj_weight` and `proj_bias` are not read. `rectified` puts a ReLU
    on `attended` first. The `hidden` units (padded) are made and used `step` at a time and never leave the registers.
    """
    kind: tl.constexpr = image.dtype.element_ty
    row = (tl.program_id(0) * tokens + tl.arange(0, tokens))[:, None]
    present = row < height * width
    place = row.to(tl.int64) * channels
    held = load_parts(image, place, present, channels, parts)
    if projected:
        held = plus_bias(held, proj_bias)
        lane = tl.arange(0, PART)
        for part in tl.static_range(parts):
            mask = present & (lane + part * PART < channels)[None, :]
            inputs = tl.load(attended + place + part * PART + lane[None, :], mask=mask, other=0.0)
            if rectified:
                inputs = tl.maximum(inputs.to(tl.float32), 0.0).to(kind)
            held = plus_product(held, inputs, proj_weight, part * PART, PART)
    norm = normalised(held, gain, shift, channels, epsilon, kind)
    held = plus_bias(held, second_bias)
    for unit in tl.range(0, hidden, step, num_stages=stages):
        units = gelu(product(norm, first_weight, first_bias, unit, step, hidden), kind).to(kind)
        held = plus_product(held, units, second_weight, unit, step)
    store_parts(output, place, present, held, channels)


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator]
def window_attention_kernel(
    image: tl.tensor,
    gain: tl.tensor,
    shift: tl.tensor,
    qkv_weight: tl.tensor,
    qkv_bias: tl.tensor,
    proj_weight: tl.tensor,
    proj_bias: tl.tensor,
    biases: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    output: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    heads: tl.constexpr,
    head_width: tl.constexpr,
    lanes: tl.constexpr,
    channels: tl.constexpr,
    parts: tl.constexpr,
    slot: tl.constexpr,
    windows: tl.constexpr,
    stages: tl.constexpr,
    epsilon: tl.constexpr,
) -> None:
    """``x + proj(attention(LN(x)))``: one program for `windows` neighbouring windows of an image.

    Every window has a `slot` of lanes for its tokens, a power of two. Heads follow one another; what a head attends to
    goes through its rows of the projection into the sum at once. Windows that share a program share the loads of the
    weights; their logits against each other are discarded.

    `qkv_weight` is ``[3, heads, parts * PART, lanes]``, `qkv_bias` ``[3, heads, lanes]``, `proj_weight`
    ``[heads, lanes, parts * PART]``; `biases` are position biases in row form.
    """
    kind: tl.constexpr = image.dtype.element_ty
    count: tl.constexpr = window_size * window_size
    size: tl.constexpr = windows * slot
    wide: tl.constexpr = parts * PART
    scale: tl.constexpr = LOG2E * head_width**-0.5
    lane = tl.arange(0, size)
    token = lane % slot
    own = lane // slot
    of_image = (height // window_size) * (width // window_size)
    groups = (of_image + windows - 1) // windows
    first = (tl.program_id(0) % groups) * windows
    before = (tl.program_id(0) // groups) * of_image
    if windows == 1:
        window = before + first
        present = token < count
    else:
        window = before + first + own
        present = (token < count) & (first + own < of_image)
    nearest = tl.minimum(token, count - 1) if count < slot else token  # so that padding needs no mask
    place = pixels(window, token, height, width, window_size, shift_size)[:, None] * channels
    held = load_parts(image, place, present[:, None], channels, parts)
    norm = normalised(held, gain, shift, channels, epsilon, kind)
    held = plus_bias(held, proj_bias)
    side = sides(window, token, height, width, window_size, shift_size)
    for head in tl.range(0, heads, num_stages=stages):
        weight = qkv_weight + head * (wide * lanes)
        bias = qkv_bias + head * lanes
        query = product(norm, weight, bias, 0, lanes, lanes)
        key = product(norm, weight + heads * wide * lanes, bias + heads * lanes, 0, lanes, lanes)
        value = product(norm, weight + 2 * heads * wide * lanes, bias + 2 * heads * lanes, 0, lanes, lanes)
        start = scaled_bias(biases, head, nearest, nearest, window_size, heads, head_width, True, True)
        logits = tl.dot(query.to(kind), tl.trans(key.to(kind)), start, input_precision="tf32x3")
        if shift_size > 0:
            if windows > 1:  # noqa: SIM114 (decided when it is compiled; the next while it runs)
                logits -= tl.where(side[:, None] == side[None, :], 0.0, 100.0 * head_width**0.5)
            elif at_seam(window, height, width, window_size):
                logits -= tl.where(side[:, None] == side[None, :], 0.0, 100.0 * head_width**0.5)
        if windows > 1:
            logits = tl.where(own[:, None] == own[None, :], logits, float("-inf"))
        if count < slot:
            logits = tl.where((token < count)[None, :], logits, float("-inf"))
        share = tl.exp2((logits - tl.max(logits, 1)[:, None]) * scale)
        total = tl.sum(share, 1)
        answer = tl.dot(share.to(kind), value.to(kind), input_precision="tf32x3") * (1.0 / total)[:, None]
        held = plus_product(held, answer.to(kind), proj_weight, head * lanes, lanes)
    store_parts(output, place, present[:, None], held, channels)
