"""Executing a TensorRT engine: contexts, buffers and CUDA graphs."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import AgileIRError, InternalError
from ..artifact import EngineArtifact
from ..runner import Images
from .device_memory import Buffer, CaptureFailed, DeviceMemory
from .plan_loading import messages_of, runtime_failure

__all__ = ["MOST_CONTEXTS", "Executor"]

MOST_CONTEXTS = 8
"""Shapes whose execution context, and CUDA graph, are kept; the one unused for longest goes first."""


@dataclass
class ShapeContext:
    """What one input shape needs between calls.

    Attributes:
        context: TensorRT's execution context; its profile and input shape never change.
        output_shape: Shape of the output.
        scratch_bytes: Working memory the context needs for this shape.
        addresses: Scratch, input and output it is bound to; empty before the first execution.
        warm: Whether it has executed with these addresses.
        replay: Launches its CUDA graph; None before there is one.
    """

    context: Any
    output_shape: tuple[int, ...]
    scratch_bytes: int
    addresses: tuple[int, ...] = ()
    warm: bool = False
    replay: Callable[[], None] | None = None


class Executor:
    """Executes an engine for arrays that fit one of its profiles exactly.

    One execution context serves one profile and one shape; since TensorRT 10, contexts may have a profile in common. A
    context that changes its shape would have to be captured again, and under TensorRT 11.1 and 11.2 each change leaks
    device memory where the engine holds ahead-of-time plugins (NVIDIA/TensorRT issue 4849). Contexts do not own working
    memory: they share one buffer, as large as the largest shape met so far needs, which is possible because all work is
    ordered on one stream.

    The first execution of a shape is a plain one, in which TensorRT does what it postponed; the second is captured into
    a CUDA graph, which is replayed from then on. A graph contains addresses: when a buffer grows, graphs are captured
    anew. TensorRT-RTX captures by itself, once it has compiled its kernels for a shape.

    Args:
        trt: The target's module.
        artifact: The engine, for messages.
        engine: The engine, deserialised.
        memory: Its GPU; must be current in all calls.
        cuda_graphs: Whether to use CUDA graphs where the target or the memory has them.
    """

    def __init__(
        self, trt: Any, artifact: EngineArtifact, engine: Any, memory: DeviceMemory, cuda_graphs: bool
    ) -> None:
        self._trt, self._artifact, self._engine, self._memory = trt, artifact, engine, memory
        self._context_settings, built_in = context_settings(trt, engine, cuda_graphs)
        self._captures = cuda_graphs and not built_in and memory.captures
        if not cuda_graphs:
            self.cuda_graphs = "off"
        else:
            self.cuda_graphs = "built-in" if built_in else "captured" if self._captures else "not with this memory"
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {engine.get_tensor_mode(name): name for name in names}
        self._input_name = modes[trt.TensorIOMode.INPUT]
        self._output_name = modes[trt.TensorIOMode.OUTPUT]
        self._contexts: OrderedDict[tuple[int, tuple[int, ...]], ShapeContext] = OrderedDict()
        self._input, self._output = Buffer(memory, host=True), Buffer(memory, host=True)
        self._scratch = Buffer(memory, host=False)

    def __call__(self, profile: int, images: Images) -> Images:
        """Executes the engine once.

        Args:
            profile: Index of the optimisation profile.
            images: float32 ``[B, C, H, W]``, a shape of that profile.

        Returns:
            float32 ``[B, C, sH, sW]``: a view of a buffer, valid until the next call.

        Raises:
            OutOfDeviceMemory: The GPU has no room for this shape.
            InternalError: TensorRT failed.
        """
        messages_of(self._trt).clear()
        state = self._state(profile, images.shape)
        self._bind(state, images.nbytes)
        host = self._input.host(images.shape)
        np.copyto(host, images)
        self._memory.upload(self._input.block, host)
        self._launch(state)
        result = self._output.host(state.output_shape)
        self._memory.download(result, self._output.block)
        self._memory.synchronize()
        return result

    def device_bytes(self, profile: int, shape: tuple[int, ...]) -> int:
        """Device memory that a call with images of a shape needs: the context's working memory, input and output.

        Raises:
            InternalError: TensorRT refuses the shape.
        """
        state = self._state(profile, shape)
        return state.scratch_bytes + 4 * (math.prod(shape) + math.prod(state.output_shape))

    def close(self) -> None:
        """Gives back graphs, contexts and buffers."""
        self._contexts.clear()
        for buffer in (self._input, self._output, self._scratch):
            buffer.clear()
        self._context_settings = self._engine = None

    def _state(self, profile: int, shape: tuple[int, ...]) -> ShapeContext:
        """The context of a shape, made on first use."""
        key = (profile, shape)
        if key in self._contexts:
            self._contexts.move_to_end(key)
            return self._contexts[key]
        while len(self._contexts) >= MOST_CONTEXTS:
            self._contexts.popitem(last=False)
        self._contexts[key] = state = self._new_state(profile, shape)
        return state

    def _new_state(self, profile: int, shape: tuple[int, ...]) -> ShapeContext:
        size = "x".join(map(str, shape))
        context = self._engine.create_execution_context(self._context_settings)
        if context is None:
            raise self._failure(f"create an execution context for {size}")
        if not context.set_optimization_profile_async(profile, self._memory.stream):
            raise self._failure(f"switch to its profile {profile}")
        if not context.set_input_shape(self._input_name, shape):
            raise self._failure(f"take the shape {size}")
        output_shape = tuple(context.get_tensor_shape(self._output_name))
        scale = self._artifact.spec.scale
        expected = (*shape[:2], shape[2] * scale, shape[3] * scale)
        if output_shape != expected:
            raise InternalError(
                f"{self._artifact.path} makes {output_shape} of {shape}, and its model makes {expected}.",
                fix="Build the engine again.",
            )
        return ShapeContext(context, output_shape, int(context.update_device_memory_size_for_shapes()))

    def _bind(self, state: ShapeContext, input_bytes: int) -> None:
        """Makes the buffers large enough and, where an address is new to the context, tells it."""
        scratch = self._scratch.reserve(state.scratch_bytes)
        source = self._input.reserve(input_bytes)
        target = self._output.reserve(4 * int(np.prod(state.output_shape)))
        addresses = (scratch.address, source.address, target.address)
        if state.addresses == addresses:
            return
        state.addresses, state.warm, state.replay = (), False, None
        state.context.set_device_memory(scratch.address, scratch.nbytes)
        for name, block in ((self._input_name, source), (self._output_name, target)):
            if not state.context.set_tensor_address(name, block.address):
                raise self._failure(f"take the address of {name}")
        state.addresses = addresses

    def _launch(self, state: ShapeContext) -> None:
        """Queues the network: plainly at first, then as a graph."""
        if state.replay is None and state.warm and self._captures:
            try:
                state.replay = self._memory.capture(lambda: self._capturable(state))
            except CaptureFailed as reason:
                self._captures = False  # nothing of the network was queued; plain execution always works
                self.cuda_graphs = f"not capturable: {reason}"
        if state.replay is not None:
            state.replay()
            return
        if not state.context.execute_async_v3(self._memory.stream):
            raise self._failure(f"execute a batch for {'x'.join(map(str, state.output_shape))}")
        state.warm = True

    def _capturable(self, state: ShapeContext) -> None:
        if not state.context.execute_async_v3(self._memory.stream):
            raise CaptureFailed("; ".join(messages_of(self._trt).lines()) or "TensorRT refuses")

    def _failure(self, what: str) -> AgileIRError:
        return runtime_failure(self._trt, self._artifact, self._memory, what)


def context_settings(trt: Any, engine: Any, cuda_graphs: bool) -> tuple[Any, bool]:
    """What execution contexts are created with, and whether the target itself makes CUDA graphs.

    Contexts never allocate working memory. TensorRT-RTX gets a runtime configuration: its own CUDA graphs, and one
    cache of compiled kernels for all contexts.
    """
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if not hasattr(trt, "CudaGraphStrategy"):
        return strategy, False
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(strategy)
    kinds = trt.CudaGraphStrategy
    config.cuda_graph_strategy = kinds.WHOLE_GRAPH_CAPTURE if cuda_graphs else kinds.DISABLED
    config.set_runtime_cache(config.create_runtime_cache())
    return config, True
