"""Every use of TensorRT in the package exists in the bindings of TensorRT 11.4 and 10.16 and of TensorRT-RTX.

The uses are found in the source, whichever module they are in: see `symbol_walk`. The bindings are the real ones.
"""

from __future__ import annotations

import ast
import re

import pytest

from .package_walk import ALL, RTX, answer, inventory, package_walks, sources


def test_the_modules_that_take_tensorrt_are_found() -> None:
    assert {
        "engines/building/builder.py",
        "engines/tensorrt/execution.py",
        "engines/tensorrt/plan_loading.py",
        "engines/targets.py",
    } <= set(sources())
    assert "plugins/tensorrt_plugins.py" in sources()
    assert "engines/profiles.py" not in sources()


@pytest.mark.parametrize("which", ALL)
def test_every_use_exists(which: str) -> None:
    problems = [problem for walk in package_walks(which) for problem in walk.problems]
    assert not problems, "\n".join(problems)


def test_the_walk_reaches_what_matters() -> None:
    """Were the walk to lose an object on the way, its uses would be missing here."""
    uses = {use for walk in package_walks("11.4.0.106") for use in walk.uses}
    assert {
        "Builder.create_network",
        "IBuilderConfig.set_flag",
        "ICudaEngine.get_tensor_dtype",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_device_memory",
        "IExecutionContext.set_tensor_address",
        "INetworkDefinition.get_input",
        "IOptimizationProfile.set_shape",
        "ParserError.desc",
        "IPluginRegistry.get_creator",
        "ITensor.shape",
        "ITimingCache.serialize",
        "OnnxParser.parse",
        "Runtime.deserialize_cuda_engine",
        "trt.ExecutionContextAllocationStrategy",
        "trtp.KernelLaunchParams",
        "plugin.KernelLaunchParams.grid_x",
    } <= uses
    rtx = {use for walk in package_walks(RTX) for use in walk.uses}
    assert {"IBuilderConfig.set_compute_capability", "IRuntimeConfig.cuda_graph_strategy"} <= rtx
    assert not {"IBuilderConfig.set_compute_capability", "IRuntimeConfig.cuda_graph_strategy"} & uses


def test_no_use_escapes() -> None:
    """Whatever looks like TensorRT's (an attribute whose name one of its classes has) was compared with it."""
    theirs = {
        name
        for which in ALL
        for each in inventory(which).classes.values()
        for name in each["attributes"]
        if "_" in name
    }
    compared: dict[str, set[tuple[int, str]]] = {}
    for which in ALL:
        for walk in package_walks(which):
            compared.setdefault(walk.file, set()).update(walk.places)
    escaped = [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for file, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in theirs and (node.lineno, node.attr) not in compared[file]
    ]
    assert not escaped, escaped


def test_what_is_asked_for_exists_somewhere() -> None:
    """A misspelt name in ``hasattr`` is never found, and what it guards never runs."""
    asked = {each for which in ALL for walk in package_walks(which) for each in walk.optional}
    known = {
        (owner, name)
        for owner, name in asked
        for which in ALL
        if inventory(which).has((owner,) if owner in ("module", "plugin") else ("object", owner), name)
    }
    assert asked
    assert asked <= known, f"no TensorRT has {sorted(asked - known)}"


def upper_case_texts(tree: ast.Module) -> set[str]:
    """Texts that may name a member of an enumeration; not the names a module exports."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    defined = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return {text for text in texts if re.fullmatch(r"[A-Z][A-Z0-9_]{3,}", text)} - defined


def test_names_of_members_exist_somewhere() -> None:
    """Members that are looked up in ``__members__`` by a text."""
    known = {
        name
        for which in ALL
        for each in answer(which)["classes"].values()
        if each["enumeration"]
        for name, found in each["attributes"].items()
        if found["kind"] == "member"
    }
    written = set().union(
        *(upper_case_texts(sources()[f"engines/{name}.py"]) for name in ("building/builder", "tensorrt/plan_loading"))
    )
    assert {"STRONGLY_TYPED", "AMPERE_PLUS"} <= written
    assert written <= known, f"no enumeration has {sorted(written - known)}"
