"""Pass: equal constants are stored once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from .graph_pass import GraphPass

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

__all__ = ["share_constants"]


def share_constants() -> GraphPass:
    """Merges constants of equal type, shape and bytes (the unit gains of a parameterless LayerNorm, say).

    Requires nothing. Ensures that no two constants are equal.
    """

    def requires(graph: gs.Graph) -> str | None:
        del graph
        return None

    def transform(graph: gs.Graph) -> None:
        kept: dict[tuple[str, tuple[int, ...], bytes], gs.Constant] = {}
        for node in graph.nodes:
            for position, tensor in enumerate(node.inputs):
                key = _content(tensor)
                if key is None:
                    continue
                first = kept.setdefault(key, tensor)
                if first is not tensor:
                    node.inputs[position] = first

    def ensures(graph: gs.Graph) -> str | None:
        seen: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        for tensor in {id(t): t for node in graph.nodes for t in node.inputs}.values():
            key = _content(tensor)
            if key is not None and seen.setdefault(key, tensor.name) != tensor.name:
                return f"{seen[key]} and {tensor.name} are equal"
        return None

    return GraphPass("share constants", requires, transform, ensures)


def _content(tensor: gs.Tensor) -> tuple[str, tuple[int, ...], bytes] | None:
    """Type, shape and digest of a constant; None for other tensors."""
    import onnx_graphsurgeon as gs

    if not isinstance(tensor, gs.Constant):
        return None
    values = tensor.values
    digest = hashlib.sha256(values.tobytes()).digest()
    return str(values.dtype), tuple(values.shape), digest
