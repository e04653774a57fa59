"""The engine cache alone: what is found, refused, removed, compared and estimated."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agileir_export.cache import store as cache_module
from agileir_export.cache.facts import Difference, differences, facts_key
from agileir_export.cache.store import Cache, CacheWarning, default_folder

PLAN = bytes(range(256)) * 5000


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "network": "agileir_tiny_x2",
        "sha256": "ab" * 32,
        "target": "rtx",
        "target_version": "1.7.1",
        "gpus": ["sm86", "sm89"],
        "profiles": [{"minimum": [1, 64, 64], "maximum": [1, 512, 512]}],
        "tf32": False,
    } | changes


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache" / "engines")


def leftovers(cache: Cache) -> list[str]:
    return [path.name for path in cache.folder.iterdir() if path.name.startswith(".unfinished")]


def test_what_is_stored_is_found_again(cache: Cache, tmp_path: Path) -> None:
    assert cache.find(facts()) is None
    details = {"seconds": 12.5, "audit": {"passed": True}}
    stored = cache.store(facts(), PLAN, details)
    found = Cache(cache.folder).find(facts())
    assert found == stored
    assert found.content.read_bytes() == PLAN
    assert (found.size, found.details, found.facts) == (len(PLAN), details, facts())
    assert abs(found.created - time.time()) < 60
    assert leftovers(cache) == []
    file = tmp_path / "other.plan"
    file.write_bytes(PLAN[1:])
    copied = cache.store(facts(tf32=True), file, {})
    assert copied.content.read_bytes() == PLAN[1:]
    assert file.exists()
    assert cache.size == 2 * len(PLAN) - 1


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "cd" * 32},
        {"target_version": "1.7.2"},
        {"gpus": ["sm86"]},
        {"gpus": ["sm89", "sm86"]},
        {"profiles": [{"minimum": [1, 64, 64], "maximum": [1, 512, 513]}]},
        {"tf32": True},
        {"tf32": None},
        {"driver": "580.1"},
    ],
    ids=str,
)
def test_any_other_fact_is_another_engine(cache: Cache, change: dict[str, Any]) -> None:
    cache.store(facts(), PLAN, {})
    assert cache.find(facts(**change)) is None
    assert cache.find(facts()) is not None


def test_the_order_of_fields_and_tuples_do_not_matter() -> None:
    assert facts_key(dict(reversed(facts().items()))) == facts_key(facts())
    assert facts_key(facts(gpus=("sm86", "sm89"))) == facts_key(facts())
    with pytest.raises(ValueError, match="JSON"):
        facts_key({"number": float("nan")})
    with pytest.raises(TypeError):
        facts_key({"path": Path("x")})


SPOILED: dict[str, tuple[str, Callable[[bytes], bytes | None]]] = {
    "truncated": ("content", lambda data: data[:-1]),
    "altered": ("content", lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]),
    "no plan": ("content", lambda data: None),
    "no description": ("entry.json", lambda data: None),
    "cut description": ("entry.json", lambda data: data[:100]),
    "other facts": ("entry.json", lambda data: data.replace(b"agileir_tiny_x2", b"agileir_tiny_x4")),
    "no object": ("entry.json", lambda data: b"[1, 2]"),
}
"""What becomes of a file of an entry; None: it is lost."""


def spoil(entry: Any, how: str = "truncated") -> None:
    name, change = SPOILED[how]
    path = entry.content.with_name(name)
    changed = change(path.read_bytes())
    path.unlink() if changed is None else path.write_bytes(changed)


@pytest.mark.parametrize("how", SPOILED)
def test_a_damaged_entry_is_removed_and_can_be_stored_again(cache: Cache, how: str) -> None:
    entry = cache.store(facts(), PLAN, {})
    spoil(entry, how)
    with pytest.warns(CacheWarning, match="is damaged"):
        assert cache.find(facts()) is None
    assert cache.entries() == []
    assert list(cache.folder.glob("[!.]*")) == []
    cache.store(facts(), PLAN, {})
    assert cache.find(facts()) is not None


def test_storing_replaces_a_damaged_entry_and_keeps_a_sound_one(cache: Cache) -> None:
    first = cache.store(facts(), PLAN, {"number": 1})
    second = cache.store(facts(), PLAN + b"other", {"number": 2})
    assert second == first, "an engine with the same facts is as good"
    spoil(first)
    third = cache.store(facts(), PLAN, {"number": 3})
    assert third.details == {"number": 3}
    assert leftovers(cache) == []


def test_a_full_disk_costs_a_warning(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(facts(), PLAN, {})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(CacheWarning, match="No space left"):
        assert cache.store(facts(tf32=True), PLAN, {}) is None
    assert leftovers(cache) == []
    assert [entry.facts for entry in cache.entries()] == [facts()]


def test_a_cache_that_cannot_be_written_to_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = Cache(tmp_path / "file" / "engines")
    ran = False
    with cache.lock(facts()):
        ran = True
    assert ran
    with pytest.warns(CacheWarning, match="is not cached"):
        assert cache.store(facts(), PLAN, {}) is None
    assert cache.find(facts()) is None
    assert (cache.entries(), cache.size, cache.clear(), cache.explain(facts())) == ([], 0, 0, [])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_cache_still_serves(cache: Cache) -> None:
    cache.store(facts(), PLAN, {})
    cache.folder.chmod(0o500)
    try:
        assert cache.find(facts()) is not None
        with pytest.warns(CacheWarning, match="Permission denied"):
            assert cache.store(facts(tf32=True), PLAN, {}) is None
    finally:
        cache.folder.chmod(0o700)


def test_what_killed_processes_leave_is_cleaned_when_it_is_old(cache: Cache) -> None:
    cache.store(facts(), PLAN, {})
    old, young = cache.folder / ".unfinished-old", cache.folder / ".unfinished-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "content").write_bytes(PLAN)
    past = time.time() - cache_module.STALE_SECONDS - 1
    os.utime(old, (past, past))
    assert len(cache.entries()) == 1
    cache.store(facts(tf32=True), PLAN, {})
    assert not old.exists()
    assert young.exists(), "another process may be writing it"
    assert cache.clear() == 2
    assert not young.exists()


def test_entries_are_listed_latest_first_and_cleared(cache: Cache) -> None:
    first = cache.store(facts(), PLAN, {})
    second = cache.store(facts(tf32=True), PLAN, {})
    spoil(second)
    assert [entry.key for entry in cache.entries()] == [second.key, first.key]
    assert cache.clear([first.key]) == 1
    assert cache.find(facts()) is None
    assert cache.clear() == 1, "damaged ones are removed, too"
    assert cache.clear() == 0


def test_what_was_used_lately_stays(cache: Cache) -> None:
    entries = [cache.store(facts(number=number), PLAN, {}) for number in range(3)]
    past = time.time() - 1000
    for entry in entries[:2]:
        os.utime(entry.content.parent, (past, past))
    assert cache.find(facts(number=1)) is not None
    assert cache.clear(unused_seconds=2000) == 0
    assert cache.clear(unused_seconds=500) == 1
    assert {entry.facts["number"] for entry in cache.entries()} == {1, 2}
    assert cache.clear() == 2


def test_why_an_engine_is_not_there(cache: Cache) -> None:
    assert cache.explain(facts()) == []
    cache.store(facts(network="other", sha256="0"), PLAN, {})
    cache.store(facts(target_version="1.6", gpus=["sm86"], tf32=True), PLAN, {})
    cache.store(facts(gpus=["sm86"]), PLAN, {})
    wanted = facts(driver="580.1")
    nearest = cache.nearest(wanted)
    assert nearest.facts == facts(gpus=["sm86"])
    assert cache.explain(wanted) == [
        Difference("driver", "(absent)", "580.1"),
        Difference("gpus", ["sm86"], ["sm86", "sm89"]),
    ]
    nearest = cache.nearest(facts(gpus=["sm86"]))
    assert nearest.facts["target_version"] == "1.6", "an entry is not its own neighbour; the same network comes first"


def test_differences_are_told_by_field() -> None:
    other = facts(profiles=[{"minimum": [1, 64, 64], "maximum": [1, 256, 512]}], gpus=(), flags={})
    assert differences(facts(), facts(gpus=("sm86", "sm89"))) == []
    assert differences(facts(), other) == [
        Difference("flags", "(absent)", {}),
        Difference("gpus", ["sm86", "sm89"], []),
        Difference("profiles.0.maximum", [1, 512, 512], [1, 256, 512]),
    ]


def test_build_times_are_expected_from_builds_of_the_same_network(cache: Cache) -> None:
    assert cache.estimate(facts()) is None
    cache.store(facts(network="other"), PLAN, {"seconds": 500})
    cache.store(facts(tf32=True, sha256="0"), PLAN, {"seconds": 100})
    cache.store(facts(target_version="1.6"), PLAN, {"seconds": 10.0})
    cache.store(facts(target_version="1.5"), PLAN, {"seconds": 20.0})
    cache.store(facts(target_version="1.4"), PLAN, {"seconds": "unknown"})
    assert cache.estimate(facts()) == 15.0, "the median of the most similar ones"
    assert cache.estimate(facts(network="third")) is None


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own" / "engines"
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache().folder == tmp_path / "agileir-export" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == Path("~/.cache/agileir-export/engines").expanduser()
