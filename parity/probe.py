"""Looking inside: intermediate tensors of an ONNX file and of a torch model, and feeding dictionaries to both."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..engines import Images, faithful_session
from ..engines.onnxruntime.runner import run_session
from ..models import Restorer, pad_images
from ..plugins import OPERATORS

if TYPE_CHECKING:
    import onnx

__all__ = [
    "OnnxProbe",
    "block_output",
    "block_outputs",
    "dictionary_tensors",
    "make_dictionaries_inputs",
    "ordered_blocks",
    "record_dictionaries",
]

CHOOSING = tuple(operator for operator in OPERATORS.values() if operator.chooses_keys)
"""Operators whose output is a dictionary: which keys are attended to."""

DICTIONARIES = {operator.name for operator in CHOOSING}


def dictionary_tensors(graph: onnx.ModelProto) -> list[str]:
    """Names of the dictionaries of a graph, in order; empty where there are none or they are decomposed."""
    return [node.output[0] for node in graph.graph.node if node.op_type in DICTIONARIES]


def ordered_blocks(graph: onnx.ModelProto, blocks: Container[str]) -> list[str]:
    """Those of the named blocks that a graph computes, in the order it computes them."""
    return [output for node in graph.graph.node for output in node.output if output in blocks]


def make_dictionaries_inputs(graph: onnx.ModelProto) -> list[str]:
    """Makes every dictionary of a graph an input instead of computing it, in place; returns their names, in order."""
    import onnx

    names = dictionary_tensors(graph)
    kept = [node for node in graph.graph.node if node.op_type not in DICTIONARIES]
    integer = onnx.TensorProto.INT32
    graph.graph.input.extend(onnx.helper.make_tensor_value_info(name, integer, [None, None, None]) for name in names)
    del graph.graph.node[:]
    graph.graph.node.extend(kept)
    return names


class OnnxProbe:
    """An ONNX Runtime session over a changed copy of a graph.

    Args:
        graph: The model; not changed.
        outputs: Tensors to return besides the image.
        feed_dictionaries: Make every dictionary an input instead of computing it.
    """

    def __init__(self, graph: onnx.ModelProto, outputs: Sequence[str] = (), feed_dictionaries: bool = False) -> None:
        import onnx

        copy = deepcopy(graph)
        del copy.graph.value_info[:]
        self.outputs = list(outputs)
        if feed_dictionaries:
            make_dictionaries_inputs(copy)
        for name in self.outputs:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
        self.session = faithful_session(copy)

    def run(self, images: Images, dictionaries: Sequence[Any] = ()) -> tuple[Images, list[Any]]:
        """Runs padded images ``[B, C, H, W]``; returns the restored images and the extra outputs."""
        names = [entry.name for entry in self.session.get_inputs()]
        feeds = dict(zip(names, [images, *dictionaries], strict=True))
        first = self.session.get_outputs()[0].name
        image, *extras = run_session(self.session, [first, *self.outputs], feeds, "the model")
        return image, extras


class _Recorder(TorchDispatchMode):
    """Sees every dictionary that is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.choosing = {operator.torch_operator().default for operator in CHOOSING}
        self.dictionaries: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self.choosing:
            self.dictionaries.append(result)
        return result


@contextmanager
def record_dictionaries() -> Iterator[list[torch.Tensor]]:
    """Collects the dictionaries that models compute inside the block, in order."""
    with _Recorder() as recorder:
        yield recorder.dictionaries


def block_output(model: Restorer, images: Images, block: str) -> Images:
    """Output of a named block or stage for images of any size."""
    return block_outputs(model, images, [block])[0][block]


def block_outputs(model: Restorer, images: Images, blocks: Sequence[str]) -> tuple[dict[str, Images], Images]:
    """Outputs of named blocks and stages for images of any size, by name, and the padded restored images."""
    caught: dict[str, Images] = {}

    def catch(block: str) -> Callable[..., None]:
        def hook(*call: Any) -> None:
            caught[block] = np.ascontiguousarray(call[-1].detach().numpy())

        return hook

    handles = [model.get_submodule(block).register_forward_hook(catch(block)) for block in blocks]
    try:
        with torch.no_grad():
            restored = model.network(pad_images(torch.from_numpy(images), model.spec.pad_multiple))
    finally:
        for handle in handles:
            handle.remove()
    return caught, restored.numpy()
