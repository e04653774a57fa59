"""Every use of TensorRT in the package exists in the bindings of TensorRT 11.4, 10.16 and 10.4 and of TensorRT-RTX.

The bindings are the real ones; mypy compares the package with stubs of them, see `bindings`.
"""

from __future__ import annotations

import ast
import re

import pytest

from .bindings import ALL, EARLY, MIDDLE, NEWEST, RTX, Specialised, complaints, inventory, met, offers, sources

WRONG = {
    "trt": {
        "trt.BuilderFlag.FP16": '"type[BuilderFlag]" has no attribute "FP16"',
        "trt.Bilder": 'Module has no attribute "Bilder"',
        "trt.Builder(1).create_netwerk()": '"Builder" has no attribute "create_netwerk"',
        "n = trt.Builder(1).create_network(); n.marc()": '"INetworkDefinition" has no attribute "marc"',
        "trt.ComputeCapability": 'Module has no attribute "ComputeCapability"',
        "trt.Runtime(1, 2, 3)": 'Too many arguments for "Runtime"',
        "class M(trt.IProgressMonitor):\n        def phase_begin(self, a: str): pass": "no base method was found",
        "class M(trt.ILogger):\n        def log(self, text: str): pass": 'incompatible with supertype "trt.ILogger"',
        "if hasattr(trt, 'Builder'):\n        trt.Nothing": 'Module has no attribute "Nothing"',
        "[trt.Runtime(1)][0].no": '"Runtime" has no attribute "no"',
        "match 1:\n        case 1: trt.Nothing": 'Module has no attribute "Nothing"',
        "with open(trt.Nothing) as r:\n        r.no": 'Module has no attribute "Nothing"',
        "for r in [trt.Runtime(1)]:\n        r.no": '"Runtime" has no attribute "no"',
        "(trt.Runtime(1) if trt else None).no": '"Runtime" has no attribute "no"',
        "(r := trt.Runtime(1)).no": '"Runtime" has no attribute "no"',
        "trt.BuilderFlag.__members__['TF32'].no": '"BuilderFlag" has no attribute "no"',
    },
    "trt, engine: Any": {
        "engine.bindings": '"ICudaEngine" has no attribute "bindings"',
        "engine.num_layers = 3": 'Property "num_layers" defined in "ICudaEngine" is read-only',
        "[engine.get_tensor_nam(i) for i in range(3)]": '"ICudaEngine" has no attribute "get_tensor_nam"',
        "engine.get_tensor_mode('x') == 1": 'left operand type: "TensorIOMode"',
        "engine()": '"ICudaEngine" not callable',
        "engine.get_tensor_name.x": 'has no attribute "x"',
    },
    "trt, config: Any": {
        "config.set_flag(3)": 'incompatible type "int"; expected "BuilderFlag"',
        "config.profiling_verbosity = 2": 'expression has type "int", variable has type "ProfilingVerbosity"',
    },
    "trt, context: Any": {
        "context.execute_async_v3()": 'Missing positional argument "stream_handle"',
        "context.set_input_shape('x', (1,), 2)": 'No overload variant of "set_input_shape"',
        "context.set_device_memory(memory=1, length=2)": 'Unexpected keyword argument "length"',
    },
    "trt, parser: Any": {"[parser.get_error(i) for i in range(1)][0].no": '"ParserError" has no attribute "no"'},
}
"""Parameters of a function -> its body -> what is said of it."""

BETWEEN = {
    "class A:\n    def __init__(self, trt):\n        self.r = trt.Runtime(1)\n    def h(self):\n        self.r.no": (
        '"Runtime" has no attribute "no"'
    ),
    "class C:\n    context: Any\ndef f(trt, c: C):\n    c.context.no": '"IExecutionContext" has no attribute "no"',
    "class L:\n    def f(self, trt):\n        self._trt = trt\n        self._trt.no": 'Module has no attribute "no"',
}
"""The same across functions and objects."""

RIGHT = {
    "if hasattr(trt, 'ComputeCapability'):\n        trt.ComputeCapability.SM86",
    "if not hasattr(trt, 'ComputeCapability'):\n        return\n    trt.ComputeCapability.SM86",
    "return trt.BuilderFlag.FP16 if 'FP16' in trt.BuilderFlag.__members__ else None",
    "return hasattr(trt, 'ComputeCapability') and trt.ComputeCapability.SM86",
    "return getattr(trt, 'ComputeCapability', None)",
    "if target.builds_without_gpu:\n        trt.ComputeCapability.SM86",
    "trt.Builder(target).create_builder_config().set_flag(trt.BuilderFlag.TF32)",
}
"""Bodies of functions with nothing wrong."""


