"""Re-exports that import their module on first use (PEP 562), so that light rooms do not load heavy ones."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

__all__ = ["lazy_attributes"]


def lazy_attributes(package: str, homes: Mapping[str, str], prepare: tuple[str, ...] = ()) -> Callable[[str], object]:
    """A module ``__getattr__`` for a package.

    Args:
        package: ``__name__`` of the package.
        homes: Relative module (``".registry"``) by public name.
        prepare: Relative modules to import before any name is looked up.
    """

    def attribute(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        for module in prepare:
            importlib.import_module(module, package)
        value: object = getattr(importlib.import_module(homes[name], package), name)
        return value

    return attribute
