"""The verb ``cache``: which built engines are kept, why one is not among them, and throwing them away."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, OutputError
from .options import common_options
from .terminal import Terminal

if TYPE_CHECKING:
    from ..cache.facts import Facts
    from ..cache.store import Cache, CacheEntry

__all__ = ["cache"]

SHOWN = 12
"""Characters of a key or digest that are shown; any unambiguous beginning of a key is understood."""

SECONDS_A_DAY = 86400


@click.group(short_help="List, compare and clear built engines that are kept.")
@common_options
def cache() -> None:
    """Built engines are kept, so that building the same one again takes no time.

    They lie in $AGILEIR_EXPORT_CACHE, or else in agileir-export in the user's cache folder ($XDG_CACHE_HOME,
    ~/.cache).
    """


@cache.command("list")
@common_options
@click.pass_obj
def list_engines(terminal: Terminal) -> None:
    """List the engines that are kept, the latest first."""
    import datetime

    from ..cache import Cache

    engines = Cache()
    entries = engines.entries()
    rows = []
    for entry in entries:
        facts, seconds = entry.facts, entry.details.get("seconds")
        what = [_cell(facts.get(name)) for name in ("network", "target", "precision", "gpus")]
        took = f"{seconds:.1f} s" if isinstance(seconds, int | float) else "-"
        stored = datetime.datetime.fromtimestamp(entry.created).strftime("%Y-%m-%d %H:%M")
        rows.append((entry.key[:SHOWN], *what, _megabytes(entry.size), took, stored))
    title = f"{len(entries)} engines, {_megabytes(sum(entry.size for entry in entries))}, in {engines.folder}"
    terminal.table(title, ("key", "network", "target", "precision", "GPUs", "size", "built in", "stored"), rows)
    terminal.result({"folder": str(engines.folder), "entries": [entry.to_json() for entry in entries]})


@cache.command(short_help="Say in what two engines differ.")
@click.argument("first", metavar="PLAN_OR_KEY")
@click.argument("second", metavar="[PLAN_OR_KEY]", required=False)
@common_options
@click.pass_obj
def explain(terminal: Terminal, first: str, second: str | None) -> None:
    """Say in what two engines differ, and so why one is not taken for the other.

    An engine is named by its plan, which has its description PLAN.json beside it, or by its key in `cache list`. One
    alone is compared with the nearest other in the cache.
    """
    from ..cache import Cache
    from ..cache.facts import differences

    engines = Cache()
    one = _facts(engines, first)
    if second is not None:
        name, other = second, _facts(engines, second)
    else:
        nearest = engines.nearest(one)
        if nearest is None:
            raise InputError(
                f"There is no other engine in {engines.folder} to compare {first} with.", fix="Name two engines."
            )
        name, other = nearest.key[:SHOWN], nearest.facts
    found = differences(one, other)
    rows = [(difference.field, _cell(difference.first), _cell(difference.second)) for difference in found]
    if rows or terminal.as_json:
        terminal.table(f"What differs between {first} and {name}", ("fact", first, name), rows)
    else:
        terminal.note(f"{first} and {name} are the same engine: no fact differs.")
    terminal.result({"first": first, "second": name, "differences": [vars(difference) for difference in found]})


@cache.command(short_help="Delete cached engines.")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option(
    "--unused-for",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="DAYS",
    help="Only what was neither stored nor taken in the last DAYS days.",
)
@common_options
@click.pass_obj
def clear(terminal: Terminal, keys: tuple[str, ...], unused_for: float) -> None:
    """Delete the engines with these keys, or everything that is kept: sources, ranges and seams, too."""
    from ..cache import DRAWERS, ENGINES, Cache

    engines, seconds = Cache(), unused_for * SECONDS_A_DAY
    chosen = [_entry(engines, key).key for key in keys] or None
    before = engines.size
    try:
        removed = engines.clear(chosen, seconds)
        for drawer in DRAWERS if chosen is None else ():
            if drawer != ENGINES:
                Cache(drawer=drawer).clear(unused_seconds=seconds)
    except OSError as error:
        raise OutputError(
            f"The engines in {engines.folder} cannot be removed: {error.strerror or error}.",
            fix="Check the permissions of the folder.",
        ) from error
    size = before - engines.size
    terminal.note(f"Removed {removed} engines, {_megabytes(size)}.")
    terminal.result({"folder": str(engines.folder), "removed": removed, "bytes": size})


def _facts(engines: Cache, name: str) -> Facts:
    """The facts of an engine by its plan, or by its key.

    Raises:
        InputError: Neither; or the plan's description is missing or damaged.
    """
    from ..engines.artifact import is_engine, read_engine

    return read_engine(name).facts if is_engine(name) or Path(name).exists() else _entry(engines, name).facts


def _entry(engines: Cache, key: str) -> CacheEntry:
    """The one entry whose key begins like this.

    Raises:
        InputError: There is none, or several.
    """
    found = [entry for entry in engines.entries() if re.fullmatch("[0-9a-f]+", key) and entry.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    count = (
        f"{len(found)} engines in {engines.folder} have keys" if found else f"No engine in {engines.folder} has a key"
    )
    raise InputError(
        f"{count} that begin{'' if found else 's'} with {key!r}.", fix="`agileir-export cache list` shows the keys."
    )


def _cell(value: Any) -> str:
    """A value as a cell of a table: text as it is, digests shortened, lists with commas, the rest as JSON."""
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "-"
    if isinstance(value, str):
        return value[:SHOWN] if re.fullmatch("[0-9a-f]{64}", value) else value
    return "-" if value is None else json.dumps(value)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
