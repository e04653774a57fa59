"""The package's use of TensorRT, checked by mypy against stubs of the real bindings.

The package takes TensorRT's module as an argument ``trt`` of type ``Any``, because there are several. In the copies
that are checked, that name is a module: the stub written from what `inventory.py` printed of one version. Arguments,
fields and results of type ``Any`` get the type that `OBJECTS` says, and tests with ``hasattr`` and ``__members__`` are
replaced by their value, so that what cannot run with a version is not compared with it.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import keyword
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import agileir_export

from .lean_tensorrt import EARLY, MIDDLE, NEWEST, answer, make_or_skip

ROOT = Path(agileir_export.__file__).resolve().parent
LEAN = (NEWEST, MIDDLE)
RTX = "rtx"
ALL = (*LEAN, EARLY, RTX)

OBJECTS = {
    "build_half": "trt.IPluginV3OneBuild",
    "builder": "trt.Builder",
    "config": "trt.IBuilderConfig",
    "context": "trt.IExecutionContext",
    "core": "trt.IPluginV3OneCore",
    "creator": "trt.IPluginCreatorV3One",
    "engine": "trt.ICudaEngine",
    "expr_builder": "trt.IExprBuilder",
    "logger": "trt.ILogger",
    "network": "trt.INetworkDefinition",
    "parser": "trt.OnnxParser",
    "plan": "trt.IHostMemory",
    "runtime": "trt.Runtime",
    "severity": "trt.ILogger.Severity",
    "size": "trtp.ShapeExpr",
    "tensors": "list[trtp.TensorDesc]",
    "timing_cache": "trt.ITimingCache",
}
"""What something of type ``Any`` is, by its name without leading underscores."""

RETURNS = {"get_plugin_registry": "IPluginRegistry"}
"""What the docstrings do not say."""

CONVERTED = ("Dims", "PluginFieldCollection_")
"""Classes in whose place others are taken: tuples, collections by their name without the underscore."""

ONLY = {"builds_without_gpu": RTX}
"""Properties of a target that decide a branch, and the target for which they are true."""

MESSAGE = re.compile(r"^(\w+)\.py:(\d+): error: ((?!.*\b__signature__\b).*)  \[\S+\]$", re.M)

OF_EVERY_CLASS = """\
def __buffer__(self, flags: int, /) -> memoryview: ...
def __getitem__(self, index: int, /) -> Any: ...
def __int__(self) -> int: ...
def __len__(self) -> int: ...
def __setitem__(self, index: int, value: Any, /) -> None: ...
"""
"""What the bindings write no signature of: buffers, shapes and members of enumerations."""


@functools.cache
def inventory(which: str) -> dict[str, Any]:
    """What the module offers; each is imported in a process of its own."""
    environment = None
    if which == RTX:
        if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
            pytest.skip("TensorRT-RTX is not installed")
    else:
        environment = make_or_skip(which).variables()
    module = "tensorrt_rtx_bindings" if which == RTX else "tensorrt"
    return answer("inventory.py", module, environment=environment)


# ---- stubs ----


def stub(names: Mapping[str, Any], classes: Mapping[str, Any]) -> str:
    """A module of TensorRT's as a stub; types that are not classes of its own are ``Any``."""

    def typed(text: str) -> str:
        wrapped = re.fullmatch(r"(?:(list)|Optional|collections\.abc\.Sequence)\[(.*)\]", text.strip())
        if wrapped is not None:
            return f"list[{typed(wrapped[2])}]" if wrapped[1] else typed(wrapped[2])
        return text if text in classes and text not in CONVERTED else "Any"

    def function(name: str, entry: Mapping[str, Any], first: str) -> list[str]:
        lines = []
        for signature in entry["signatures"]:
            parts, optional = [first] if first else [], False
            for label, kind, default in signature["parameters"]:
                optional = optional or default
                parts.append(f"{label}{'_' * keyword.iskeyword(label)}: {typed(kind)}{' = ...' * optional}")
            lines += ["@overload"] * (len(entry["signatures"]) > 1) + ["@staticmethod"] * bool(entry.get("static"))
            lines.append(f"def {name}({', '.join(parts)}) -> {typed(RETURNS.get(name, signature['returns']))}: ...")
        return lines or [f"def {name}(self, *args: Any, **kwargs: Any) -> Any: ..."]

    def body(name: str) -> list[str]:
        lines = [*OF_EVERY_CLASS.splitlines(), "name: str"]
        if classes[name]["enumeration"]:
            lines.append(f"__members__: dict[str, {name}]")
        initial = function("__init__", classes[name], "self")
        lines += [re.sub(r"-> \w+: ", "-> None: ", line) for line in initial]
        for label, entry in classes[name]["attributes"].items():
            if entry["kind"] == "class":
                lines += [f"class {label}:", *(f"    {line}" for line in body(f"{name}.{label}"))]
            elif entry["kind"] == "method":
                lines += function(label, entry, "" if entry["static"] else "self")
            elif entry["kind"] == "property" and not entry["settable"]:
                lines += ["@property", f"def {label}(self) -> {typed(entry['type'])}: ..."]
            else:
                lines.append(f"{label}: {name if entry['kind'] == 'member' else typed(entry.get('type', ''))}")
        return lines

    lines = ["# mypy: ignore-errors", "from typing import Any, overload"]
    for name, entry in names.items():
        if entry["kind"] == "class":
            lines += [f"class {name}:", *(f"    {line}" for line in body(name))]
        elif entry["kind"] == "function":
            lines += function(name, entry, "") if entry["signatures"] else [f"{name}: Any"]
        else:
            lines.append(f"{name}: {typed(entry.get('type', ''))}")
    return "\n".join(lines) + "\n"


