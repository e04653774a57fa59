"""Sessions with an arena of their own, which grows by what is asked for, and is emptied before it must grow."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["exact_session"]

PROVIDERS = ["CPUExecutionProvider"]

GROWTH = {"arena_extend_strategy": 1}
"""Regions as large as what is asked for; 0, the default, doubles them."""

SHARED = ("session.use_env_allocators", "1")
EMPTY = ("memory.enable_memory_arena_shrinkage", "cpu:0")

REGISTERING = threading.Lock()
"""What is registered is the next session's, whoever creates it."""


def exact_session(model: str | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session on the CPU that holds what its tensors take.

    By itself an arena doubles its regions. A second run cuts the large ones up for small tensors and takes new ones:
    semanir_tiny_dn25 held 5200 bytes a pixel at some sizes and 6800 at others, which nothing could predict. With
    regions as large as what was asked for it is 5200 to 5400; but those of one size are of no use to a larger one, and
    would add up over pictures of many sizes: what is free in them goes back before larger inputs than any are run.

    Only arenas that are registered for the whole process can be told how to grow. One is registered for this session,
    and another, empty one afterwards: the session alone holds its own, which ends with it. (What the program registered
    itself is replaced for sessions that it creates later.)

    Args:
        model: Path or serialised model.
        options: The session's options; they are changed.
    """
    import onnxruntime

    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    growth = onnxruntime.OrtArenaCfg(GROWTH)
    options.add_session_config_entry(*SHARED)
    with REGISTERING:
        onnxruntime.create_and_register_allocator(place, growth)
        try:
            return _exact_session()(model, options)
        finally:
            onnxruntime.create_and_register_allocator(place, growth)


@cache
def _exact_session() -> Any:
    """The class, which can only be made once ONNX Runtime is loaded."""
    import onnxruntime

    class ExactSession(onnxruntime.InferenceSession):  # type: ignore[misc]  # it has no types
        """Empties its arena before inputs that are larger than all before."""

        def __init__(self, model: str | bytes, options: onnxruntime.SessionOptions) -> None:
            super().__init__(model, options, providers=PROVIDERS)
            least = onnxruntime.SessionOptions()
            least.add_session_config_entry(*SHARED)
            least.intra_op_num_threads = 1
            self._emptier = onnxruntime.InferenceSession(_nothing(), least, providers=PROVIDERS)
            self._emptying = onnxruntime.RunOptions()
            self._emptying.add_run_config_entry(*EMPTY)
            self._largest = 0

        def run(
            self,
            output_names: Sequence[str] | None,
            input_feed: Mapping[str, Any],
            run_options: onnxruntime.RunOptions | None = None,
        ) -> Any:
            size = sum(math.prod(np.shape(given)) for given in input_feed.values())
            if size > self._largest:
                self._emptier.run(None, {"x": np.zeros(0, np.float32)}, self._emptying)
                self._largest = size
            return super().run(output_names, input_feed, run_options)

    return ExactSession


@cache
def _nothing() -> bytes:
    """A model that gives nothing for nothing: a run of it is how ONNX Runtime can be asked to empty an arena.

    Anything that it gave would be in that arena, and keep a region.
    """
    import onnx
    from onnx import helper

    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [0]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
