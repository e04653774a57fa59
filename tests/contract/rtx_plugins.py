"""What TensorRT-RTX's real parser and builder make of plugins, in a process of its own; prints JSON.

Those that it takes are `python_plugins` and the engines of ``tests/engines/test_rtx_plugin_builds.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tensorrt_rtx_bindings as rtx

from agileir_export.plugins.catalogue import OPERATORS
from agileir_export.plugins.registry import DOMAIN


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
        kind: ``"tensorrt"`` for ours, in TensorRT's own registry; ``"quick"`` in TensorRT-RTX's.
    """
    if kind == "tensorrt":
        from agileir_export.plugins.tensorrt_plugins import register_tensorrt

        register_tensorrt()
        return []
    assert kind == "quick"
    creators = [QuickCreator(each.name) for each in OPERATORS.values()]
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
        answer |= {"plan_bytes": len(plan)}
    print(json.dumps(answer))
    del creators


if __name__ == "__main__":
    main(*sys.argv[1:])
