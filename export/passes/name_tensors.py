"""Pass: tensors get names a reader of the graph knows from the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .graph_pass import GraphPass

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

__all__ = ["name_tensors"]

PREFIX = "model."


def name_tensors(blocks: Mapping[str, str]) -> GraphPass:
    """Block outputs are named by their module path, weights by theirs, transposed copies ``<weight>^T``.

    A linear layer's weight reaches the graph as an anonymous transposed constant; its name comes from the bias added
    right after. Requires the named block tensors to exist and their new names to be free; ensures that they carry
    them (a result of the graph keeps its own) and that all names are unique.

    Args:
        blocks: Module path by the exporter's tensor name.
    """

    def requires(graph: gs.Graph) -> str | None:
        tensors = graph.tensors()
        missing = [name for name in blocks if name not in tensors]
        if missing:
            return f"no tensor {missing[0]} for block {blocks[missing[0]]}"
        taken = [path for name, path in blocks.items() if path != name and path in tensors]
        return f"the name {taken[0]} is taken" if taken else None

    def transform(graph: gs.Graph) -> None:
        import onnx_graphsurgeon as gs

        tensors = graph.tensors()
        taken = set(tensors)
        fixed = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}

        def rename(tensor: gs.Tensor, name: str) -> None:
            if tensor.name in fixed or name in taken:
                return
            taken.discard(tensor.name)
            taken.add(name)
            tensor.name = name

        for old, path in blocks.items():
            rename(tensors[old], path)
        for node in graph.nodes:
            if node.op == "MatMul" and isinstance(node.inputs[1], gs.Constant):
                bias = _bias_after(node)
                if bias is not None and bias.endswith(".bias"):
                    rename(node.inputs[1], f"{bias.removesuffix('bias')}weight^T")
        for tensor in tensors.values():
            if tensor.name.startswith(PREFIX):
                rename(tensor, tensor.name.removeprefix(PREFIX))

    def ensures(graph: gs.Graph) -> str | None:
        tensors: dict[str, gs.Tensor] = {}
        for node in graph.nodes:
            for tensor in (*node.inputs, *node.outputs):
                # an omitted optional input is a tensor without a name
                if tensor.name and tensors.setdefault(tensor.name, tensor) is not tensor:
                    return f"two tensors are named {tensor.name}"
        outputs = {tensor.name for tensor in graph.outputs}
        missing = [path for name, path in blocks.items() if path not in tensors and name not in outputs]
        return f"block {missing[0]} has no tensor" if missing else None

    return GraphPass("name tensors", requires, transform, ensures)


def _bias_after(node: gs.Node) -> str | None:
    """Name of the constant added to a node's only result, without the exporter's prefix."""
    import onnx_graphsurgeon as gs

    readers = node.outputs[0].outputs
    if len(readers) != 1 or readers[0].op != "Add":
        return None
    constants = [tensor for tensor in readers[0].inputs if isinstance(tensor, gs.Constant)]
    return constants[0].name.removeprefix(PREFIX) if constants else None