# ---- copies of the package's modules ----


class Specialised(ast.NodeTransformer):
    """Makes a module's source one for a single TensorRT; collects the names whose presence it asks for."""

    def __init__(self, which: str) -> None:
        self.which = which
        self.asked: set[tuple[str, str]] = set()

    def has(self, owner: str, name: str) -> ast.Constant:
        self.asked.add((owner, name))
        return ast.Constant(offers(self.which, owner, name))

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        place = next((i for i, each in enumerate(node.body) if isinstance(each, (ast.Import, ast.ImportFrom))), 0)
        future = isinstance(node.body[place], ast.ImportFrom) and ast.unparse(node.body[place]).startswith("from __fut")
        node.body.insert(place + future, ast.parse("import trt, trtp, typing").body[0])
        return ast.fix_missing_locations(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.level:
            node.module, node.level = f"agileir_export.{node.module or ''}".rstrip("."), 0
        return node

    def annotation(self, name: str, given: ast.expr | None) -> ast.expr | None:
        if (given is None or ast.unparse(given) == "Any") and name.lstrip("_") in OBJECTS:
            return ast.parse(OBJECTS[name.lstrip("_")], mode="eval").body
        return given

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = self.annotation(node.arg, node.annotation)
        node.arg = f"_{node.arg}" if node.arg in ("trt", "trtp") else node.arg
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = self.annotation(node.name, node.returns)
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        for each in node.body if any(ast.unparse(base).startswith("trt.") for base in node.bases) else []:
            if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                each.decorator_list.append(ast.parse("typing.override", mode="eval").body)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        if isinstance(node.target, ast.Name):
            node.annotation = self.annotation(node.target.id, node.annotation) or node.annotation
        self.generic_visit(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if node.id in ("trt", "trtp") and isinstance(node.ctx, ast.Store):
            node.id = f"_{node.id}"
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if node.attr == "_trt" and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Name("trt", ast.Load()), node)
        if node.attr in ONLY:
            return ast.copy_location(ast.Constant(ONLY[node.attr] == self.which), node)
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr") and len(node.args) > 1:
            owner, name = ast.unparse(node.args[0]), node.args[1]
            if re.match(r"trtp?\b", owner) and isinstance(name, ast.Constant):
                found = self.has(owner, str(name.value))
                if node.func.id == "hasattr":
                    return ast.copy_location(found, node)
                value = ast.Attribute(node.args[0], str(name.value), ast.Load())
                return ast.copy_location(value if found.value else node.args[-1], node)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        owner = re.fullmatch(r"(trt\..*)\.__members__", ast.unparse(node.comparators[0]))
        if owner is not None and isinstance(node.left, ast.Constant) and isinstance(node.ops[0], ast.In):
            return ast.copy_location(self.has(owner[1], str(node.left.value)), node)
        return node


def offers(which: str, owner: str, name: str) -> bool:
    """Whether ``trt``, ``trtp`` or a class of them (``trt.BuilderFlag``) has a name."""
    module, _, path = owner.partition(".")
    found = inventory(which)["plugin"] or {"names": {}, "classes": {}} if module == "trtp" else inventory(which)
    return name in (found["classes"].get(path, {"attributes": {}})["attributes"] if path else found["names"])


@functools.cache
def sources() -> dict[str, str]:
    """Every module of the package that receives, makes or keeps TensorRT's module, by its path from the root."""
    rooms = ("engines", "plugins", "calib", "parity", "restore", "bundle", "commands", "export", "conversion")
    texts = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for room in rooms
        for path in sorted((ROOT / room).rglob("*.py"))
    }
    takes = re.compile(r"\btrtp?: Any|^\s*trtp?\b.* = |\b_trt\b|^\s*import tensorrt", re.M)
    return {name: text for name, text in texts.items() if takes.search(text)}


def met(which: str) -> dict[str, str]:
    """The modules that can meet a TensorRT; some take plugins in Python only."""
    return {name: text for name, text in sources().items() if which in LEAN or name != "plugins/tensorrt_plugins.py"}


@functools.cache
def cache_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mypy-of-bindings-")


def complaints(which: str, modules: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """What mypy says of each of some modules (their trees are changed), with one TensorRT."""
    api = pytest.importorskip("mypy.api")
    found = inventory(which)
    with tempfile.TemporaryDirectory() as folder:
        plugin = found["plugin"] or {"names": {}, "classes": {}}
        for name, part in (("trt", found), ("trtp", plugin)):
            Path(folder, f"{name}.pyi").write_text(stub(part["names"], part["classes"]), encoding="utf-8")
        files = {f"module_{index}": name for index, name in enumerate(modules)}
        for file, name in files.items():
            text = ast.unparse(Specialised(which).visit(modules[name]))
            Path(folder, f"{file}.py").write_text(text, encoding="utf-8")
        options = ["--config-file=", "--check-untyped-defs", "--no-strict-optional", "--strict-equality"]
        options += ["--ignore-missing-imports", "--follow-imports=skip", "--python-version=3.13", "--no-error-summary"]
        options += [f"--cache-dir={cache_folder().name}", "--hide-error-context", "--no-color-output"]
        paths = [str(Path(folder, f"{file}.py")) for file in files]
        paths += [str(Path(folder, f"{stub}.pyi")) for stub in ("trt", "trtp")]
        said, failed, _ = api.run([*options, *paths])
    answers: dict[str, list[str]] = {name: [] for name in modules}
    for file, line, text in MESSAGE.findall(said.replace(f"{folder}/", "")):
        answers[files[file]].append(f"{files[file]}:{line}: {text} ({found['module']} {found['version']})")
    assert not failed and ".pyi" not in said, failed or said
    return answers
