"""Everything the Python module of TensorRT (or TensorRT-RTX) offers, as JSON: classes, members, signatures.

``python inventory.py tensorrt`` prints it. Bindings made with pybind11 write their signatures, with types, into the
docstrings; nothing is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
import sys
from typing import Any

PREFIX = re.compile(
    r"\b(?:tensorrt_bindings\.tensorrt|tensorrt_rtx_bindings\.tensorrt_rtx|nvinfer1::(?:v_1_0::)?|nvonnxparser::I)\.?"
)


def pieces(text: str) -> list[str]:
    """Splits at commas that are not inside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([<{") - (letter in ")]>}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def signatures(text: str | None, bound: bool) -> list[dict[str, Any]]:
    """All signatures in a docstring; `bound` leaves out the first parameter."""
    found = []
    for line in (text or "").splitlines():
        match = re.match(r"\s*(?:\d+\. )?\w*\((.*)\) -> (.+?)\s*$", line)
        if match is None or "*args" in match[1]:
            continue
        parameters = []
        for part in pieces(PREFIX.sub("", match[1]).replace("->", "")):
            name, _, rest = part.partition(":")
            kind, _, default = rest.partition(" = ")
            parameters.append([name.strip(), kind.strip(), bool(default)])
        found.append({"parameters": parameters[bound:], "returns": PREFIX.sub("", match[2])})
    return found


def python_signature(function: Any, bound: bool) -> list[dict[str, Any]]:
    """The signature of a function written in Python, without types."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[bound:]
    except (TypeError, ValueError):
        return []
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
        return []
    named = [[each.name, "", each.default is not each.empty] for each in parameters]
    return [{"parameters": named, "returns": ""}]


def known_signatures(function: Any, bound: bool) -> list[dict[str, Any]]:
    """The signatures of a function of either kind; the docstrings of Python's hold examples."""
    if inspect.isfunction(inspect.unwrap(getattr(function, "__func__", function))):
        return python_signature(function, bound)
    return signatures(function.__doc__, bound)


def attribute(owner: type, name: str) -> dict[str, Any]:
    value = inspect.getattr_static(owner, name)
    if isinstance(value, property):
        kind = signatures(getattr(value.fget, "__doc__", ""), bound=False)
        return {"kind": "property", "type": kind[0]["returns"] if kind else "", "settable": value.fset is not None}
    value = getattr(owner, name)
    if isinstance(value, owner):
        return {"kind": "member"}
    if isinstance(value, type):
        return {"kind": "class"}
    if callable(value):
        static = isinstance(inspect.getattr_static(owner, name), (staticmethod, classmethod))
        bound = not static and not inspect.ismethod(value)
        return {"kind": "method", "static": static, "signatures": known_signatures(value, bound)}
    return {"kind": "value"}


def fields_of(each: type) -> list[str]:
    """Fields that a class written in Python gives its objects."""
    try:
        return re.findall(r"self\.([a-z]\w*)\b", inspect.getsource(each))
    except (TypeError, OSError):
        return []


def classes_of(module: Any) -> dict[str, dict[str, Any]]:
    waiting = [(name, value) for name, value in vars(module).items() if isinstance(value, type)]
    found = {}
    while waiting:
        name, each = waiting.pop()
        names = [n for n in dir(each) if not n.startswith("_")]
        attributes = {n: attribute(each, n) for n in names}
        for field in fields_of(each):
            attributes.setdefault(field, {"kind": "value"})
        found[name] = {
            "attributes": attributes,
            "enumeration": hasattr(each, "__members__"),
            "signatures": signatures(each.__init__.__doc__, bound=True),
        }
        waiting += [(f"{name}.{n}", getattr(each, n)) for n in names if attributes[n]["kind"] == "class"]
    return found


def names_of(module: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in dir(module):
        value = getattr(module, name)
        if isinstance(value, type):
            found[name] = {"kind": "class"}
        elif inspect.ismodule(value):
            found[name] = {"kind": "module"}
        elif callable(value):
            found[name] = {"kind": "function", "signatures": known_signatures(value, bound=False)}
        else:
            found[name] = {"kind": "value", "type": type(value).__name__}
    return found


def described(module: Any) -> dict[str, Any]:
    return {"names": names_of(module), "classes": classes_of(module)}


def main(name: str) -> None:
    module = importlib.import_module(name)
    answer = {"module": name, "version": module.__version__, **described(module), "plugin": None}
    if name == "tensorrt" and importlib.util.find_spec("tensorrt.plugin") is not None:
        answer["plugin"] = described(importlib.import_module("tensorrt.plugin"))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
