"""The half blocks of a file in NumPy and float64, from their packed weights, and for the evaluator of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from agileir_export.plugins import DOMAIN
from agileir_export.plugins.half_block_plugins import HALF_BLOCKS
from agileir_export.plugins.windows import from_windows, shift_mask, to_windows

Array = np.ndarray[Any, Any]
Compute = Callable[[str, Sequence[Array], Mapping[str, int]], Array]


def normalised(x: Array, gain: Array, shift: Array, epsilon: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    size = x.shape[-1]
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gain[:size] + shift[:size]


def gelu(x: Array) -> Array:
    made: Array = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    return made


def norm(x: Array, gain: Array, shift: Array, epsilon: float) -> Array:
    return normalised(x, gain, shift, epsilon)


def norm_projection(x: Array, gain: Array, shift: Array, *linear: Array, epsilon: float, out_channels: int) -> Array:
    weight, bias = linear
    assert not weight[x.shape[-1] :].any() and not weight[:, out_channels:].any(), "padding"
    return normalised(x, gain, shift, epsilon) @ weight[: x.shape[-1], :out_channels] + bias[:out_channels]


def token_tail(attended: Array, x: Array, *weights: Array, epsilon: float, projected: int, rectified: int) -> Array:
    channels = x.shape[-1]
    proj_weight, proj_bias, gain, shift, first, first_bias, second, second_bias = weights
    y = x
    if projected:
        inputs = np.maximum(attended, 0) if rectified else attended
        y = x + inputs @ proj_weight[:channels, :channels] + proj_bias[:channels]
    units = gelu(normalised(y, gain, shift, epsilon) @ first[:channels] + first_bias)
    result: Array = y + units @ second[:, :channels] + second_bias[:channels]
    return result


def window_attention(
    x: Array, *weights: Array, epsilon: float, window_size: int, shift_size: int, num_heads: int
) -> Array:
    gain, shift, qkv_weight, qkv_bias, proj_weight, proj_bias, rows = weights
    (_, height, width, channels), lanes = x.shape, x.shape[-1] // num_heads
    tokens = to_windows(torch.from_numpy(normalised(x, gain, shift, epsilon)), window_size, shift_size).numpy()
    # [3, heads, windows, tokens, lanes]
    query, key, value = (
        np.einsum("ntc,hcl->hntl", tokens, qkv_weight[part, :, :channels, :lanes])
        + qkv_bias[part, :, None, None, :lanes]
        for part in range(3)
    )
    token = np.arange(window_size**2)
    row, column = token // window_size, token % window_size
    apart = row[:, None] - row[None, :] + window_size - 1
    logits = query @ key.swapaxes(-1, -2) + rows[:, apart, column[:, None], column[None, :]][:, None]
    logits /= np.sqrt(lanes)
    mask = shift_mask(height, width, window_size, shift_size, torch.zeros((), dtype=torch.float64))
    if mask is not None:
        logits += np.tile(mask.numpy(), (len(x), 1, 1))
    share = np.exp(logits - logits.max(-1, keepdims=True))
    answer = share / share.sum(-1, keepdims=True) @ value
    made = np.einsum("hntl,hlc->ntc", answer, proj_weight[:, :lanes, :channels]) + proj_bias[:channels]
    return x + from_windows(torch.from_numpy(made), height, width, window_size, shift_size).numpy()


FUNCTIONS = dict(
    zip((entry.name for entry in HALF_BLOCKS), (norm, norm_projection, token_tail, window_attention), strict=True)
)


def reference(name: str, tensors: Sequence[Array], attributes: Mapping[str, int]) -> Array:
    """A half block in float64, rounded to the type of its features."""
    given = dict(attributes)
    epsilon = float(np.int32(given.pop("epsilon_bits")).view(np.float32))
    made: Array = FUNCTIONS[name](*(tensor.astype(np.float64) for tensor in tensors), epsilon=epsilon, **given)
    return made.astype(tensors[0].dtype)


def operators(compute: Compute) -> list[type[OpRun]]:
    """The half blocks as operators of ONNX's evaluator."""

    def made(entry: Any) -> type[OpRun]:
        def _run(self: OpRun, *tensors: Array, plugin_namespace: str | None = None, **attributes: int) -> Any:
            assert plugin_namespace == DOMAIN
            assert set(attributes) == set(entry.attributes) and len(tensors) == len(entry.inputs)
            return (compute(entry.name, tensors, attributes),)

        return type(entry.name, (OpRun,), {"op_domain": DOMAIN, "_run": _run})

    return [made(entry) for entry in HALF_BLOCKS]


def evaluated(model: onnx.ModelProto, images: Array, compute: Compute = reference) -> Array:
    """What a file with half blocks makes of images; the operators are evaluated by their function bodies."""
    session = ReferenceEvaluator(model, new_ops=operators(compute))
    result, *_ = session.run(None, {model.graph.input[0].name: images})
    assert isinstance(result, np.ndarray)
    return result
