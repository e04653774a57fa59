"""SwinIR, AgileIR and SemanIR once more, from the papers and the released layout of weights alone.

Functions of a state dict, written as slowly and obviously as possible and without anything of the
package: windows are cut by slicing, the mask is painted region by region, the bias index is counted
token by token. Everything happens in the type of the state dict; the tests use double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Attention = Callable[[Tensor, Tensor, str, int, int], Tensor]
"""(stage input [B,H,W,C], normed x [B,H,W,C], key prefix, stage, block) -> [B,H,W,C]"""

MEAN = (0.4488, 0.4371, 0.4040)


def doubles(state: State) -> State:
    """The same in double precision."""
    return {key: value.double() if value.is_floating_point() else value for key, value in state.items()}


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# ---- windows, as in the Swin Transformer paper ----


@cache
def bias_index(w: int) -> Tensor:
    """The released buffer `relative_position_index`, token by token."""
    index = torch.zeros(w * w, w * w, dtype=torch.int64)
    for n in range(w * w):
        for m in range(w * w):
            rows, columns = n // w - m // w, n % w - m % w
            index[n, m] = (rows + w - 1) * (2 * w - 1) + columns + w - 1
    return index


def cut(image: Tensor, w: int) -> Tensor:
    """[B,H,W,C] to [B*nW, N, C] by slicing."""
    batch, height, width, channels = image.shape
    return torch.stack(
        [
            image[b, top : top + w, left : left + w].reshape(w * w, channels)
            for b in range(batch)
            for top in range(0, height, w)
            for left in range(0, width, w)
        ]
    )


def join(windows: Tensor, batch: int, height: int, width: int, w: int) -> Tensor:
    image = windows.new_zeros(batch, height, width, windows.shape[-1])
    rest = iter(windows)
    for b in range(batch):
        for top in range(0, height, w):
            for left in range(0, width, w):
                image[b, top : top + w, left : left + w] = next(rest).reshape(w, w, -1)
    return image


def regions(height: int, width: int, w: int, s: int) -> Tensor:
    """Number of the region of every token of the rolled image, [nW, N]."""
    painted = torch.zeros(1, height, width, 1)
    bands = (slice(0, -w), slice(-w, -s), slice(-s, None))
    number = 0
    for rows in bands:
        for columns in bands:
            painted[:, rows, columns, :] = number
            number += 1
    return cut(painted, w)[..., 0]


def mask(height: int, width: int, w: int, s: int) -> Tensor:
    """The released buffer `attn_mask`, [nW, N, N]."""
    own = regions(height, width, w, s)
    difference = own[:, None, :] - own[:, :, None]
    return torch.where(difference == 0, 0.0, -100.0)


def in_windows(x: Tensor, w: int, s: int, attend: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Rolls, cuts, lets `attend(windows, mask [n,N,N])` work, joins, rolls back."""
    batch, height, width, _ = x.shape
    rolled = torch.roll(x, (-s, -s), (1, 2))
    tokens = w * w
    here = mask(height, width, w, s) if s else torch.zeros(1, tokens, tokens)
    windows = cut(rolled, w)
    here = here.to(x.dtype).repeat(len(windows) // len(here), 1, 1)
    return torch.roll(join(attend(windows, here), batch, height, width, w), (s, s), (1, 2))


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, addend: Tensor) -> Tensor:
    logits = torch.einsum("bnd,bmd->bnm", q, k) / q.shape[-1] ** 0.5 + addend
    return torch.einsum("bnm,bmd->bnd", logits.softmax(-1), v)


def multi_head(qkv: Tensor, heads: int, bias: Tensor, addend: Tensor) -> Tensor:
    """qkv [n,N,3C], bias [heads,N,N], addend [n,N,N] to [n,N,C]."""
    queries, keys, values = (part.chunk(heads, -1) for part in qkv.chunk(3, -1))
    return torch.cat([softmax_attention(queries[h], keys[h], values[h], bias[h] + addend) for h in range(heads)], -1)


# ---- the three attentions ----


