"""Takes every plugin through its life as a TensorRT build does, with the real bindings; prints what it saw as JSON.

Runs in the environment made by `lean_tensorrt`. There is no builder without a GPU: the objects through which a builder
hands dimensions to a plugin (the expression builder and the holders of expressions) are replaced by numbers below.
Decorators, plugin registry, creator, shape, format, tactic and launch code are TensorRT's own.

A control with a scalar attribute shows whether this TensorRT and NumPy go together: up to 11.1 it cannot make a Python
integer of a field's array of one element under NumPy 2.4 and later.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt
import tensorrt.plugin as trtp
from tensorrt.plugin import _tensor

from agileir_export.plugins.bias_rows import rows_shape
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import BY_TORCH_NAME, CALLS, PLUGINS
from agileir_export.plugins.dispatch import BIAS_TABLE, kernel_module
from agileir_export.plugins.ptx import ENTRY
from agileir_export.plugins.registry import DOMAIN, NAMESPACE_ATTRIBUTE, Plugin
from agileir_export.plugins.tensorrt_plugins import register_tensorrt

sys.path.insert(0, str(Path(__file__).resolve().parent))
from half_block_cases import CASES, Case

TYPES = {"float32": trt.float32, "float16": trt.float16, "bfloat16": trt.bfloat16}


class Number:
    """A dimension expression that is known, or one that stands for a size known only later."""

    def __init__(self, value: int, constant: bool = True) -> None:
        self.value, self.constant = int(value), constant

    def is_constant(self) -> bool:
        return self.constant

    def get_constant_value(self) -> int:
        return self.value

    def is_size_tensor(self) -> bool:
        return False


class Builder:
    """Does the arithmetic at once."""

    def constant(self, value: int) -> Number:
        return Number(value)

    def operation(self, kind: Any, left: Number, right: Number) -> Number:
        a, b, kinds = left.value, right.value, trt.DimensionOperation
        results = {kinds.SUM: a + b, kinds.SUB: a - b, kinds.PROD: a * b, kinds.MAX: max(a, b), kinds.MIN: min(a, b)}
        if b:
            results |= {kinds.FLOOR_DIV: a // b, kinds.CEIL_DIV: -(-a // b)}
        return Number(results[kind], left.constant and right.constant)


class Dimensions(list):  # type: ignore[type-arg]
    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class Holder:
    """What a launch parameter becomes."""

    def __init__(self, expression: Any) -> None:
        self.value = expression._expr.get_constant_value()


class ExtraArguments(list):  # type: ignore[type-arg]
    nbSymExprs = 0

    def __setitem__(self, index: Any, value: Any) -> None:
        assert index == len(self)
        self.append(value)


@contextlib.contextmanager
def numbers_for_expressions() -> Iterator[None]:
    saved = trt.IDimensionExpr, trt.DimsExprs, _tensor.SymExprImpl
    trt.IDimensionExpr, trt.DimsExprs, _tensor.SymExprImpl = (saved[0], Number), Dimensions, Holder
    try:
        yield
    finally:
        trt.IDimensionExpr, trt.DimsExprs, _tensor.SymExprImpl = saved


def described(shape: Sequence[int], kind: Any) -> Any:
    tensor, dynamic = trt.PluginTensorDesc(), trt.DynamicPluginTensorDesc()
    tensor.dims, tensor.type = trt.Dims(shape), kind
    tensor.format, tensor.scale = trt.TensorFormat.LINEAR, 1.0
    dynamic.desc = tensor
    dynamic.min = dynamic.opt = dynamic.max = trt.Dims(shape)
    return dynamic


def creator_of(name: str, space: str = DOMAIN) -> Any:
    return trt.get_plugin_registry().get_creator(name, "1", space)


def created(name: str, space: str, attributes: Mapping[str, int], request: Any) -> Any:
    """A plugin from fields as the ONNX parser makes them, which narrows integers to int32.

    They are in the creator's order, as the parser goes through its fields and looks for each in the node.
    """
    creator = creator_of(name, space)
    names = [field.name for field in creator.field_names]
    arrays = [np.array([attributes[key]], np.int32) for key in names]  # fields hold their addresses
    fields = [trt.PluginField(key, a, trt.PluginFieldType.INT32) for key, a in zip(names, arrays, strict=True)]
    collection = trt.PluginFieldCollection(fields)
    return creator.create_plugin(name, space, collection, trt.TensorRTPhase.BUILD, request)


def why_not_created(name: str, space: str, attributes: Mapping[str, int]) -> str:
    """Empty, or the error."""
    try:
        created(name, space, attributes, trt.QuickPluginCreationRequest.UNKNOWN)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def scalar(values: Any, number: Any) -> Any:
    return values.like()


def register_control() -> None:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    given = {"values": trtp.TensorDesc, "number": int}
    declared = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in given.items()]
    scalar.__signature__ = inspect.Signature(declared, return_annotation=trtp.TensorDesc)  # type: ignore[attr-defined]
    trtp.register("control::Scalar")(scalar)


Image = tuple[int, int, int]


def life(call: Call, dtype: str, tactic: int, image: Image, dynamic: bool) -> dict[str, Any]:
    """The life of an operator's plugin.

    A plugin of known sizes is given position biases in row form, as engines have them, one of free sizes the table.
    """
    operator = BY_TORCH_NAME[call.operator]
    shapes = call.shapes(*image)
    if not dynamic and operator.inputs[-1] == BIAS_TABLE:
        shapes[-1] = rows_shape(shapes[-1], call.attributes["window_size"])
    free = {0: 3, **dict.fromkeys(call.integer_inputs, 1)} if dynamic else {}
    told = plugin_life(operator, call.attributes, shapes, call.integer_inputs, dtype, tactic, image, free)
    schema = sorted(set(operator.schema().attributes) - {NAMESPACE_ATTRIBUTE})
    return {**told, "dynamic": dynamic, "onnx_attributes": schema}


def half_block_life(case: Case, dtype: str, image: Image, dynamic: bool) -> dict[str, Any]:
    """The life of a half block's plugin."""
    free = dict.fromkeys(range(case.features), 3) if dynamic else {}
    told = plugin_life(case.entry, case.attributes, case.shapes(*image), (), dtype, 1, image, free)
    return {**told, "dynamic": dynamic, "onnx_attributes": sorted(case.attributes)}


