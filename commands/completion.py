"""Tab completion of what only this package knows: names of presets and of profiles."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    import click

__all__ = ["complete_model", "complete_profile"]


def complete_model(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Presets that begin so, and files."""
    del ctx, parameter
    names = [] if any(mark in incomplete for mark in "./\\~") else _preset_names()
    return [*_beginning(names, incomplete), CompletionItem(incomplete, type="file")]


def complete_profile(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Profiles that begin so."""
    from ..engines.profiles import PRESETS

    del ctx, parameter
    return _beginning(PRESETS, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _preset_names() -> list[str]:
    """The names of all presets, from the cache: the networks that have them load PyTorch, which takes seconds."""
    from ..cache import NAMES, Cache, program_facts

    facts, cache = {"kind": "presets", **program_facts()}, Cache(drawer=NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a cache that cannot be written to: nobody asked for it
        if (entry := cache.find(facts)) is not None:
            return list(map(str, entry.details["names"]))
        from ..models import list_models

        names = [model.name for model in list_models()]
        cache.store(facts, b"", {"names": names})
    return names