def linear(state: State, key: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{key}.weight"], state[f"{key}.bias"])


def norm(state: State, key: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"])


def conv(state: State, key: str, x: Tensor) -> Tensor:
    weight = state[f"{key}.weight"]
    return F.conv2d(x, weight, state[f"{key}.bias"], padding=weight.shape[-1] // 2)


def swin_attention(state: State, w: int) -> Attention:
    def attention(_: Tensor, x: Tensor, prefix: str, stage: int, block: int) -> Tensor:
        table = state[f"{prefix}.attn.relative_position_bias_table"]
        # the released buffer where the state dict has one
        index = state.get(f"{prefix}.attn.relative_position_index", bias_index(w))
        bias = table[index.flatten().long()].reshape(w * w, w * w, -1).permute(2, 0, 1)

        def attend(windows: Tensor, addend: Tensor) -> Tensor:
            qkv = linear(state, f"{prefix}.attn.qkv", windows)
            return linear(state, f"{prefix}.attn.proj", multi_head(qkv, table.shape[1], bias, addend))

        return in_windows(x, w, w // 2 if block % 2 else 0, attend)

    return attention


def group_attention(state: State, w: int, training: bool = False) -> Attention:
    """Spec A.3, with every BatchNorm as a BatchNorm: running statistics, or those of the batch."""

    def conv_norm(key: str, x: Tensor, groups: int = 1) -> Tensor:
        weight = state[f"{key}.c.weight"]
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
        running = (state[f"{key}.bn.running_mean"], state[f"{key}.bn.running_var"])
        if training:
            running = (y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False))
        mean, variance, scale, offset = (
            t[:, None, None] for t in (*running, state[f"{key}.bn.weight"], state[f"{key}.bn.bias"])
        )
        return (y - mean) / (variance + 1e-5).sqrt() * scale + offset

    def attention(_: Tensor, x: Tensor, prefix: str, stage: int, block: int) -> Tensor:
        table = state[f"{prefix}.attn.relative_position_bias_table"]
        groups = table.shape[1]
        bias = table[bias_index(w).flatten()].reshape(w * w, w * w, groups)

        def attend(windows: Tensor, addend: Tensor) -> Tensor:
            count, _, channels = windows.shape
            image = windows.transpose(1, 2).reshape(count, channels, w, w)
            each = channels // groups
            outputs: list[Tensor] = []
            for g in range(groups):
                fed = image[:, g * each : (g + 1) * each]
                if g > 0:
                    fed = fed + outputs[-1]
                qkv = conv_norm(f"{prefix}.attn.groupatt.qkvs.{g}", fed)
                dk = (qkv.shape[1] - each) // 2
                q, k, v = qkv[:, :dk], qkv[:, dk : 2 * dk], qkv[:, 2 * dk :]
                q = conv_norm(f"{prefix}.attn.groupatt.dws.{g}", q, groups=dk)
                q, k, v = (t.flatten(2).transpose(1, 2) for t in (q, k, v))
                y = softmax_attention(q, k, v, bias[..., g] + addend)
                outputs.append(y.transpose(1, 2).reshape(count, each, w, w))
            y = conv_norm(f"{prefix}.attn.groupatt.proj.1", F.relu(torch.cat(outputs, 1)))
            return y.flatten(2).transpose(1, 2)

        return in_windows(x, w, w // 2 if block % 2 else 0, attend)

    return attention


def semantic_bias_table(state: State, prefix: str, w: int) -> Tensor:
    """16 * sigmoid(MLP) of the log-spaced offsets (Swin V2, arXiv 2111.09883, section 3.3)."""

    def spaced(offset: int) -> float:
        value = 8 * offset / max(w - 1, 1)
        size = torch.log2(torch.tensor(1 + abs(value), dtype=torch.float64)).item()
        return (1 if value > 0 else -1 if value < 0 else 0) * size / 3

    offsets = range(-(w - 1), w)
    grid = torch.tensor([[spaced(r), spaced(c)] for r in offsets for c in offsets])
    mlp = f"{prefix}.attn.cpb_mlp"
    hidden = F.relu(linear(state, f"{mlp}.0", grid.to(state[f"{mlp}.0.weight"].dtype)))
    return 16 / (1 + torch.exp(-(hidden @ state[f"{mlp}.2.weight"].T)))


def semantic_selection(stage_input: Tensor, w: int, s: int, top_k: int) -> Tensor:
    """0 for the chosen keys of every token and -inf for others, [n, N, N]."""
    windows = cut(torch.roll(stage_input, (-s, -s), (1, 2)), w)
    _, height, width, _ = stage_input.shape
    own = regions(height, width, w, s) if s else torch.zeros(1, w * w)
    deviation = windows.var(-1, unbiased=False, keepdim=True)
    features = (windows - windows.mean(-1, keepdim=True)) / (deviation + 1e-5).sqrt()
    similar = (features @ features.transpose(1, 2)).tolist()
    chosen = torch.full((len(windows), w * w, w * w), float("-inf"), dtype=torch.float64)
    for n, rows in enumerate(similar):
        region = own[n % len(own)].tolist()
        for query, row in enumerate(rows):
            order = sorted(range(w * w), key=lambda m: (region[m] != region[query], -row[m], m))
            chosen[n, query, order[:top_k]] = 0.0
    return chosen


def semantic_attention(state: State, w: int, top_k: int, shifted: Callable[[str], bool] | None = None) -> Attention:
    remembered: dict[str, Tensor] = {}

    def attention(stage_input: Tensor, x: Tensor, prefix: str, stage: int, block: int) -> Tensor:
        name = prefix.split(".residual_group")[0]
        odd = stage % 2 == 1 if shifted is None else shifted(name)
        s = w // 2 if odd else 0
        if block == 0:
            remembered[name] = semantic_selection(stage_input, w, s, top_k).to(x.dtype)
        table = semantic_bias_table(state, prefix, w)
        bias = table[bias_index(w).flatten()].reshape(w * w, w * w, -1).permute(2, 0, 1)

        def attend(windows: Tensor, addend: Tensor) -> Tensor:
            qkv = linear(state, f"{prefix}.attn.qkv", windows)
            y = multi_head(qkv, table.shape[1], bias, addend + remembered[name])
            return linear(state, f"{prefix}.attn.proj", y)

        return in_windows(x, w, s, attend)

    return attention


# ---- networks ----


def stage_forward(state: State, x: Tensor, name: str, index: int, depth: int, attention: Attention) -> Tensor:
    """Blocks, convolution(s), skip: [B,H,W,C] to the same."""
    start = x
    for block in range(depth):
        prefix = f"{name}.residual_group.blocks.{block}"
        x = x + attention(start, norm(state, f"{prefix}.norm1", x), prefix, index, block)
        hidden = F.gelu(linear(state, f"{prefix}.mlp.fc1", norm(state, f"{prefix}.norm2", x)))
        x = x + linear(state, f"{prefix}.mlp.fc2", hidden)
    y = convolutions(state, f"{name}.conv", x.permute(0, 3, 1, 2))
    return start + y.permute(0, 2, 3, 1)


def convolutions(state: State, key: str, x: Tensor) -> Tensor:
    """One convolution, or the bottleneck of three."""
    if f"{key}.weight" in state:
        return conv(state, key, x)
    x = F.leaky_relu(conv(state, f"{key}.0", x), 0.2)
    x = F.leaky_relu(conv(state, f"{key}.2", x), 0.2)
    return conv(state, f"{key}.4", x)


def pad(x: Tensor, multiple: int) -> Tensor:
    """At the bottom and right: mirrored without the edge where that fits, else the edge repeated."""

    def source(position: int, size: int, total: int) -> int:
        if position < size:
            return position
        return 2 * size - 2 - position if total - size < size else size - 1

    height, width = x.shape[-2:]
    rows, columns = (-(-size // multiple) * multiple for size in (height, width))
    x = x[..., [source(r, height, rows) for r in range(rows)], :]
    return x[..., [source(c, width, columns) for c in range(columns)]]


def steps(scale: int) -> list[tuple[int, int]]:
    """Factor and number in ``upsample`` of every convolution of a pixel shuffle."""
    return [(3, 0)] if scale == 3 else [(2, 0), (2, 2), (2, 4)][: scale // 2]


def columnar(
    state: State,
    images: Tensor,
    *,
    attention: Attention,
    depths: tuple[int, ...],
    multiple: int,
    upsampler: str,
    scale: int,
    img_range: float = 1.0,
    unshuffle: int = 1,
    **_: Any,
) -> Tensor:
    """SwinIR's forward with some attention; `images` [B, C, H, W] of any size."""
    height, width = images.shape[-2:]
    head = scale * unshuffle
    mean = images.new_tensor(MEAN if images.shape[1] == 3 else (0.0,)).reshape(1, -1, 1, 1)
    x = (pad(images, multiple) - mean) * img_range

    if unshuffle > 1:  # rows and columns of a square of pixels become channels, in this order
        squares = [x[..., i::unshuffle, j::unshuffle] for i in range(unshuffle) for j in range(unshuffle)]
        shallow = conv(state, "conv_first.1", torch.stack(squares, 2).flatten(1, 2))
    else:
        shallow = conv(state, "conv_first", x)
    y = norm(state, "patch_embed.norm", shallow.permute(0, 2, 3, 1))
    for i, depth in enumerate(depths):
        y = stage_forward(state, y, f"layers.{i}", i, depth, attention)
    y = norm(state, "norm", y).permute(0, 3, 1, 2)
    y = convolutions(state, "conv_after_body", y) + shallow

    if upsampler == "":
        y = x + conv(state, "conv_last", y)
    elif upsampler == "pixelshuffledirect":
        y = F.pixel_shuffle(conv(state, "upsample.0", y), head)
    else:
        y = F.leaky_relu(conv(state, "conv_before_upsample.0", y), 0.01)
        for step, layer in steps(head) if upsampler == "pixelshuffle" else ():
            y = F.pixel_shuffle(conv(state, f"upsample.{layer}", y), step)
        for layer in [f"conv_up{i}" for i in range(1, 4) if f"conv_up{i}.weight" in state]:
            larger = y.repeat_interleave(2, -1).repeat_interleave(2, -2)
            y = F.leaky_relu(conv(state, layer, larger), 0.2)
        if upsampler == "nearest+conv":
            y = F.leaky_relu(conv(state, "conv_hr", y), 0.2)
        y = conv(state, "conv_last", y)
    return (y / img_range + mean)[..., : height * scale, : width * scale]


# ---- the official state dict of SwinIR ----


def official_state(
    *,
    embed_dim: int,
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    window_size: int,
    upsampler: str,
    scale: int,
    channels: int = 3,
    resi_connection: str = "1conv",
    unshuffle: int = 1,
    seed: int = 0,
    **_: Any,
) -> State:
    """Random weights under the released keys, with the buffers of a model built for two windows."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}

    def draw(key: str, *shape: int, around: float = 0.0, deviation: float = 0.1) -> None:
        state[key] = around + deviation * torch.randn(shape, generator=generator)

    def affine(key: str, out: int, *inner: int) -> None:
        count = torch.Size(inner).numel()
        draw(f"{key}.weight", out, *inner, deviation=0.8 * count**-0.5)
        draw(f"{key}.bias", out)

    def layer_norm(key: str) -> None:
        draw(f"{key}.weight", embed_dim, around=1.0, deviation=0.2)
        draw(f"{key}.bias", embed_dim)

    def residual(key: str) -> None:
        if resi_connection == "1conv":
            affine(key, embed_dim, embed_dim, 3, 3)
            return
        quarter = embed_dim // 4
        affine(f"{key}.0", quarter, embed_dim, 3, 3)
        affine(f"{key}.2", quarter, quarter, 1, 1)
        affine(f"{key}.4", embed_dim, quarter, 3, 3)

    w, features, head = window_size, 64, scale * unshuffle
    affine("conv_first.1" if unshuffle > 1 else "conv_first", embed_dim, channels * unshuffle**2, 3, 3)
    layer_norm("patch_embed.norm")
    for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        for j in range(depth):
            block = f"layers.{i}.residual_group.blocks.{j}"
            if j % 2:
                state[f"{block}.attn_mask"] = mask(2 * w, 2 * w, w, w // 2)
            layer_norm(f"{block}.norm1")
            rows = (2 * w - 1) ** 2
            draw(f"{block}.attn.relative_position_bias_table", rows, heads, deviation=1.0)
            state[f"{block}.attn.relative_position_index"] = bias_index(w)
            affine(f"{block}.attn.qkv", 3 * embed_dim, embed_dim)
            affine(f"{block}.attn.proj", embed_dim, embed_dim)
            layer_norm(f"{block}.norm2")
            affine(f"{block}.mlp.fc1", 2 * embed_dim, embed_dim)
            affine(f"{block}.mlp.fc2", embed_dim, 2 * embed_dim)
        residual(f"layers.{i}.conv")
    layer_norm("norm")
    residual("conv_after_body")
    if upsampler == "pixelshuffledirect":
        affine("upsample.0", channels * head**2, embed_dim, 3, 3)
        return state
    if upsampler == "":
        affine("conv_last", channels, embed_dim, 3, 3)
        return state
    affine("conv_before_upsample.0", features, embed_dim, 3, 3)
    if upsampler == "pixelshuffle":
        for step, layer in steps(head):
            affine(f"upsample.{layer}", step**2 * features, features, 3, 3)
    else:
        for layer in (*[f"conv_up{i}" for i in range(1, head.bit_length())], "conv_hr"):
            affine(layer, features, features, 3, 3)
    affine("conv_last", channels, features, 3, 3)
    return state
