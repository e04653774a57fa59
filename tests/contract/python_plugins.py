"""Takes plugins in Python through their lives with real bindings and a recording driver; prints what it saw as JSON.

``python_plugins.py MODULE ORDERS``: MODULE is ``tensorrt`` or ``tensorrt_rtx_bindings``; ORDERS is a JSON file that
says what to do with every plugin, see `main`. The process runs under the environments of `lean_tensorrt` and
`recording_driver`. PyTorch and Triton cannot be imported where orders only execute.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np

from agileir_export.errors import AgileIRError
from agileir_export.plugins.plugin_layers import plugin_failures
from agileir_export.plugins.python_plugins import record_fields, recorded, register_python_plugins
from agileir_export.plugins.registry import DOMAIN

trt: Any = None

LOG = "STAND_IN_LOG"


class Refuse(MetaPathFinder):
    """What executing must not need."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name.partition(".")[0] in ("torch", "triton", "onnx"):
            raise ImportError(f"{name} must not be needed")


class Number:
    """A dimension expression whose arithmetic is done at once."""

    def __init__(self, value: int) -> None:
        self.value = value


class Builder:
    """TensorRT's maker of expressions."""

    def constant(self, value: int) -> Number:
        return Number(value)

    def operation(self, kind: Any, left: Number, right: Number) -> Number:
        kinds = trt.DimensionOperation
        return Number({kinds.PROD: left.value * right.value, kinds.FLOOR_DIV: left.value // right.value}[kind])


class Dimensions(list):  # type: ignore[type-arg]
    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


def tensor(shape: Sequence[int], kind: str, form: str = "LINEAR") -> Any:
    made = trt.PluginTensorDesc()
    made.dims, made.type = trt.Dims(shape), getattr(trt, kind)
    made.format, made.scale = getattr(trt.TensorFormat, form), 1.0
    return made


def dynamic(shape: Sequence[int], largest: Sequence[int], kind: str, form: str = "LINEAR") -> Any:
    made = trt.DynamicPluginTensorDesc()
    made.desc = tensor(shape, kind, form)
    made.min = made.opt = made.max = trt.Dims(largest)
    return made


def created(operator: str, name: str, made: list[Any], phase: str) -> Any:
    """A plugin as the parser makes it, or the loading of a plan, from fields."""
    creator = trt.get_plugin_registry().get_creator(operator, "1", DOMAIN)
    return creator.create_plugin(name, trt.PluginFieldCollection(made), getattr(trt.TensorRTPhase, phase))


def build(order: Mapping[str, Any]) -> dict[str, Any]:
    """The life of a plugin in a build; of its shapes, those with -1 are of the network, `largest` of a profile."""
    arrays = {key: np.array([value], np.int32) for key, value in order["attributes"].items()}
    attributes = [trt.PluginField(key, array, trt.PluginFieldType.INT32) for key, array in arrays.items()]
    plugin = created(order["operator"], order["layer"], attributes, "BUILD")
    assert plugin.get_capability_interface(trt.PluginCapabilityType.BUILD) is plugin
    plugin = plugin.clone()
    kinds, count = order["types"], len(order["types"])
    (output_type,) = plugin.get_output_data_types([getattr(trt, kind) for kind in kinds])
    saved, trt.DimsExprs = trt.DimsExprs, Dimensions
    (output,) = plugin.get_output_shapes([[Number(n) for n in shape] for shape in order["largest"]], [], Builder())
    trt.DimsExprs = saved
    shape = [size.value for size in output]
    name = str(output_type).rpartition(".")[2]
    types = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32"}
    combinations = []
    for first in ("float32", "float16", "bfloat16", "int32", "int8"):
        each = ["int32" if kind == "int32" else first for kind in (*kinds, types[name])]
        given = [dynamic(s, s, kind) for s, kind in zip([*order["largest"], shape], each, strict=True)]
        if all(plugin.supports_format_combination(i, given, count) for i in range(count + 1)):
            combinations.append(first)
    given = [dynamic(s, s, kind) for s, kind in zip([*order["largest"], shape], [*kinds, types[name]], strict=True)]
    odd = [dynamic(order["largest"][0], order["largest"][0], kinds[0], "CHW32"), *given[1:]]
    mixed = [*given[:-1], dynamic(shape, shape, "int8")]
    refused = [
        plugin.supports_format_combination(0, odd, count),
        plugin.supports_format_combination(count, mixed, count),
    ]
    described = [dynamic(*each) for each in zip(order["shapes"], order["largest"], kinds, strict=True)]
    plugin.configure_plugin(described, given[count:])
    workspace = plugin.get_workspace_size(described, given[count:])
    tactics = list(plugin.get_valid_tactics())
    data = recorded({field.name: field.data for field in plugin.get_fields_to_serialize()})
    return {
        "output_type": types[name],
        "output_shape": shape,
        "combinations": combinations,
        "refused": refused,
        "workspace": workspace,
        "tactics": tactics,
        "identity": [plugin.plugin_name, plugin.plugin_version, plugin.plugin_namespace, plugin.num_outputs],
        "record": base64.b64encode(data or b"").decode(),
    }


def execute(order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a plugin out of a plan launches; `contexts` are those that are current, one after another."""
    from cuda.bindings import driver

    fields = record_fields(trt, base64.b64decode(order["data"]))
    plugin = created(order["operator"], order["layer"], fields, "RUNTIME")
    if plugin is None:
        return []
    for context in order.get("contexts", [7]):
        driver.cuCtxSetCurrent(context)
        attached = plugin.attach_to_context(None)
        attached.set_tactic(order.get("tactic", 0))
        inputs = [tensor(shape, kind) for shape, kind in zip(order["shapes"], order["types"], strict=True)]
        outputs = [tensor(order["output_shape"], order["types"][0])]
        attached.on_shape_change(inputs, outputs)
        *given, made = order["addresses"]
        for _ in range(order.get("times", 1)):
            attached.enqueue(inputs, outputs, given, [made], order["workspace"], order["stream"])
    path = Path(os.environ[LOG])
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]


def attempt(order: Mapping[str, Any]) -> dict[str, Any]:
    """An order's outcome, or the error of ours that comes out of it."""
    try:
        with plugin_failures():
            try:
                return {"calls": execute(order)} if order["do"] == "execute" else build(order)
            except AgileIRError as error:
                raised = type(error).__name__
    except AgileIRError as error:
        return {"error": type(error).__name__, "says": str(error), "code": error.code}
    return {"lost": raised}


def main(module: str, path: str) -> None:
    """Does all orders: ``build`` with operator, attributes, shapes, types; ``execute`` with a record and addresses."""
    global trt
    orders = json.loads(Path(path).read_text(encoding="utf-8"))
    if all(order["do"] == "execute" for order in orders["orders"]):
        sys.meta_path.insert(0, Refuse())
    trt = importlib.import_module(module)
    register_python_plugins(trt)
    register_python_plugins(trt, orders["capabilities"], orders["every_tactic"])
    print(json.dumps({"version": trt.__version__, "answers": [attempt(order) for order in orders["orders"]]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
