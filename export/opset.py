"""Declaring a newer opset, where nothing a model uses changed but the types it may have."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from .element_types import schema_of
from .functions import default_opset

if TYPE_CHECKING:
    import onnx

__all__ = ["raise_opset"]

REDEFINED = frozenset({"GroupNormalization"})
"""Operators whose meaning, not only whose types, changed between opset 18 and 23."""


def raise_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in a newer opset of ONNX's own domain, its function bodies included; the same model where it cannot be.

    ONNX's version converter inlines function bodies; this does not. Between opset 18 and 23 most changes of an operator
    allow more types, or add an optional attribute whose default is the old behaviour: a model may then simply declare
    the newer opset. It is left alone where an operator it uses was redefined, lost an attribute or changed a default.

    Args:
        model: The model; not changed.
        opset: Version wanted, at most 23; a model in this or a newer one is returned as it is.
    """
    from onnx import helper

    before = default_opset(model)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    used = {node.op_type for node in nodes if node.domain in ("", "ai.onnx")}
    if before >= opset or not all(_unchanged(operator, before, opset) for operator in used):
        return model
    raised = deepcopy(model)
    for imports in (raised.opset_import, *(function.opset_import for function in raised.functions)):
        for entry in imports:
            if entry.domain in ("", "ai.onnx"):
                entry.version = opset
    raised.ir_version = max(raised.ir_version, helper.find_min_ir_version_for(list(raised.opset_import), True))
    return raised


def _unchanged(operator: str, before: int, after: int) -> bool:
    """Whether a node of the older opset means the same in the newer one."""
    old, new = schema_of(operator, "", before), schema_of(operator, "", after)
    if old is None or new is None or operator in REDEFINED:
        return False
    if old.since_version == new.since_version:
        return True
    formals = [[formal.name for formal in schema.inputs] for schema in (old, new)]
    if formals[1][: len(formals[0])] != formals[0]:
        return False
    defaults = [
        {name: entry.default_value.SerializeToString() for name, entry in schema.attributes.items()}
        for schema in (old, new)
    ]
    optional = all(not new.attributes[name].required for name in defaults[1].keys() - defaults[0].keys())
    return optional and all(defaults[1].get(name) == value for name, value in defaults[0].items())
