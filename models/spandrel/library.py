"""The library itself: imported where it is asked for only, and what it knows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from ...cache.facts import installed_version
from ...errors import EnvironmentProblem
from ...quiet import quiet

__all__ = [
    "INSTALL",
    "ForeignArchitecture",
    "architecture_of",
    "architectures",
    "hint",
    "installed",
    "load_spandrel",
    "recognises",
]

INSTALL = "pip install 'agileir-export[spandrel]'"


@dataclass(frozen=True)
class ForeignArchitecture:
    """One line of the list of what spandrel knows.

    Attributes:
        name: Its id, such as ``"HAT"``.
        title: As its authors write it.
    """

    name: str
    title: str


def installed() -> bool:
    """Whether spandrel is installed; it is not imported."""
    return find_spec("spandrel") is not None


@cache
def load_spandrel() -> Any:
    """The module `spandrel`.

    Raises:
        EnvironmentProblem: It is not installed, or cannot be imported: as a rule because torchvision, which it needs,
            is of another release than PyTorch.
    """
    if not installed():
        raise EnvironmentProblem(f"spandrel is not installed in {sys.prefix}.", fix=INSTALL)
    try:
        with quiet():
            import spandrel
    except Exception as error:  # torchvision of another release raises RuntimeError, AttributeError or ImportError
        versions = {name: installed_version(name) or "none" for name in ("spandrel", "torch", "torchvision")}
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        raise EnvironmentProblem(
            f"spandrel cannot be imported: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            why=f"Installed are {told}; a release of torchvision works with one release of PyTorch only.",
            fix="Install both together, from one place: pip install --upgrade torch torchvision spandrel",
        ) from error
    return spandrel


def architectures() -> list[ForeignArchitecture]:
    """The networks of spandrel's main registry (permissive licences only), by name.

    Raises:
        EnvironmentProblem: See `load_spandrel`.
    """
    found = [entry.architecture for entry in load_spandrel().MAIN_REGISTRY]
    return sorted((ForeignArchitecture(each.id, each.name) for each in found), key=lambda each: each.name.lower())


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether spandrel takes a state dict for one of its networks; False where it is not installed."""
    return installed() and architecture_of(state) is not None


def architecture_of(state: Mapping[str, Tensor]) -> Any:
    """The architecture that spandrel takes for that of a state dict; None where it knows none."""
    entries = load_spandrel().MAIN_REGISTRY.architectures("detection")
    return next((entry.architecture for entry in entries if _detects(entry, state)), None)


def _detects(entry: Any, state: Mapping[str, Tensor]) -> bool:
    """Whether spandrel takes it for one, and a key that tells it is of a convolution: two keys tell some."""
    try:
        told = [state[key] for key in _keys(getattr(entry.architecture, "_detect", None)) if key in state]
        return bool(entry.detect(state)) and (not told or any(tensor.ndim == 4 for tensor in told))
    except Exception:  # it looks at shapes, too, and takes them for those of its network
        return False


def hint(state: Mapping[str, Tensor]) -> tuple[str, str]:
    """Why spandrel knows no network of a state dict, and what can be done; see `Library.hint`."""
    if not installed():
        return "spandrel, which knows some forty other networks, is not installed.", f"Install it: {INSTALL}"
    near = _nearest(state)
    told = f" Nearest are {', '.join(near)}." if near else ""
    return f"Nor is it a network that spandrel {installed_version('spandrel')} knows.{told}", ""


def _nearest(state: Mapping[str, Tensor], most: int = 2) -> list[str]:
    """The networks nearest to a state dict, with half of their keys at least, and how many of them it has."""
    found = []
    for entry in load_spandrel().MAIN_REGISTRY:
        condition: Any = getattr(entry.architecture, "_detect", None)
        keys = _keys(condition)
        present = sum(key in state for key in keys)
        if keys and 2 * present >= len(keys):
            needed = (key for key in condition._keys if isinstance(key, str) and key not in state)
            lacking = next((f", not {key}" for key in needed if condition._kind == "all"), "")
            told = f"{entry.architecture.id} ({present} of the {len(keys)} keys that tell it{lacking})"
            found.append((present / len(keys), len(keys), told))
    return [told for *_, told in sorted(found, reverse=True)[:most]]


def _keys(condition: Any) -> set[str]:
    """The keys in a condition of spandrel's, alternatives included; none where it is of another kind."""
    if isinstance(condition, str):
        return {condition}
    return set().union(*(_keys(part) for part in getattr(condition, "_keys", ())))
