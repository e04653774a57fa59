"""The verb ``cache``."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from agileir_export.cache.store import Cache

from ..engines.sidecars import describe
from ..export import networks
from .command import document, run


def facts(**changes: Any) -> dict[str, Any]:
    known = {"network": "agileir_tiny_x2", "target": "rtx", "target_version": "1.7.1", "precision": "float16"}
    return known | {"gpus": ["sm86", "sm89"], "tf32": False} | changes


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(tmp_path / "cache"))
    return Cache()


def plan(path: Path, known: dict[str, Any]) -> Path:
    """Bytes in place of a plan, and a description of the form that builds write."""
    return describe(path, networks.shared("swinir-light").spec, b"plan", target="rtx", facts=known).path


def test_an_empty_cache_is_listed_and_cleared(cache: Cache) -> None:
    listed = run("cache", "list")
    assert listed.exit_code == 0
    assert "0 engines" in listed.stdout
    assert document(run("cache", "list", "--json")) == {"folder": str(cache.folder), "entries": []}
    assert document(run("cache", "clear", "--json"))["removed"] == 0
    assert not cache.folder.exists(), "looking makes nothing"


def test_engines_are_listed_with_what_tells_them_apart(cache: Cache) -> None:
    cache.store(facts(), b"plan" * 2**18, {"seconds": 12.34})
    entry = cache.store(facts(tf32=True, gpus=[]), b"plan", {})
    text = run("cache", "list").stdout
    assert "2 engines, 1.0 MiB" in text
    for part in ("agileir_tiny_x2", "rtx", "float16", "sm86, sm89", "12.3 s", entry.key[:12]):
        assert part in text
    listed = document(run("cache", "list", "--json"))["entries"]
    assert [found["key"] for found in listed] == [found.key for found in cache.entries()]
    assert listed[0]["facts"] == facts(tf32=True, gpus=[])


def test_two_engines_are_compared(cache: Cache, tmp_path: Path) -> None:
    one, two = plan(tmp_path / "a.plan", facts()), plan(tmp_path / "b.plan", facts(target_version="1.8.0"))
    result = run("cache", "explain", one, two)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"target_version\W+1\.7\.1\W+1\.8\.0", result.stdout)
    found = document(run("cache", "explain", one, two, "--json"))
    assert found["differences"] == [{"field": "target_version", "first": "1.7.1", "second": "1.8.0"}]
    same = run("cache", "explain", one, one)
    assert same.exit_code == 0
    assert "no fact differs" in same.stderr


def test_one_engine_is_compared_with_the_nearest_in_the_cache(cache: Cache, tmp_path: Path) -> None:
    built = plan(tmp_path / "a.plan", facts())
    alone = run("cache", "explain", built)
    assert alone.exit_code == 2
    assert "no other engine" in alone.stderr
    cache.store(facts(), b"plan", {})
    near = cache.store(facts(tf32=True), b"plan", {})
    cache.store(facts(network="other", precision="float32"), b"plan", {})
    found = document(run("cache", "explain", built, "--json"))
    assert found["second"] == near.key[:12]
    assert [difference["field"] for difference in found["differences"]] == ["tf32"]
    by_key = document(run("cache", "explain", near.key[:8], built, "--json"))
    assert by_key["differences"] == [{"field": "tf32", "first": True, "second": False}]


def test_engines_are_cleared_by_key_or_all(cache: Cache) -> None:
    one = cache.store(facts(), b"plan", {})
    cache.store(facts(tf32=True), b"plan", {})
    told = document(run("cache", "clear", one.key[:12], "--json"))
    assert told == {"folder": str(cache.folder), "removed": 1, "bytes": 4}
    assert [entry.facts["tf32"] for entry in cache.entries()] == [True]
    assert "Removed 1 engines" in run("cache", "clear").stderr
    assert cache.entries() == []


def test_engines_that_nobody_used_for_days_are_cleared(cache: Cache) -> None:
    old = cache.store(facts(), b"plan", {})
    cache.store(facts(tf32=True), b"plan", {})
    past = time.time() - 3 * 86400
    os.utime(old.content.parent, (past, past))
    assert document(run("cache", "clear", "--unused-for", 4, "--json"))["removed"] == 0
    assert document(run("cache", "clear", "--unused-for", 2.5, "--json"))["removed"] == 1
    assert [entry.facts["tf32"] for entry in cache.entries()] == [True]
    assert run("cache", "clear", "--unused-for", -1).exit_code == 2
    assert len(cache.entries()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "none.plan"],
        ["explain", "0123"],
        ["explain", "no key"],
        ["explain", ""],
        ["explain", "folder"],
        ["clear", "0123"],
        ["explain"],
        ["explain", "0", "1", "2"],
    ],
    ids=" ".join,
)
def test_what_is_no_engine_is_bad_input(arguments: list[str], cache: Cache, tmp_path: Path) -> None:
    cache.store(facts(), b"plan", {})
    (tmp_path / "folder").mkdir()
    result = run("cache", *[tmp_path / "folder" if word == "folder" else word for word in arguments])
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert len(cache.entries()) == 1


def test_a_plan_without_its_description_is_bad_input(cache: Cache, tmp_path: Path) -> None:
    built = plan(tmp_path / "a.plan", facts())
    (tmp_path / "a.plan.json").unlink()
    result = run("cache", "explain", built, built)
    assert result.exit_code == 2
    assert "a.plan.json" in result.stderr


def test_an_ambiguous_key_is_bad_input(cache: Cache) -> None:
    for number in range(17):  # more than there are first characters
        cache.store(facts(number=number), b"plan", {})
    first = [entry.key[0] for entry in cache.entries()]
    result = run("cache", "clear", max(first, key=first.count))
    assert result.exit_code == 2
    assert "have keys" in result.stderr
    assert len(cache.entries()) == 17
