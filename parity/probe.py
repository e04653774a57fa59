"""Looking inside: intermediate tensors of an ONNX file and of a torch model, and feeding dictionaries to both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..engines import Images, faithful_session
from ..models import Restorer, pad_images

if TYPE_CHECKING:
    import onnx

__all__ = ["OnnxProbe", "block_output", "dictionary_tensors", "record_dictionaries"]

DICTIONARY = "KeySemanticDictionary"


def dictionary_tensors(graph: onnx.ModelProto) -> list[str]:
    """Names of the dictionaries of a graph, in order; empty where there are none or they are decomposed."""
    return [node.output[0] for node in graph.graph.node if node.op_type == DICTIONARY]


class OnnxProbe:
    """An ONNX Runtime session over a changed copy of a graph.

    Args:
        graph: The model; not changed.
        outputs: Tensors to return besides the image.
        feed_dictionaries: Make every dictionary an input instead of computing it.
    """

    def __init__(self, graph: onnx.ModelProto, outputs: Sequence[str] = (), feed_dictionaries: bool = False) -> None:
        import onnx

        copy = type(graph)()
        copy.CopyFrom(graph)
        del copy.graph.value_info[:]
        self.outputs = list(outputs)
        if feed_dictionaries:
            kept = [node for node in copy.graph.node if node.op_type != DICTIONARY]
            integer = onnx.TensorProto.INT32
            copy.graph.input.extend(
                onnx.helper.make_tensor_value_info(name, integer, [None, None, None])
                for name in dictionary_tensors(graph)
            )
            del copy.graph.node[:]
            copy.graph.node.extend(kept)
        for name in self.outputs:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
        self.session = faithful_session(copy)

    def run(self, images: Images, dictionaries: Sequence[Any] = ()) -> tuple[Images, list[Any]]:
        """Runs padded images ``[B, C, H, W]``; returns the restored images and the extra outputs."""
        names = [entry.name for entry in self.session.get_inputs()]
        feeds = dict(zip(names, [images, *dictionaries], strict=True))
        first = self.session.get_outputs()[0].name
        image, *extras = self.session.run([first, *self.outputs], feeds)
        return image, extras


class _Recorder(TorchDispatchMode):
    """Sees every dictionary that is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dictionaries: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.agileir.key_semantic_dictionary.default:
            self.dictionaries.append(result)
        return result


@contextmanager
def record_dictionaries() -> Iterator[list[torch.Tensor]]:
    """Collects the dictionaries that models compute inside the block, in order."""
    with _Recorder() as recorder:
        yield recorder.dictionaries


def block_output(model: Restorer, images: Images, block: str) -> Images:
    """Output of a named block or stage for images of any size."""
    caught: list[torch.Tensor] = []
    module = model.get_submodule(block)
    handle = module.register_forward_hook(lambda *call: caught.append(call[-1].detach()))
    try:
        with torch.no_grad():
            model.network(pad_images(torch.from_numpy(images), model.spec.pad_multiple))
    finally:
        handle.remove()
    output: Images = np.ascontiguousarray(caught[0].numpy())
    return output
