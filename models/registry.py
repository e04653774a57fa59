"""The registry of model families: each family file registers presets, a builder, and how to recognise its weights."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ModelNameError
from .base import Restorer
from .origin import Assumption

__all__ = [
    "FAMILIES",
    "LIBRARIES",
    "Family",
    "Library",
    "build_preset",
    "find_preset",
    "preset_names",
    "register",
    "register_library",
]

State = Mapping[str, Tensor]
Hyperparameters = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        name: Registry name.
        network: The network class for given hyper-parameters.
        presets: Hyper-parameters by preset name.
        detect: True when a state dict is of this family.
        infer: Hyper-parameters read off the keys and shapes of a state dict.
        paper: Where the family is published.
        derived: Suffixes of state-dict keys that are derived from hyper-parameters and not loaded.
        options: By name of an option of `LoadOptions` that this family takes, what applies its value to a network in
            place; it raises a ValueError where the value or the network does not fit.
        filled: Called with a network and the checkpoint it was filled from: checks and takes over what the weights say
            besides, warns; None where they say nothing.
        assumed: What weights do not hold besides what is listed for every family, as `Assumption` by name, for given
            hyper-parameters as `infer` reads them; a reason for a guess of ``img_range`` or ``task`` among them.
        random_gains: Gain of random weights by suffix of a layer's name, where it is not that of `randomise`.
        released: By preset, the names of the files that the authors released, ``*`` for a number.
        releases: The page that has them; empty where nothing is published.
    """

    name: str
    network: Callable[[Mapping[str, Any]], Callable[..., Restorer]]
    presets: Mapping[str, Hyperparameters]
    detect: Callable[[State], bool]
    infer: Callable[[State], Hyperparameters]
    paper: str
    derived: tuple[str, ...] = ()
    options: Mapping[str, Callable[[Restorer, Any], None]] = field(default_factory=dict)
    filled: Callable[[Restorer, Path], None] | None = None
    assumed: Callable[[Hyperparameters], Mapping[str, Assumption]] = lambda found: {}
    random_gains: Mapping[str, float] = field(default_factory=dict)
    released: Mapping[str, str] = field(default_factory=dict)
    releases: str = ""

    def build(self, **hyperparameters: Any) -> Restorer:
        """Makes an untrained network (``name`` and ``task`` are among the hyper-parameters)."""
        return self.network(hyperparameters)(**hyperparameters)

    def published(self, preset: str) -> str:
        """Where trained weights of a preset can be had, in words; empty where the authors published none."""
        files = self.released.get(preset)
        return f"{files} of {self.releases}" if files else ""

    def complete(self, hyperparameters: Mapping[str, Any]) -> Hyperparameters:
        """The hyper-parameters together with the defaults of those left out."""
        parameters = inspect.signature(self.network(hyperparameters)).parameters
        return {name: p.default for name, p in parameters.items()} | dict(hyperparameters)


FAMILIES: dict[str, Family] = {}


@dataclass(frozen=True)
class Library:
    """Another package that recognises, builds and fills networks: asked once no family claims a checkpoint.

    Attributes:
        name: Its name, which is the family of its networks.
        detect: True when it knows the network of a state dict; False where it is not installed.
        load: The network of such a state dict, for inference; the path is for messages.
        hint: Why it knows no network of a state dict, and what can be done; both may be empty.
    """

    name: str
    detect: Callable[[State], bool]
    load: Callable[[State, Path], Restorer]
    hint: Callable[[State], tuple[str, str]]


LIBRARIES: dict[str, Library] = {}


def register_library(library: Library) -> Library:
    """Adds a library.

    Raises:
        ValueError: The name is that of a family or another library.
    """
    if library.name in FAMILIES or library.name in LIBRARIES:
        raise ValueError(f"registered twice: {library.name!r}")
    LIBRARIES[library.name] = library
    return library


def register(family: Family) -> Family:
    """Adds a family to the registry.

    Raises:
        ValueError: The family or one of its presets is already there.
    """
    taken = set(preset_names()) & set(family.presets)
    if family.name in FAMILIES or taken:
        raise ValueError(f"registered twice: family {family.name!r}, presets {sorted(taken)}")
    FAMILIES[family.name] = family
    return family


def preset_names() -> list[str]:
    """Names of all presets, family by family."""
    return [name for family in FAMILIES.values() for name in family.presets]


def find_preset(name: str) -> tuple[Family, Hyperparameters]:
    """The family and hyper-parameters of a preset.

    Raises:
        ModelNameError: No preset has this name; the message lists near ones.
    """
    for family in FAMILIES.values():
        if name in family.presets:
            return family, dict(family.presets[name])
    near = difflib.get_close_matches(name, preset_names(), n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}?" if near else "`agileir-export models` lists them."
    raise ModelNameError(f"No model preset is named {name!r}.", fix=hint)


def build_preset(name: str, **changes: Any) -> Restorer:
    """Builds the untrained network of a preset; `changes` override hyper-parameters (``top_k`` for example)."""
    family, hyperparameters = find_preset(name)
    return family.build(name=name, **{**hyperparameters, **changes})
