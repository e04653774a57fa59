"""What `symbol_walk` knows beforehand: what names mean by convention, and what a TensorRT offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Kind = tuple[str, ...]
"""("module",), ("plugin",), ("class", X), ("object", X), ("callable", owner, name), ("members", X), ("list", *Kind)."""

FOREIGN: Kind = ("foreign",)
"""Nothing of TensorRT's."""

MODULES: dict[str, Kind] = {"trt": ("module",), "_trt": ("module",), "trtp": ("plugin",)}

OBJECTS: dict[str, str] = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "logger": "ILogger",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "plan": "IHostMemory",
    "runtime": "Runtime",
    "severity": "ILogger.Severity",
    "size": "plugin.ShapeExpr",
    "timing_cache": "ITimingCache",
}
"""What a parameter or a field of type ``Any`` is, by its name without leading underscores."""

# fmt: off
NOT_TENSORRT = frozenset({
    "arguments", "artifact", "attributes", "build", "children", "data", "error", "function", "given", "host", "images",
    "inspection", "layers", "memory", "message", "module", "named", "positional", "request", "returned", "self",
    "source", "text", "value", "values",
})
# fmt: on
"""Names of type ``Any`` that are never an object of TensorRT's."""

PLUGIN_VARIABLES: dict[str, Kind] = {"tensors": ("list", "object", "plugin.TensorDesc")}
"""Variables that plugin code takes out of the arguments TensorRT calls it with."""

RETURNS = {"get_plugin_registry": "IPluginRegistry"}
"""What the docstrings do not say."""

ASSUMED = {
    "target.plugins": "tensorrt",
    "target.builds_without_gpu": "rtx",
    "request.target_entry.builds_without_gpu": "rtx",
}
"""Facts that decide a branch besides ``hasattr``, and the target for which they are true."""

OWN = {"name", "value", "__members__", "__name__", "__doc__"}
"""Attributes of every enumeration."""


@dataclass
class Inventory:
    """What `inventory.py` printed of one module."""

    label: str
    names: Mapping[str, Any]
    classes: Mapping[str, Any]
    plugin_names: Mapping[str, Any]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Inventory:
        plugin = answer["plugin"] or {"names": {}, "classes": {}}
        classes = {**answer["classes"], **{f"plugin.{name}": c for name, c in plugin["classes"].items()}}
        return cls(f"{answer['module']} {answer['version']}", answer["names"], classes, plugin["names"])

    @property
    def target(self) -> str:
        return "rtx" if self.label.startswith("tensorrt_rtx") else "tensorrt"

    def has(self, owner: Kind, name: str) -> bool:
        """Whether an object has an attribute."""
        if owner[0] == "module":
            return name in self.names
        if owner[0] == "plugin":
            return name in self.plugin_names
        known = self.classes.get(owner[-1], {"attributes": {}, "enumeration": False})
        return name in known["attributes"] or (known["enumeration"] and name in OWN)

    def is_enumeration(self, name: str) -> bool:
        return bool(self.classes.get(name, {}).get("enumeration"))

    def kind_named(self, text: str) -> Kind:
        """The kind that a type in a signature means."""
        text = text.strip()
        for wrapper in ("list[", "collections.abc.Sequence[", "Optional["):
            if text.startswith(wrapper):
                inner = self.kind_named(text[len(wrapper) : -1])
                return FOREIGN if inner == FOREIGN else inner if wrapper == "Optional[" else ("list", *inner)
        return ("object", text) if text in self.classes else FOREIGN
