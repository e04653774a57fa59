"""Function bodies of the operators: attached to a model, or inlined for tools that know no functions."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from ..errors import Unsupported
from ..plugins import DOMAIN, OPERATORS
from .merging import merge_equal_nodes

if TYPE_CHECKING:
    import onnx

__all__ = ["attach_functions", "default_opset", "inline_functions"]


def default_opset(model: onnx.ModelProto) -> int:
    """Opset of ONNX's own domain."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _statics(model: onnx.ModelProto, node: onnx.NodeProto) -> dict[str, int]:
    """Facts of a node that its function body is written for."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    operator = OPERATORS[node.op_type]
    given = dict(zip(operator.inputs, node.input, strict=True))
    constants = {name: shapes[tensor] for name, tensor in given.items() if tensor in shapes}
    numbers = {attribute.name: attribute.i for attribute in node.attribute if attribute.name in operator.attributes}
    return operator.statics(constants, numbers)


def attach_functions(model: onnx.ModelProto) -> None:
    """Adds the function body of every operator the model uses, in place.

    Raises:
        Unsupported: Two nodes of one operator need different bodies (other windows, group counts, key widths or
            filters): a model holds one function a name.
    """
    wanted: dict[str, dict[str, int]] = {}
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        statics = _statics(model, node)
        known = wanted.setdefault(node.op_type, statics)
        if known != statics:
            raise Unsupported(
                f"{node.op_type} occurs with {known} and with {statics} (node {node.name}).",
                why="An ONNX model holds one function body for each operator name.",
                fix="Export with --decomposed: every node then brings its own plain ONNX.",
            )
    opset = default_opset(model)
    for name, statics in wanted.items():
        model.functions.append(OPERATORS[name].function(opset, **statics))


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replaces every operator node by plain ONNX, equal nodes merged; the result knows no domain but ONNX's own.

    Where a body goes back from float32 to the type around it, a Cast to float32 stands, which does nothing here: of a
    CastLike, ONNX Runtime sees too late that it does nothing, and neither folds nor fuses what is behind it (AgileIR's
    filters: 1.4 times the time). `lower_precision` knows such Casts.

    Args:
        model: A model in float32; it is not changed.
    """
    import onnx.inliner

    opset = default_opset(model)
    copy = deepcopy(model)
    del copy.functions[:]
    variants: dict[tuple[str, tuple[tuple[str, int], ...]], str] = {}
    for node in copy.graph.node:
        if node.domain != DOMAIN:
            continue
        statics = _statics(model, node)
        key = (node.op_type, tuple(sorted(statics.items())))
        if key not in variants:
            function = OPERATORS[node.op_type].function(opset, **statics)
            function.name = variants[key] = f"{node.op_type}_{len(variants)}"
            _say_float32(function)
            copy.functions.append(function)
        node.op_type = variants[key]
    inlined = merge_equal_nodes(onnx.inliner.inline_local_functions(copy))
    kept = [entry for entry in inlined.opset_import if entry.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    return inlined


def _say_float32(function: onnx.FunctionProto) -> None:
    """Lets a body cast to float32 where it would cast to the type of its input."""
    import onnx

    for node in function.node:
        if node.op_type == "CastLike":
            node.op_type = "Cast"
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))