def plugin_life(
    operator: Plugin,
    attributes: Mapping[str, int],
    shapes: list[tuple[int, ...]],
    integers: Sequence[int],
    dtype: str,
    tactic: int,
    image: Image,
    free: Mapping[int, int],
) -> dict[str, Any]:
    """One plugin from its creation, from fields as the ONNX parser makes them, to its kernel.

    Args:
        operator: Its entry.
        attributes: Its attributes.
        shapes: Shapes of its inputs.
        integers: Inputs that are int32.
        dtype: Type of the others.
        tactic: The tactic that is chosen.
        image: Batch, height and width.
        free: How many sizes of an input, by its position, are known only later.
    """
    kinds = [trt.int32 if i in integers else TYPES[dtype] for i in range(len(shapes))]
    creator = creator_of(operator.name)
    plugin = created(operator.name, DOMAIN, attributes, trt.QuickPluginCreationRequest.STRICT_AOT)
    types = plugin.get_output_data_types(kinds, [len(shape) for shape in shapes])
    with numbers_for_expressions():
        expressions = [
            [Number(size, axis >= free.get(tensor, 0)) for axis, size in enumerate(shape)]
            for tensor, shape in enumerate(shapes)
        ]
        outputs = plugin.get_output_shapes(expressions, [], Builder())
    output_shapes = [[size.value for size in output] for output in outputs]
    given = zip([*shapes, *output_shapes], [*kinds, *types], strict=True)
    everything = [described(shape, kind) for shape, kind in given]
    count = len(shapes)
    combinations = [
        str(each.type).rpartition(".")[2] for each in plugin.get_supported_format_combinations(everything, count)
    ]
    plugin.configure_plugin(everything[:count], everything[count:])
    tactics = list(plugin.get_valid_tactics())
    plugin.set_tactic(tactic)
    parameters, extra = type("Parameters", (), {})(), ExtraArguments()
    with numbers_for_expressions():
        plugin.get_launch_params(expressions, everything, count, parameters, extra, Builder())
    name, ptx = plugin.get_kernel(
        [each.desc for each in everything[:count]], [each.desc for each in everything[count:]]
    )
    text = ptx if isinstance(ptx, str) else bytes(ptx).decode()
    return {
        "operator": operator.name,
        "dtype": dtype,
        "tactic": tactic,
        "image": list(image),
        "output_type": str(types[0]).rpartition(".")[2],
        "output_shape": output_shapes[0],
        "scratch_shape": output_shapes[1] if len(output_shapes) > 1 else [],
        "combinations": [combinations[i : i + len(everything)] for i in range(0, len(combinations), len(everything))],
        "tactics": tactics,
        "grid": [parameters.grid_x.value, parameters.grid_y.value, parameters.grid_z.value],
        "block": [parameters.block_x.value, parameters.block_y.value, parameters.block_z.value],
        "shared": parameters.shared_mem.value,
        "extra": [argument.value for argument in extra],
        "kernel": name if isinstance(name, str) else bytes(name).decode(),
        "entry": re.findall(r"\.param\s+\.(\w+)", next(ENTRY.finditer(text))["list"]),
        "declares_kernel": f".visible .entry {name if isinstance(name, str) else bytes(name).decode()}(" in text,
        "inputs": count,
        "fields": sorted(field.name for field in creator.field_names),
        **dispatched(operator, shapes, attributes, dtype, tactic, image),
    }


