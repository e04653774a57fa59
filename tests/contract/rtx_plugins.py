"""What TensorRT-RTX's real parser and builder make of plugins, in a process of its own; prints JSON.

The parser opens ``libtensorrt_rtx.so``, a name that the wheel does not have, when it meets a plugin, and aborts the
process where it is not found: the test puts a link into a folder of ``LD_LIBRARY_PATH``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_rtx_bindings as rtx

from agileir_export.plugins.catalogue import OPERATORS
from agileir_export.plugins.registry import DOMAIN

PAYLOAD = b"// text that a plugin keeps in the plan"


class Plugin(rtx.IPluginV3, rtx.IPluginV3OneCore, rtx.IPluginV3OneBuild, rtx.IPluginV3OneRuntime):  # type: ignore[misc]
    """Any operator whose output is like its first input: enough for a build, which runs nothing."""

    def __init__(self, name: str) -> None:
        for base in (rtx.IPluginV3, rtx.IPluginV3OneCore, rtx.IPluginV3OneBuild, rtx.IPluginV3OneRuntime):
            base.__init__(self)
        self.plugin_name, self.plugin_version, self.plugin_namespace, self.num_outputs = name, "1", DOMAIN, 1

    def get_capability_interface(self, kind: Any) -> Plugin:
        return self

    def clone(self) -> Plugin:
        return Plugin(self.plugin_name)

    def attach_to_context(self, context: Any) -> Plugin:
        return self.clone()

    def get_output_data_types(self, types: Any) -> list[Any]:
        return [types[0]]

    def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> list[Any]:
        # rows of q, k and v become rows of v
        shape = rtx.DimsExprs(inputs[0])
        third = builder.constant(3)
        shape[3] = builder.operation(rtx.DimensionOperation.FLOOR_DIV, inputs[0][3], third)
        return [shape]

    def supports_format_combination(self, position: int, descriptions: Any, inputs: int) -> bool:
        each = descriptions[position].desc
        return bool(each.format == rtx.TensorFormat.LINEAR and each.type == rtx.float32)

    def configure_plugin(self, inputs: Any, outputs: Any) -> None: ...

    def on_shape_change(self, inputs: Any, outputs: Any) -> None: ...

    def get_workspace_size(self, *_: Any) -> int:
        return 0

    def enqueue(self, *_: Any) -> None:
        raise AssertionError("a build runs nothing")

    def get_fields_to_serialize(self) -> Any:
        text = rtx.PluginField("text", np.frombuffer(PAYLOAD, np.int8), rtx.PluginFieldType.CHAR)
        return rtx.PluginFieldCollection([text])


class Creator(rtx.IPluginCreatorV3One):  # type: ignore[misc]
    """Makes plugins of the kind that TensorRT-RTX takes."""

    def __init__(self, name: str) -> None:
        rtx.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_version, self.plugin_namespace = name, "1", DOMAIN
        self.field_names = rtx.PluginFieldCollection([])

    def create_plugin(self, name: str, fields: Any, phase: Any) -> Plugin:
        return Plugin(name)


class QuickCreator(rtx.IPluginCreatorV3Quick):  # type: ignore[misc]
    """Makes quickly deployable plugins: the kind that this package has for TensorRT."""

    def __init__(self, name: str) -> None:
        rtx.IPluginCreatorV3Quick.__init__(self)
        self.name, self.plugin_version, self.plugin_namespace = name, "1", DOMAIN
        self.field_names = rtx.PluginFieldCollection([])

    def create_plugin(self, *_: Any) -> None:
        raise AssertionError("the parser does not get that far")


def register(kind: str) -> list[Any]:
    """Registers plugins of a kind; the result must outlive the parser.

    Args:
        kind: ``"tensorrt"`` for ours, in TensorRT's own registry; ``"quick"`` and ``"python"`` in TensorRT-RTX's.
    """
    if kind == "tensorrt":
        from agileir_export.plugins.tensorrt_plugins import register_tensorrt

        register_tensorrt()
        return []
    creators = [{"quick": QuickCreator, "python": Creator}[kind](each.name) for each in OPERATORS.values()]
    registry = rtx.get_plugin_registry()
    assert all(registry.register_creator(creator, DOMAIN) for creator in creators)
    return creators


def main(kind: str, path: str) -> None:
    creators = register(kind)
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    parsed = parser.parse(Path(path).read_bytes())
    answer: dict[str, Any] = {
        "parsed": parsed,
        "errors": [parser.get_error(i).desc() for i in range(parser.num_errors)],
        "plugin_layers": sum("PLUGIN" in str(network.get_layer(i).type) for i in range(network.num_layers)),
    }
    if parsed:
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(rtx.ComputeCapability.SM89, 0)
        plan = bytes(builder.build_serialized_network(network, config))
        answer |= {"plan_bytes": len(plan), "payloads": plan.count(PAYLOAD)}
    print(json.dumps(answer))
    del creators


if __name__ == "__main__":
    main(*sys.argv[1:])
