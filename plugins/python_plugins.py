"""Operators and half blocks as plugins in Python (``IPluginV3``) that carry their kernels, for both targets.

TensorRT-RTX takes no other plugins, and builds engines with these on machines without a GPU. Unlike the quickly
deployable ones (`tensorrt_plugins`) they have working memory of their own and may take more than 48 KB of shared
memory; and an engine with them runs only where this package has registered them. Everything a plugin declares is
derived from the operator's registry entry and its ``kernel.py`` (`plugin_layers`); this module is TensorRT's side.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import EnvironmentProblem, InputError
from ..version import TENSORRT_RELEASES
from .catalogue import PLUGINS
from .kernel_records import FIELD, KernelRecord, name_of, named, read_record, write_record
from .plugin_layers import Choices, Layer, attempt, remember
from .registry import DOMAIN, Plugin

__all__ = ["record_fields", "recorded", "register_python_plugins", "require_triton", "type_names"]

VERSION = "1"
"""Version of the plugins, as the parser looks for them."""


def type_names(trt: Any) -> dict[Any, str]:
    """Names of the tensor types that the kernels know, by TensorRT's."""
    return {trt.float32: "float32", trt.float16: "float16", trt.bfloat16: "bfloat16", trt.int32: "int32"}


class Size:
    """A size that may be unknown, with the arithmetic that `output_shape` of a kernel does.

    Args:
        trt: TensorRT's module.
        expression: Its expression of the size.
        expr_builder: Makes expressions.
    """

    def __init__(self, trt: Any, expression: Any, expr_builder: Any) -> None:
        self._trt, self.expression, self.expr_builder = trt, expression, expr_builder

    def __mul__(self, other: Size | int) -> Size:
        return self._with(self._trt.DimensionOperation.PROD, other)

    def __floordiv__(self, other: Size | int) -> Size:
        return self._with(self._trt.DimensionOperation.FLOOR_DIV, other)

    def _with(self, operation: Any, other: Size | int) -> Size:
        right = other.expression if isinstance(other, Size) else self.expr_builder.constant(other)
        made = self.expr_builder.operation(operation, self.expression, right)
        return Size(self._trt, made, self.expr_builder)


@functools.cache
def reads_data(trt: Any) -> bool:
    """Whether the data of a field come back as they were.

    Bindings older than NumPy 2 repeat the first element under it: those of TensorRT 10.12, 10.13 and 10.15 do, those of
    10.16 do not.
    """
    data = np.array([1, 2], np.int8)
    return bool(np.array_equal(np.asarray(trt.PluginField(FIELD, data, trt.PluginFieldType.INT8).data), data))


def record_fields(trt: Any, record: bytes) -> list[Any]:
    """The field that keeps a record; it must outlive every collection that it is in."""
    if reads_data(trt):
        return [trt.PluginField(FIELD, np.frombuffer(record, np.int8), trt.PluginFieldType.INT8)]
    return [trt.PluginField(name_of(record), np.zeros(1, np.int32), trt.PluginFieldType.INT32)]


def recorded(fields: Mapping[str, Any]) -> bytes | None:
    """The record among fields, data by name; None where there is none."""
    if FIELD in fields:
        return bytes(np.asarray(fields[FIELD]).tobytes())
    return next((record for record in map(named, fields) if record is not None), None)


def introduce(core: Any, build_half: Any, operator: Plugin) -> None:
    """Gives the two halves of a plugin what TensorRT knows it by."""
    core.plugin_name, core.plugin_version, core.plugin_namespace = operator.name, VERSION, DOMAIN
    build_half.num_outputs = 1


def introduce_creator(creator: Any, operator: Plugin, fields: Any) -> None:
    """Gives a creator what TensorRT knows it by."""
    creator.name, creator.plugin_version, creator.plugin_namespace = operator.name, VERSION, DOMAIN
    creator.field_names = fields


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
            introduce(self, self, layer.operator)

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
            attempt(lambda: self.layer.compile(shapes, kinds), None)

        def get_valid_tactics(self) -> Any:
            return self.layer.tactics

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            return attempt(lambda: self.layer.scratch_bytes(tuple(inputs[0].max)), 0)

        # executing

        def attach_to_context(self, resource_context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            self.serialised: list[Any] = attempt(lambda: record_fields(trt, write_record(self.layer.record)), [])
            return trt.PluginFieldCollection(self.serialised)  # which holds no more than addresses

        def set_tactic(self, tactic: int) -> None:
            self.layer.tactic = tactic

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            # before a CUDA graph is captured; `enqueue` meets whatever is wrong again, and says so
            attempt(self.layer.prepare, None)

        def enqueue(
            self, input_desc: Any, output_desc: Any, inputs: Any, outputs: Any, workspace: int, stream: int
        ) -> None:
            try:
                image = tuple(input_desc[0].dims)[:3]
                self.layer.launch(image, (*inputs, *outputs), workspace, stream)
            except Exception as error:
                remember(error)
                raise

    return Plugin


@functools.cache
def creator_class(trt: Any) -> Any:
    """What makes the plugins of an operator, for a module of TensorRT's."""

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        """Makes plugins out of a node of an ONNX file, or out of a plan."""

        def __init__(self, operator: Plugin, choices: Choices) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.operator, self.choices = operator, choices
            nothing, kind = np.array([], np.int32), trt.PluginFieldType.INT32
            fields = [trt.PluginField(name, nothing, kind) for name in operator.attributes]
            introduce_creator(self, operator, trt.PluginFieldCollection(fields))

        def create_plugin(self, name: str, field_collection: Any, phase: Any) -> Any:
            fields = {field.name: field.data for field in field_collection}
            return attempt(lambda: plugin_class(trt)(Layer(self._record(name, fields), self.choices)), None)

        def _record(self, name: str, fields: dict[str, Any]) -> KernelRecord:
            data = recorded(fields)
            if data is not None:
                record = read_record(data)
                if record.operator != self.operator.name:
                    raise InputError(
                        f"The plan calls {record.layer} a {self.operator.name}, and its kernels are of "
                        f"{record.operator}.",
                        fix="Build the engine again.",
                    )
                return record
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
        EnvironmentProblem: Other plugins have the operators' names already: the quickly deployable ones; or TensorRT is
            too old.
    """
    oldest = TENSORRT_RELEASES[0]
    if trt.__name__ == "tensorrt" and tuple(map(int, trt.__version__.split(".")[:2])) < oldest:
        raise EnvironmentProblem(
            f"TensorRT {trt.__version__} is too old for plugins in Python: its bindings end the process.",
            fix=f"Install TensorRT {oldest[0]}.{oldest[1]} or newer, or build with --attention decomposed.",
        )
    registry = trt.get_plugin_registry()
    choices = Choices.of(capabilities, every_tactic)
    for operator in PLUGINS.values():
        key = trt.IPluginV3.__module__, operator.name  # a front package has the classes of its bindings
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
