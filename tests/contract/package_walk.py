"""The package's walks: the real bindings' inventories, and the modules of the package that take TensorRT."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agileir_export

from .lean_tensorrt import MIDDLE, NEWEST, make_or_skip
from .symbol_kinds import Inventory
from .symbol_walk import Walk

ROOT = Path(agileir_export.__file__).resolve().parent
PROGRAM = Path(__file__).with_name("inventory.py")
LEAN = (NEWEST, MIDDLE)
RTX = "rtx"
ALL = (*LEAN, RTX)

ROOMS = ("engines", "plugins", "calib", "parity", "restore", "bundle", "commands", "export")
TENSORRT_ONLY = ("plugins",)
"""Rooms whose code never meets TensorRT-RTX, which has no plugins."""


@functools.cache
def answer(which: str) -> dict[str, Any]:
    """What the module offers; each is imported in a process of its own."""
    environment = None
    if which == RTX:
        if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
            pytest.skip("TensorRT-RTX is not installed")
    else:
        environment = make_or_skip(which).variables()
    module = "tensorrt_rtx_bindings" if which == RTX else "tensorrt"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), module], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@functools.cache
def inventory(which: str) -> Inventory:
    return Inventory.of(answer(which))


def takes_tensorrt(tree: ast.Module) -> bool:
    """Whether a module receives, makes or keeps one of NVIDIA's modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg in ("trt", "trtp"):
            return True
        if isinstance(node, ast.Name) and node.id in ("trt", "trtp") and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.Attribute) and node.attr == "_trt":
            return True
        if isinstance(node, ast.Import) and any(alias.name.startswith("tensorrt") for alias in node.names):
            return True
    return False


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Every module of the package that takes TensorRT, by its path from the root."""
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
    }
    return {name: tree for name, tree in trees.items() if takes_tensorrt(tree)}


def walked(which: str, modules: dict[str, ast.Module]) -> list[Walk]:
    """The walks over some modules, which know of each other what functions return."""
    returned: dict[str, Any] = {}
    for _ in range(2):
        walks = [Walk(inventory(which), name, returned) for name in modules]
        for walk in walks:
            walk.module(modules[walk.file])
    return walks


def package_walks(which: str) -> list[Walk]:
    met = {name: tree for name, tree in sources().items() if which != RTX or not name.startswith(TENSORRT_ONLY)}
    return walked(which, met)
