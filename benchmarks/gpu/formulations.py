"""The operators as people write them without a kernel: what the kernels are compared with.

"eager" is the package's plain torch formulation. "sdpa" hands every window to `scaled_dot_product_attention` with an
explicit additive mask in the tensor type, which holds position bias, shift mask and dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from agileir_export.plugins.attention import plain_attention
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import BY_TORCH_NAME
from agileir_export.plugins.dispatch import kernel_module, run_kernel
from agileir_export.plugins.group_shifted_window_attention.operator import GroupWeights, cascade
from agileir_export.plugins.group_shifted_window_attention.operator import plain as plain_group_attention
from agileir_export.plugins.key_semantic_dictionary.operator import key_semantic_dictionary
from agileir_export.plugins.key_semantic_dictionary.operator import plain as plain_dictionary
from agileir_export.plugins.packing import unpack
from agileir_export.plugins.windows import from_windows, position_bias, shift_mask, to_windows

Function = Callable[..., Tensor]


def inputs(call: Call, height: int, width: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Random tensors of a call; a dictionary is made from random features, with half of the tokens in it."""
    generator = torch.Generator(device).manual_seed(0)
    tensors: list[Tensor] = []
    for index, shape in enumerate(call.shapes(1, height, width)):
        if index in call.integer_inputs:
            window, shift = call.attributes["window_size"], call.attributes["shift_size"]
            features = torch.randn(1, height, width, 32, generator=generator, device=device).to(dtype)
            top_k = window * window // 2
            tensors.append(key_semantic_dictionary(features, window, shift, top_k))
        else:
            # Weights keep the variance of what they sum over: logits of a hundred would amplify every rounding.
            scale = math.prod(shape[2:]) ** -0.5 if index and len(shape) > 2 else 0.5
            drawn = torch.randn(shape, generator=generator, device=device) * scale
            tensors.append(drawn.to(dtype))
    return tensors


def operator(call: Call, tensors: Sequence[Tensor], tactic: int = 1) -> Callable[[], Tensor]:
    """The custom operator; for another tactic than its own, the kernel."""
    if tactic > 1:
        return lambda: run_kernel(call.operator, tensors, call.attributes, tactic)
    function = BY_TORCH_NAME[call.operator].torch_operator()
    return lambda: function(*tensors, *call.attributes.values())


def tactics(call: Call) -> int:
    """Number of tactics the operator's kernel has; 1 without Triton."""
    try:
        return len(kernel_module(call.operator).TACTICS)
    except ImportError:
        return 1


def eager(call: Call) -> Function:
    """The plain formulation as a function of the tensors."""
    numbers = tuple(call.attributes.values())
    if call.operator == "group_shifted_window_attention":
        return lambda *tensors: plain_group_attention(*tensors, *numbers)
    if call.operator == "shifted_window_attention":
        return lambda *tensors: plain_attention(*tensors, *numbers)
    if call.operator == "key_semantic_dictionary":
        return lambda *tensors: plain_dictionary(*tensors, *numbers)
    tokens = call.attributes["window_size"] ** 2

    def masked(qkv: Tensor, dictionary: Tensor, table: Tensor) -> Tensor:
        selected = unpack(dictionary, tokens).unflatten(0, (qkv.shape[0], -1))
        return plain_attention(qkv, table, *numbers, selected)

    return masked


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, addend: Tensor, scale: float) -> Tensor:
    """PyTorch's function in the form that the cascade of groups calls."""
    return scaled_dot_product_attention(query, key, value, addend, scale=scale)


def sdpa(call: Call) -> Function | None:
    """The formulation through `scaled_dot_product_attention`; None for the dictionary, which is no attention."""
    window, shift = call.attributes["window_size"], call.attributes["shift_size"]

    def addend(image: Tensor, table: Tensor) -> Tensor:
        """``[n or 1, heads, N, N]`` in the tensor type."""
        bias = position_bias(table, window)[None]
        mask = shift_mask(image.shape[1], image.shape[2], window, shift, table)
        return bias if mask is None else bias + mask.repeat(image.shape[0], 1, 1)[:, None]

    def attention(qkv: Tensor, *rest: Tensor) -> Tensor:
        *dictionary, table = rest
        heads = call.attributes["num_heads"]
        parts = to_windows(qkv, window, shift).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        added = addend(qkv, table)
        if dictionary:
            selected = unpack(dictionary[0], window * window)[:, None]
            added = torch.where(selected, added, float("-inf"))
        output = scaled_dot_product_attention(parts[0], parts[1], parts[2], added)
        return from_windows(output.transpose(1, 2).flatten(2), qkv.shape[1], qkv.shape[2], window, shift)

    def group(x: Tensor, *weights: Tensor) -> Tensor:
        *stacked, table = weights
        groups = [GroupWeights(*each) for each in zip(*stacked, position_bias(table, window), strict=True)]
        mask = shift_mask(x.shape[1], x.shape[2], window, shift, x)
        mask = None if mask is None else mask.repeat(x.shape[0], 1, 1)
        output = cascade(to_windows(x, window, shift), groups, mask, scaled_dot_product)
        return from_windows(output, x.shape[1], x.shape[2], window, shift)

    if call.operator == "key_semantic_dictionary":
        return None
    return group if call.operator == "group_shifted_window_attention" else attention


def difference(call: Call, result: Tensor, expected: Tensor) -> dict[str, Any]:
    """Relative error of an output, or for a dictionary the share of its members that both have.

    In the windows at the seam of a shifted image that share is below 1: what fills a row up from other regions, which
    the attention suppresses, is chosen by similarity in the operator and by index in the plain formulation.
    """
    if call.operator == "key_semantic_dictionary":
        tokens = call.attributes["window_size"] ** 2
        ours, theirs = (
            each.flatten(0, -3) if each.dtype == torch.bool else unpack(each, tokens) for each in (result, expected)
        )
        return {"overlap": ((ours & theirs).sum() / theirs.sum()).item()}
    return {"relative_error": ((result.float() - expected.float()).norm() / expected.float().norm()).item()}
