"""How the torch exporter writes the operators: one bare ONNX node a call, instead of what is inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..plugins import DOMAIN, NAMESPACE_ATTRIBUTE, OPERATORS, VERSION, Operator

__all__ = ["translation_table"]


def translation_table() -> dict[Any, Callable[..., Any]]:
    """Table for ``torch.onnx.export(custom_translation_table=...)``: torch operator to what that emits its node."""
    return {operator.torch_operator().default: _translation(operator) for operator in OPERATORS.values()}


def _translation(operator: Operator) -> Callable[..., Any]:
    from onnxscript import values

    emit = values.Op(values.Opset(DOMAIN, VERSION), operator.name, operator.schema())
    tensors = len(operator.inputs)

    def translate(*arguments: Any) -> Any:
        attributes = dict(zip(operator.attributes, arguments[tensors:], strict=True))
        return emit(*arguments[:tensors], **attributes, **{NAMESPACE_ATTRIBUTE: DOMAIN})

    return translate
