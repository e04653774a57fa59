"""The facts a thing depends on, as the cache keys and compares them: a JSON object, nested as its writer likes."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ..version import __version__

__all__ = [
    "NETWORK",
    "Difference",
    "Facts",
    "differences",
    "facts_key",
    "installed_version",
    "library_versions",
    "likeness",
    "package_digest",
    "processor_name",
    "program_facts",
]

DISTRIBUTION = "agileir-export"
BESIDE = ("spandrel", "torchvision", "triton")
"""What builds networks and compiles kernels, where it is installed."""

Facts = Mapping[str, Any]
"""A JSON object: text, numbers, booleans, null, and lists and objects of these."""

NETWORK = "network"
"""The fact that names the network; engines of one network are worth comparing."""

ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """A fact in which two engines differ.

    Attributes:
        field: Its name; a field of an object in a list is ``profiles.0.minimum``.
        first: Its value in the first.
        second: Its value in the second; ``"(absent)"`` where one has no such fact.
    """

    field: str
    first: Any
    second: Any


def facts_key(facts: Facts) -> str:
    """SHA-256, in hexadecimal, of all facts; the order of an object's fields does not matter.

    Raises:
        TypeError: A value is nothing JSON knows.
        ValueError: A number is NaN or infinite.
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def program_facts() -> Facts:
    """The program as facts of whatever it makes: every file of the package, every library it is installed with."""
    return {"package_version": __version__, "program": package_digest(), "libraries": library_versions()}


def package_digest(root: Path | None = None) -> str:
    """SHA-256, in hexadecimal, of all files of the package by name and content: code, weights, pictures.

    Args:
        root: Folder of the package; that of this one where None. What lies in it without being a part (tests,
            environments) does not count.
    """
    root = root or Path(__file__).parents[1]
    rooms = sorted(path.parent for path in root.glob("*/__init__.py"))
    below = (file for room in rooms for file in sorted(room.rglob("*")) if file.is_file())
    digest = hashlib.sha256()
    for file in (*sorted(root.glob("*.py")), *below):
        if file.suffix != ".pyc":
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(root).as_posix()}\0{content}\0".encode())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of the libraries that the package is installed with, and of those `BESIDE` it."""
    required = [each for each in metadata.requires(DISTRIBUTION) or () if "extra ==" not in each]
    names = {re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0] for requirement in required}
    versions = {name: installed_version(name) for name in sorted({*names, *BESIDE})}
    return {name: version for name, version in versions.items() if version}


def installed_version(name: str) -> str:
    """Version of a distribution; empty where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def processor_name() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named: dict[str, Any] = dict(line.split(":", 1) for line in lines if ":" in line)
    return next((named[key].strip() for key in named if key.strip() == "model name"), platform.processor())


def differences(first: Facts, second: Facts) -> list[Difference]:
    """All facts in which two engines differ, by name."""
    one, two = _flat(first), _flat(second)
    return [
        Difference(name, one.get(name, ABSENT), two.get(name, ABSENT))
        for name in sorted(one.keys() | two.keys())
        if name not in one or name not in two or one[name] != two[name]
    ]


def likeness(first: Facts, second: Facts) -> tuple[bool, int]:
    """How alike two engines are, for sorting: first whether the network is the same, then the number of equal facts."""
    one, two = _flat(first), _flat(second)
    equal = sum(name in two and two[name] == value for name, value in one.items())
    return first.get(NETWORK) == second.get(NETWORK), equal


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """The leaves of nested JSON by dotted name; a list without objects is a leaf, and so is an empty object."""
    if isinstance(value, Mapping) and value:
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        items = [(str(number), inner) for number, inner in enumerate(value)]
    else:
        return {name: list(value) if isinstance(value, tuple) else value}
    leaves: dict[str, Any] = {}
    for key, inner in items:
        leaves |= _flat(inner, f"{name}.{key}" if name else key)
    return leaves
