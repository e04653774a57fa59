"""How the torch exporter writes the operators: one bare ONNX node a call, instead of what is inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..plugins import DOMAIN, NAMESPACE_ATTRIBUTE, OPERATORS, VERSION, Operator

__all__ = ["translation_table"]


def translation_table() -> dict[Any, Callable[..., Any]]:
    """What the exporter does not know, or should not look into: torch operator to what emits its nodes.

    It is the ``custom_translation_table`` of ``torch.onnx.export``.
    """
    import torch

    ours = {operator.torch_operator().default: _translation(operator) for operator in OPERATORS.values()}
    return {**ours, torch.ops.aten.sort.stable: _sort, torch.ops.aten.pow.Tensor_Scalar: _power}


def _sort(tensor: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort, which the exporter lacks: ONNX's TopK of all puts equal values in the order of their indices."""
    from onnxscript import opset18 as op

    count = op.Shape(tensor, start=dim, end=None if dim == -1 else dim + 1)
    values, indices = op.TopK(tensor, count, axis=dim, largest=int(descending), sorted=1)
    return values, indices


def _power(base: Any, exponent: Any) -> Any:
    """A power whose exponent is a number, or a parameter that a network reads by ``item()``."""
    from onnxscript import opset18

    op: Any = opset18
    number = op.Constant(value_float=float(exponent)) if isinstance(exponent, int | float) else exponent
    return op.Pow(base, op.CastLike(number, base))


def _translation(operator: Operator) -> Callable[..., Any]:
    from onnxscript import values

    emit = values.Op(values.Opset(DOMAIN, VERSION), operator.name, operator.schema())
    tensors = len(operator.inputs)

    def translate(*arguments: Any) -> Any:
        attributes = dict(zip(operator.attributes, arguments[tensors:], strict=True))
        return emit(*arguments[:tensors], **attributes, **{NAMESPACE_ATTRIBUTE: DOMAIN})

    return translate
