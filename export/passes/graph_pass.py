"""The form of a graph pass: a stated precondition, an effect, a stated postcondition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InternalError

if TYPE_CHECKING:
    import onnx
    import onnx_graphsurgeon as gs

__all__ = ["GraphPass", "run_passes"]


@dataclass(frozen=True)
class GraphPass:
    """A rewrite of an ONNX graph that computes the same image, exactly or in another precision.

    Attributes:
        name: Name for messages.
        requires: Returns what is wrong with the graph before the pass, or None.
        transform: Changes the graph in place.
        ensures: Returns what is wrong with the graph after the pass, or None.
    """

    name: str
    requires: Callable[[gs.Graph], str | None]
    transform: Callable[[gs.Graph], None]
    ensures: Callable[[gs.Graph], str | None]

    def apply(self, graph: gs.Graph) -> None:
        """Runs the pass between its two checks.

        Raises:
            InternalError: A check failed.
        """
        if problem := self.requires(graph):
            raise InternalError(f"The graph pass {self.name} cannot start: {problem}.")
        self.transform(graph)
        if problem := self.ensures(graph):
            raise InternalError(f"The graph pass {self.name} broke its promise: {problem}.")


def run_passes(model: onnx.ModelProto, passes: Sequence[GraphPass]) -> onnx.ModelProto:
    """The model after all passes, in order; the given one is not changed."""
    import onnx_graphsurgeon as gs

    copy = deepcopy(model)  # graphsurgeon writes new names into the tensors it was given
    graph = gs.import_onnx(copy)
    for step in passes:
        step.apply(graph)
    graph.cleanup().toposort()
    rewritten: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
    rewritten.ir_version = model.ir_version
    return rewritten