def dispatched(
    operator: Plugin,
    shapes: list[tuple[int, ...]],
    attributes: Mapping[str, int],
    dtype: str,
    tactic: int,
    image: Image,
) -> dict[str, Any]:
    """What PyTorch's path would launch for the same tensors."""
    module = operator.kernels()
    launch = module.launch(shapes, attributes, dtype, tactic)
    return {
        "torch_grid": launch.grid(*image),
        "torch_sides": list(launch.sides(*image)),
        "torch_threads": 32 * launch.num_warps,
        "torch_output": list(module.output_shape(shapes, attributes)),
        "torch_tactics": len(module.TACTICS),
        "torch_scratch": [launch.windows(*image) * launch.scratch] if launch.scratch else [],
    }


SMALLEST = {
    "group_shifted_window_attention": "AgileIR tiny",
    "shifted_window_attention": "SwinIR light",
    "key_semantic_dictionary": "SemanIR tiny denoising",
    "key_semantic_attention": "SemanIR tiny denoising",
}
"""The preset of every operator whose kernel compiles fastest."""


def main(*wanted: str) -> None:
    """Takes the named plugins (operators by their torch names; all by default) through their lives."""
    register_tensorrt()
    register_tensorrt()
    register_control()
    seen = []
    for call in CALLS:
        if call.operator not in (wanted or SMALLEST) or call.label != SMALLEST[call.operator]:
            continue
        window = call.attributes["window_size"]
        image = (2, 3 * window, 2 * window)
        seen.append(life(call, "float16", 1, image, dynamic=True))
        if not wanted:
            last = len(kernel_module(call.operator).TACTICS)
            seen.append(life(call, "float16", last, image, dynamic=False))
            seen += [life(call, dtype, 1, image, dynamic=False) for dtype in ("float32", "bfloat16")]
    for name, case in CASES.items():
        if name in (wanted or CASES):
            seen.append(half_block_life(case, "float16", (2, 24, 16), dynamic=True))
            others = () if wanted else ("float16", "float32", "bfloat16")
            seen += [half_block_life(case, dtype, (2, 24, 16), dynamic=False) for dtype in others]
    told = {
        "version": trt.__version__,
        "numpy": np.__version__,
        "registered": [name for name in PLUGINS if creator_of(name) is not None],
        "why_not": {o.name: why_not_created(o.name, DOMAIN, dict.fromkeys(o.attributes, 8)) for o in PLUGINS.values()},
        "control": why_not_created("Scalar", "control", {"number": 8}),
    }
    print(json.dumps(told | {"lives": seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