def said_of(texts: list[str], which: str = NEWEST) -> list[list[str]]:
    answers = complaints(which, {text: ast.parse(f"from typing import Any\n{text}") for text in texts})
    return [answers[text] for text in texts]


def test_a_wrong_use_is_found() -> None:
    rows = {f"def f({names}):\n    {body}": words for names, table in WRONG.items() for body, words in table.items()}
    rows |= BETWEEN
    found = dict(zip(rows, said_of(list(rows)), strict=True))
    missed = {text: found[text] for text, words in rows.items() if not any(words in each for each in found[text])}
    assert not missed


def test_a_guarded_use_is_not() -> None:
    texts = [f"def f(trt, target: Any):\n    {body}" for body in sorted(RIGHT)]
    assert not (found := [each for each in said_of(texts) if each]), found


def test_versions_differ() -> None:
    weak, named = (f"def f(trt):\n    return trt.{name}" for name in ("BuilderFlag.FP16", "ComputeCapability.SM86"))
    counts = {which: [len(each) for each in said_of([weak, named], which)] for which in ALL}
    assert counts == {NEWEST: [1, 1], MIDDLE: [0, 1], EARLY: [0, 1], RTX: [counts[RTX][0], 0]}


def test_the_modules_that_take_tensorrt_are_found() -> None:
    assert {
        "engines/building/builder.py",
        "engines/tensorrt/execution.py",
        "engines/tensorrt/plan_loading.py",
        "engines/targets.py",
        "plugins/tensorrt_plugins.py",
    } <= set(sources())
    assert "engines/profiles.py" not in sources()


@pytest.mark.parametrize("which", ALL)
def test_every_use_exists(which: str) -> None:
    found = complaints(which, {name: ast.parse(text) for name, text in met(which).items()})
    assert not any(found.values()), found


def uses(tree: ast.Module, theirs: set[str]) -> list[ast.Attribute]:
    """Whatever looks like TensorRT's: attributes of its modules, and names that one of its classes has."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (("_" in node.attr and node.attr in theirs) or re.fullmatch(r"(self\._)?trtp?", ast.unparse(node.value)))
    ]


def test_a_misspelling_anywhere_is_found() -> None:
    """Every use in the package in turn is given a name that TensorRT does not have; none escapes the comparison."""
    missed: set[str] = set()
    found: set[str] = set()
    for which in (NEWEST, RTX):
        classes = inventory(which)["classes"].values()
        theirs = {name for each in classes for name in each["attributes"] if not name.startswith("_")}
        copies = {}
        for file, text in met(which).items():
            for index, use in enumerate(uses(ast.parse(text), theirs)):
                tree = ast.parse(text)
                uses(tree, theirs)[index].attr += "_misspelt"
                copies[f"{file}:{use.lineno}:{use.col_offset} {ast.unparse(use)}"] = tree
        for use, said in complaints(which, copies).items():
            (found if any("_misspelt" in each for each in said) else missed).add(use)
    assert len(found) > 60
    assert not missed - found, sorted(missed - found)


def test_what_is_asked_for_exists_somewhere() -> None:
    """A misspelt name in ``hasattr`` is never found, and what it guards never runs."""
    asked = set()
    for text in sources().values():
        specialised = Specialised(NEWEST)
        specialised.visit(ast.parse(text))
        asked |= specialised.asked
    assert asked
    unknown = {each for each in asked if not any(offers(which, *each) for which in ALL)}
    assert not unknown, f"no TensorRT has {sorted(unknown)}"


def test_names_are_written_out() -> None:
    """Names of TensorRT's are not made at run time, and flags are not numbers, which differ between versions."""
    for file, text in sources().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr", "setattr"):
                assert isinstance(node.args[1], ast.Constant), f"{file}:{node.lineno}"
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
                assert not isinstance(node.right, ast.Constant), f"{file}:{node.lineno}"


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
        for each in inventory(which)["classes"].values()
        if each["enumeration"]
        for name, found in each["attributes"].items()
        if found["kind"] == "member"
    }
    files = ("engines/building/builder.py", "engines/tensorrt/plan_loading.py")
    written = set().union(*(upper_case_texts(ast.parse(sources()[file])) for file in files))
    assert {"STRONGLY_TYPED", "AMPERE_PLUS"} <= written
    assert written <= known, f"no enumeration has {sorted(written - known)}"
