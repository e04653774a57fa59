"""The stand-ins for TensorRT in the tests of builder and runner have the names and parameters of the real bindings."""

from __future__ import annotations

import enum
import inspect
from typing import Any

import pytest

from ..engines import fake_builder, fake_tensorrt
from .bindings import LEAN, RTX, inventory

BUILDER_CLASSES = {
    "BuilderConfig": "IBuilderConfig",
    "Engine": "ICudaEngine",
    "Network": "INetworkDefinition",
    "Profile": "IOptimizationProfile",
    "Tensor": "ITensor",
    "TimingCache": "ITimingCache",
}
"""Classes of the builder's stand-in that the bindings name otherwise; the others have their names."""


def methods_of(stand_in: type) -> dict[str, list[str]]:
    """Names and parameters, without ``self`` and without methods of any number of parameters."""
    found = {}
    for name, value in inspect.getmembers(stand_in, inspect.isfunction):
        parameters = list(inspect.signature(value).parameters.values())[1:]
        if not name.startswith("_") and all(each.kind is not each.VAR_POSITIONAL for each in parameters):
            found[name] = [each.name for each in parameters]
    return found


def offered(real: dict[str, Any], method: str) -> list[list[str]]:
    """The parameters of every signature of a real method."""
    assert real[method]["kind"] == "method"
    return [[name for name, *_ in each["parameters"]] for each in real[method]["signatures"]]


def members_exist(classes: dict[str, Any], name: str, stand_in: type[enum.Enum]) -> None:
    real = {member for member, each in classes[name]["attributes"].items() if each["kind"] == "member"}
    assert {each.name for each in stand_in} <= real, name


@pytest.mark.parametrize("which", [*LEAN, RTX])
def test_the_runner_s_stand_in(which: str) -> None:
    classes = inventory(which)["classes"]
    surface = fake_tensorrt.RTX_SURFACE if which == RTX else fake_tensorrt.SURFACE
    properties = fake_tensorrt.RTX_PROPERTIES if which == RTX else fake_tensorrt.PROPERTIES
    members_exist(classes, "ILogger.Severity", fake_tensorrt.Severity)
    for name, stand_in in surface.items():
        real = classes[name]["attributes"]
        if issubclass(stand_in, enum.Enum):
            members_exist(classes, name, stand_in)
            continue
        for attribute in properties.get(name, ()):
            assert real[attribute]["kind"] == "property", (name, attribute)
        for method, parameters in methods_of(stand_in).items():
            assert parameters in offered(real, method), (name, method)


@pytest.mark.parametrize("which", LEAN)
def test_the_builder_s_stand_in(which: str) -> None:
    """Its parameters have names of their own; only their number is compared."""
    classes = inventory(which)["classes"]
    members_exist(classes, "ILogger.Severity", fake_builder.Severity)
    compared = set()
    for name, stand_in in vars(fake_builder).items():
        if not isinstance(stand_in, type) or stand_in.__module__ != fake_builder.__name__:
            continue
        if issubclass(stand_in, enum.Enum):
            if name not in ("Enumeration", "Severity"):
                members_exist(classes, name, stand_in)
            continue
        compared.add(name)
        real = classes[BUILDER_CLASSES.get(name, name)]["attributes"]
        for method, parameters in methods_of(stand_in).items():
            assert len(parameters) in map(len, offered(real, method)), (name, method)
        for attribute, value in vars(stand_in).items():
            if not attribute.startswith("_") and not callable(value):
                assert real[attribute]["kind"] == "property", (name, attribute)
    assert {*BUILDER_CLASSES, "Builder", "EngineInspector", "OnnxParser", "Runtime"} <= compared
