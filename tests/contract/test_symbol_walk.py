"""The walk finds wrong uses of TensorRT, and takes guarded ones as what they are; see `symbol_walk`."""

from __future__ import annotations

import ast

import pytest

from .package_walk import RTX, sources, walked

WRONG = {
    "trt": {
        "trt.BuilderFlag.FP16": "there is no BuilderFlag.FP16",
        "trt.Bilder": "there is no trt.Bilder",
        "trt.Builder(1).create_netwerk()": "there is no Builder.create_netwerk",
        "n = trt.Builder(1).create_network(); n.marc()": "there is no INetworkDefinition.marc",
        "getattr(trt.BuilderFlag, str(1))": "the name must be written out",
        "trt.ComputeCapability": "there is no trt.ComputeCapability",
        "trt.Runtime(1, 2, 3)": "no signature of Runtime",
        "class M(trt.IProgressMonitor):\n        def phase_begin(self, a: str): pass": "calls no method 'phase_begin'",
        "class M(trt.ILogger):\n        def log(self, text: str): pass": "ILogger.log receives 2 arguments, not 1",
        "if hasattr(trt, 'Builder'):\n        trt.Nothing": "there is no trt.Nothing",
        "1 << 3": "a flag is written as a number",
        "[trt.Runtime(1)][0].no": "there is no Runtime.no",
        "match 1:\n        case 1: trt.Nothing": "there is no trt.Nothing",
        "with trt.Runtime(1) as r:\n        r.no": "there is no Runtime.no",
        "for r in [trt.Runtime(1)]:\n        r.no": "there is no Runtime.no",
        "(trt.Runtime(1) if trt else None).no": "there is no Runtime.no",
        "(r := trt.Runtime(1)).no": "there is no Runtime.no",
        "trt.BuilderFlag.__members__['TF32'].no": "there is no BuilderFlag.no",
    },
    "trt, engine: Any": {
        "engine.bindings": "there is no ICudaEngine.bindings",
        "engine.num_layers = 3": "ICudaEngine.num_layers cannot be assigned",
        "[engine.get_tensor_nam(i) for i in range(3)]": "there is no ICudaEngine.get_tensor_nam",
        "engine.get_tensor_mode('x') == 1": "a number in place of a name of TensorIOMode",
        "engine()": "an object of ICudaEngine is called",
        "engine.get_tensor_name.x": "is a function and has no attribute 'x'",
    },
    "trt, config: Any": {
        "config.set_flag(3)": "a number in place of a name of BuilderFlag",
        "config.profiling_verbosity = 2": "a number in place of a name of ProfilingVerbosity",
    },
    "trt, context: Any": {
        "context.execute_async_v3()": "no signature of IExecutionContext.execute_async_v3",
        "context.set_input_shape('x', (1,), 2)": "no signature of IExecutionContext.set_input_shape",
        "context.set_device_memory(memory=1, length=2)": "no signature of IExecutionContext.set_device_memory",
    },
    "trt, thing: Any": {"pass": "nothing says what 'thing' of type Any is"},
    "trt, parser: Any": {"[parser.get_error(i) for i in range(1)][0].no": "there is no ParserError.no"},
}
"""Parameters of a function -> its body -> what is said of it."""

BETWEEN = {
    "def g(trt):\n    return trt.Runtime(0)\ndef f(trt):\n    g(trt).no": "there is no Runtime.no",
    "class A:\n    def g(self, trt):\n        self.r = trt.Runtime(1)\n    def h(self):\n        self.r.no": "e.no",
    "class C:\n    context: Any\ndef f(trt, c: C):\n    c.context.no": "there is no IExecutionContext.no",
    "class L:\n    def f(self, trt):\n        self._trt = trt\n        self._trt.no": "there is no trt.no",
}
"""The same across functions and objects."""

RIGHT = {
    "if hasattr(trt, 'ComputeCapability'):\n        trt.ComputeCapability.SM86",
    "if not hasattr(trt, 'ComputeCapability'):\n        return\n    trt.ComputeCapability.SM86",
    "return trt.BuilderFlag.FP16 if 'FP16' in trt.BuilderFlag.__members__ else None",
    "return hasattr(trt, 'ComputeCapability') and trt.ComputeCapability.SM86",
    "return getattr(trt, 'ComputeCapability', None)",
    "if target.builds_without_gpu:\n        trt.ComputeCapability.SM86",
    "trt.Builder(1).create_builder_config().set_flag(trt.BuilderFlag.TF32)",
}
"""Bodies of functions with nothing wrong."""


def complaints(text: str, which: str = "11.4.0.106") -> list[str]:
    return [problem for walk in walked(which, {"snippet.py": ast.parse(text)}) for problem in walk.problems]


@pytest.mark.parametrize(
    ("text", "words"),
    [(f"def f({names}):\n    {body}", words) for names, table in WRONG.items() for body, words in table.items()]
    + list(BETWEEN.items()),
)
def test_a_wrong_use_is_found(text: str, words: str) -> None:
    assert any(words in problem for problem in complaints(text)), complaints(text)


@pytest.mark.parametrize("body", sorted(RIGHT))
def test_a_guarded_use_is_not(body: str) -> None:
    assert complaints(f"def f(trt, target: int):\n    {body}") == []


def test_versions_differ() -> None:
    weak = "def f(trt):\n    return trt.BuilderFlag.FP16"
    assert complaints(weak, "10.16.1.11") == []
    assert len(complaints(weak, "11.4.0.106")) == 1
    named = "def f(trt):\n    return trt.ComputeCapability.SM86"
    assert complaints(named, RTX) == []
    assert len(complaints(named, "10.16.1.11")) == 1


@pytest.mark.parametrize(
    "file", ["engines/building/builder.py", "engines/tensorrt/execution.py", "engines/tensorrt/plan_loading.py"]
)
def test_a_misspelling_anywhere_is_found(file: str) -> None:
    """Every use in the module in turn is given a name that TensorRT does not have."""
    tree = sources()[file]
    (walk,) = walked("11.4.0.106", {file: tree})
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and (n.lineno, n.attr) in walk.places]
    assert len(uses) > 10
    missed = []
    for use in uses:
        name, use.attr = use.attr, f"{use.attr}_misspelt"
        if not any("_misspelt" in problem for problem in walked("11.4.0.106", {file: tree})[0].problems):
            missed.append(f"{file}:{use.lineno}: {name}")
        use.attr = name
    assert not missed
