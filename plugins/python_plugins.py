"""The operators as plugins in Python (``IPluginV3``) that carry their kernels: for TensorRT-RTX and for TensorRT.

TensorRT-RTX takes no other plugins, and builds engines with these on machines without a GPU. Unlike the quickly
deployable ones (`tensorrt_plugins`) they have working memory of their own and may take more than 48 KB of shared
memory; and an engine with them runs only where this package has registered them: `cuda_kernels` launches what the plan
carries (`kernel_records`). Everything a plugin declares is derived from the operator's registry entry and its
``kernel.py``; executing needs neither, and neither Triton nor PyTorch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ..errors import AgileIRError, EnvironmentProblem, InternalError, Unsupported
from .catalogue import OPERATORS
from .cuda_kernels import cuda_driver
from .kernel_records import FIELD, CarriedKernel, KernelRecord, read_record, write_record
from .launch import ITEM_BYTES, OPT_IN_SHARED_BYTES, NoKernel, Shape
from .ptx import TARGET, compile_kernel, own_instructions
from .registry import DOMAIN, Operator

__all__ = ["Choices", "Layer", "plugin_failures", "register_python_plugins", "require_triton", "type_names"]

VERSION = "1"
"""Version of the plugins, as the parser looks for them."""

SCRATCH_ITEM_BYTES = ITEM_BYTES["float32"]

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Choices:
    """Which kernels a build compiles for every layer.

    Attributes:
        targets: What for, see `ptx.own_instructions`.
        every_tactic: All tactics, for a builder that times them; else the first, which is PyTorch's too.
    """

    targets: tuple[int, ...] = (TARGET,)
    every_tactic: bool = False

    @classmethod
    def of(cls, capabilities: Iterable[int], every_tactic: bool) -> Choices:
        """Those of an engine for some compute capabilities (times ten); of all since Ampere where none is named."""
        targets = sorted({own_instructions(capability) for capability in capabilities} or {TARGET})
        return cls(tuple(targets), every_tactic)


class Layer:
    """One operator of a network: all that its plugin knows, in plain numbers and texts.

    Args:
        record: The layer; with its kernels where it comes out of a plan.
        choices: What a build compiles.
        tactic: Tactic that is launched, from 1; 0 for the first.
    """

    def __init__(self, record: KernelRecord, choices: Choices, tactic: int = 0) -> None:
        self.record, self.choices, self.tactic = record, choices, tactic

    def copy(self) -> Layer:
        """Another of the same state; what it does to itself is not seen here."""
        return Layer(self.record, self.choices, self.tactic)

    @property
    def operator(self) -> Operator:
        """The operator's entry."""
        return OPERATORS[self.record.operator]

    @property
    def module(self) -> Any:
        """``kernel.py`` of the operator; needs Triton and PyTorch, as everything of a build does."""
        from .dispatch import kernel_module

        return kernel_module(self.operator.torch_name)

    @property
    def tactics(self) -> list[int]:
        """The tactics that there are to choose from."""
        return list(range(1, len(self.module.TACTICS) + 1)) if self.choices.every_tactic else []

    def output_type(self, image: str) -> str:
        """Type of the output, from that of the first input."""
        return str(self.module.OUTPUT_TYPE or image)

    def output_shape(self, shapes: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        """Shape of the output, of numbers or of what calculates with sizes as numbers do."""
        shape: tuple[Any, ...] = self.module.output_shape(shapes, self.record.attributes)
        return shape

    def takes(self, position: int, kind: str | None, image: str | None) -> bool:
        """Whether an input, or after them the output, may have a type where the first input has the type `image`."""
        name = (*self.operator.inputs, self.operator.output)[position]
        return kind == "int32" if name in self.operator.integer_tensors else kind in ITEM_BYTES and kind == image

    def compile(self, shapes: Sequence[Shape], types: Sequence[str]) -> None:
        """Compiles the kernels of `choices`.

        Args:
            shapes: Shapes of the inputs, with UNKNOWN for sizes that are free.
            types: Their types.

        Raises:
            Unsupported: No kernel was made for them.
        """
        output = self.output_type(types[0])
        found = []
        for tactic in self.tactics or [1]:
            try:
                launch = self.module.launch(shapes, self.record.attributes, types[0], tactic)
            except NoKernel as error:
                raise Unsupported(
                    f"No plugin can run {self.record.layer}: {error}.", fix="Use --attention decomposed."
                ) from error
            for target in self.choices.targets:
                made = compile_kernel(launch, types, output, target, OPT_IN_SHARED_BYTES)
                numbers = launch.window_size, launch.programs, launch.scratch
                found.append(
                    CarriedKernel(target, tactic, made.name, made.num_threads, made.shared_bytes, *numbers, made.ptx)
                )
        self.record = replace(self.record, kernels=tuple(found))

    def scratch_bytes(self, image: Sequence[int]) -> int:
        """Working memory for a first input of this shape or a smaller one, whatever the tactic."""
        batch, height, width, *_ = image
        return SCRATCH_ITEM_BYTES * max(
            (
                batch * (height // kernel.window_size) * (width // kernel.window_size) * kernel.scratch
                for kernel in self.record.kernels
            ),
            default=0,
        )

    def launch(self, image: Sequence[int], tensors: Sequence[int], scratch: int, stream: int) -> None:
        """Queues the kernel; see `Driver.launch`."""
        cuda_driver().launch(self.record, self.tactic or 1, image, tensors, scratch, stream)

    def prepare(self) -> None:
        """Loads the kernel into the current context; see `Driver.prepare`."""
        cuda_driver().prepare(self.record, self.tactic or 1)


# ---- what went wrong inside TensorRT ----

_failures: dict[int, Exception] = {}
"""The first failure in every thread, until somebody asks for it."""


@contextlib.contextmanager
def plugin_failures(every_thread: bool = False) -> Iterator[None]:
    """Work with TensorRT in which plugins may fail: of their errors it keeps no more than a line on stderr.

    Args:
        every_thread: Look at what failed in all threads of the process, not only in this one.

    Raises:
        AgileIRError: What a plugin failed with, in the place of whatever TensorRT made of it.
    """
    threads = list(_failures) if every_thread else [threading.get_ident()]
    for thread in threads:
        _failures.pop(thread, None)
    try:
        yield
    finally:
        threads = list(_failures) if every_thread else [threading.get_ident()]
        found = [error for thread in threads if (error := _failures.pop(thread, None)) is not None]
        if found:
            raise _typed(found[0])


def _typed(error: Exception) -> AgileIRError:
    """An error that nobody foresaw as one of ours."""
    if isinstance(error, AgileIRError):
        return error
    made = InternalError(
        f"A plugin failed: {type(error).__name__}: {error}.",
        fix="This is a defect of agileir-export. Please report it.",
    )
    made.__cause__ = error
    return made


def _remember(error: Exception) -> None:
    _failures.setdefault(threading.get_ident(), error)


def _attempt(work: Callable[[], Answer], otherwise: Answer) -> Answer:
    """What a part of a build answers; a failure is kept for `plugin_failures`.

    An exception must not get out: TensorRT-RTX 1.7 ends the process on one in `configure_plugin`, and goes on with an
    engine that lacks something on others.
    """
    try:
        return work()
    except Exception as error:
        _remember(error)
        return otherwise


# ---- TensorRT's side ----


def type_names(trt: Any) -> dict[Any, str]:
    """Names of the tensor types that the kernels know, by TensorRT's."""
    return {trt.float32: "float32", trt.float16: "float16", trt.bfloat16: "bfloat16", trt.int32: "int32"}


class Size:
    """A size that may be unknown, with the arithmetic that `output_shape` of a kernel does.

    Args:
        trt: TensorRT's module.
        expression: Its expression of the size.
        builder: Makes expressions.
    """

    def __init__(self, trt: Any, expression: Any, builder: Any) -> None:
        self.trt, self.expression, self.builder = trt, expression, builder

    def __mul__(self, other: Size | int) -> Size:
        return self._with(self.trt.DimensionOperation.PROD, other)

    def __floordiv__(self, other: Size | int) -> Size:
        return self._with(self.trt.DimensionOperation.FLOOR_DIV, other)

    def _with(self, operation: Any, other: Size | int) -> Size:
        right = other.expression if isinstance(other, Size) else self.builder.constant(other)
        return Size(self.trt, self.builder.operation(operation, self.expression, right), self.builder)


@functools.cache
def plugin_class(trt: Any) -> Any:
    """The plugin of all operators, for a module of TensorRT's."""
    names = type_names(trt)
    types = {name: kind for kind, name in names.items()}

    class Plugin(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):  # type: ignore[misc]
        """An operator; all it knows is in its `Layer`."""

        def __init__(self, layer: Layer) -> None:
            trt.IPluginV3.__init__(self)
            trt.IPluginV3OneCore.__init__(self)
            trt.IPluginV3OneBuild.__init__(self)
            trt.IPluginV3OneRuntime.__init__(self)
            self.layer = layer
            self.plugin_name, self.plugin_version, self.plugin_namespace = layer.operator.name, VERSION, DOMAIN
            self.num_outputs = 1

        def get_capability_interface(self, type: Any) -> Any:
            return self

        def clone(self) -> Plugin:
            return Plugin(self.layer.copy())

        # building

        def get_output_data_types(self, input_types: Any) -> Any:
            return [types[self.layer.output_type(names[input_types[0]])]]

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, expr_builder: Any) -> Any:
            sizes = [[Size(trt, each[axis], expr_builder) for axis in range(len(each))] for each in inputs]
            shape = self.layer.output_shape(sizes)
            made = trt.DimsExprs(len(shape))
            for axis, size in enumerate(shape):
                made[axis] = size.expression if isinstance(size, Size) else expr_builder.constant(size)
            return [made]

        def supports_format_combination(self, pos: int, in_out: Any, num_inputs: int) -> bool:
            first, each = in_out[0].desc, in_out[pos].desc
            is_linear: bool = each.format == trt.TensorFormat.LINEAR
            return is_linear and self.layer.takes(pos, names.get(each.type), names.get(first.type))

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            shapes = [tuple(each.desc.dims) for each in inputs]
            kinds = [names[each.desc.type] for each in inputs]
            _attempt(lambda: self.layer.compile(shapes, kinds), None)

        def get_valid_tactics(self) -> Any:
            return self.layer.tactics

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            return _attempt(lambda: self.layer.scratch_bytes(tuple(inputs[0].max)), 0)

        # executing

        def attach_to_context(self, resource_context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            # kept, for a field holds no more than the address of its data
            self.serialised = np.frombuffer(_attempt(lambda: write_record(self.layer.record), b"\0"), np.int8)
            field = trt.PluginField(FIELD, self.serialised, trt.PluginFieldType.INT8)
            return trt.PluginFieldCollection([field])

        def set_tactic(self, tactic: int) -> None:
            self.layer.tactic = tactic

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            # before a CUDA graph is captured; `enqueue` meets whatever is wrong again, and says so
            _attempt(self.layer.prepare, None)

        def enqueue(
            self, input_desc: Any, output_desc: Any, inputs: Any, outputs: Any, workspace: int, stream: int
        ) -> None:
            try:
                image = tuple(input_desc[0].dims)[:3]
                self.layer.launch(image, (*inputs, *outputs), workspace, stream)
            except Exception as error:
                _remember(error)
                raise

    return Plugin


@functools.cache
def creator_class(trt: Any) -> Any:
    """What makes the plugins of an operator, for a module of TensorRT's."""

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        """Makes plugins out of a node of an ONNX file, or out of a plan."""

        def __init__(self, operator: Operator, choices: Choices) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.operator, self.choices = operator, choices
            self.name, self.plugin_version, self.plugin_namespace = operator.name, VERSION, DOMAIN
            nothing, kind = np.array([], np.int32), trt.PluginFieldType.INT32
            fields = [trt.PluginField(name, nothing, kind) for name in operator.attributes]
            self.field_names = trt.PluginFieldCollection(fields)

        def create_plugin(self, name: str, field_collection: Any, phase: Any) -> Any:
            fields = {field.name: field.data for field in field_collection}
            return _attempt(lambda: plugin_class(trt)(Layer(self._record(name, fields), self.choices)), None)

        def _record(self, name: str, fields: dict[str, Any]) -> KernelRecord:
            if FIELD in fields:
                return read_record(np.asarray(fields[FIELD]).tobytes())
            attributes = {each: int(np.asarray(fields[each]).reshape(-1)[0]) for each in self.operator.attributes}
            return KernelRecord(name, self.operator.name, attributes, len(self.operator.inputs))

    return Creator


_creators: dict[tuple[str, str], Any] = {}
"""The creators by module and operator: TensorRT does not keep them alive."""


def register_python_plugins(trt: Any, capabilities: Iterable[int] = (), every_tactic: bool = False) -> None:
    """Registers the plugins with TensorRT or TensorRT-RTX, for files parsed and plans loaded later in this process.

    Args:
        trt: The module, ``tensorrt`` or ``tensorrt_rtx``.
        capabilities: Compute capabilities, times ten, of the GPUs that engines are built for; none for kernels that run
            on every GPU since Ampere. It does not matter where plans are only loaded. Calling again changes this and
            `every_tactic`, and nothing else.
        every_tactic: Carry every tactic's kernel, for a builder that times them on a GPU.

    Raises:
        EnvironmentProblem: Other plugins have the operators' names already: the quickly deployable ones.
    """
    registry = trt.get_plugin_registry()
    choices = Choices.of(capabilities, every_tactic)
    for operator in OPERATORS.values():
        key = trt.__name__, operator.name
        if key in _creators:
            _creators[key].choices = choices
            continue
        if registry.get_creator(operator.name, VERSION, DOMAIN) is not None:
            raise EnvironmentProblem(
                f"{operator.name} is registered with {trt.__name__} already, as another kind of plugin.",
                fix="Use one kind in a process.",
            )
        creator = creator_class(trt)(operator, choices)
        if not registry.register_creator(creator, DOMAIN):
            raise EnvironmentProblem(f"{trt.__name__} does not register the plugin {operator.name}.")
        _creators[key] = creator


def require_triton() -> None:
    """What compiles the kernels is here.

    Raises:
        EnvironmentProblem: It is not.
    """
    if importlib.util.find_spec("triton") is None:
        raise EnvironmentProblem(
            "Triton is not installed",
            why="It compiles the kernels that go into the engine; the engine does not need it.",
            fix="pip install triton",
        )
