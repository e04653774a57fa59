"""Whether there is a kernel for every operator of a file, asked before a builder asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import Unsupported
from .catalogue import PLUGINS
from .launch import UNKNOWN, Launch, NoKernel
from .registry import DOMAIN

if TYPE_CHECKING:
    import onnx

__all__ = ["planned_kernels", "require_kernels"]


def require_kernels(model: onnx.ModelProto) -> None:
    """Refuses a file with an operator that no kernel was made for: too wide a head, too large a window.

    Nodes of whose inputs the file does not tell the sizes pass.

    Args:
        model: An exported model. Needs Triton.

    Raises:
        Unsupported: With the first such node and what it is too large in.
    """
    for _ in planned_kernels(model):
        pass


def planned_kernels(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, Launch]]:
    """The operators and half blocks of a file, and how their kernels are started; without those of unknown sizes.

    Args:
        model: An exported model. Needs Triton.

    Raises:
        Unsupported: See `require_kernels`.
    """
    import onnx

    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            shapes[value.name] = [
                size.dim_value if size.HasField("dim_value") else UNKNOWN for size in tensor.shape.dim
            ]
    for node in model.graph.node:
        if node.domain != DOMAIN or not shapes.keys() >= set(node.input):
            continue
        operator = PLUGINS[node.op_type]
        attributes = {entry.name: entry.i for entry in node.attribute if entry.name in operator.attributes}
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(types[node.input[0]]))
        given = [shapes[name] for name in node.input]
        try:
            launch = operator.kernels().launch(given, attributes, dtype)
        except NoKernel as error:
            raise Unsupported(
                f"No plugin can run {node.name}: {error}.",
                fix="Use --attention decomposed: it runs the operators by their ONNX function bodies.",
            ) from error
        yield node, launch
