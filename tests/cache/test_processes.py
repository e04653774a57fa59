"""The engine cache under several processes: at once, killed, and out of disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from agileir_export.cache.store import Cache

FACTS = {"network": "agileir_tiny_x2", "target": "rtx"}

CHILD = """
import json, os, sys, time
from pathlib import Path
from agileir_export.cache.store import Cache
cache, facts = Cache(Path(sys.argv[1])), json.loads(sys.argv[2])
def say(word):
    print(word, flush=True)
"""


def child(cache: Cache, body: str) -> subprocess.Popen[str]:
    """A process that runs Python code with `cache`, `facts` and `say`."""
    command = [sys.executable, "-c", CHILD + body, str(cache.folder), json.dumps(FACTS)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def expect(process: subprocess.Popen[str], word: str) -> None:
    line = process.stdout.readline().strip()
    if line != word:
        process.kill()
        raise AssertionError(f"{line!r}, not {word!r}: {process.communicate()[1]}")


def go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "engines")


def test_processes_that_store_at_once_leave_one_sound_entry(cache: Cache) -> None:
    body = """
say("ready"); sys.stdin.readline()
for number in range(30):
    data = os.urandom(1) * 300_000
    entry = cache.store(facts, data, {"number": number})
    assert entry is not None and entry.content.read_bytes()[:1] * 300_000 == entry.content.read_bytes()
    assert cache.find(facts) is not None
say("done")
"""
    processes = [child(cache, body) for _ in range(3)]
    for process in processes:
        expect(process, "ready")
    for process in processes:
        go(process)
    for process in processes:
        assert finish(process) == "done"
    assert len(cache.entries()) == 1
    assert cache.find(FACTS) is not None
    assert list(cache.folder.glob(".unfinished*")) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system cannot kill like this")
def test_a_process_killed_while_storing_leaves_no_entry_and_no_lock(cache: Cache) -> None:
    body = """
def stop(descriptor):
    say("storing")
    time.sleep(600)
os.fsync = stop
with cache.lock(facts):
    cache.store(facts, b"plan" * 100_000, {})
"""
    process = child(cache, body)
    expect(process, "storing")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list(cache.folder.glob(".unfinished*"))) == 1
    assert cache.find(FACTS) is None
    assert cache.entries() == []
    waited = []
    with cache.lock(FACTS, waiting=lambda: waited.append(True)):
        assert cache.store(FACTS, b"sound", {}) is not None
    assert waited == [], "the lock went with the process"
    assert cache.find(FACTS) is not None


def test_a_second_build_of_the_same_thing_waits_for_the_first(cache: Cache) -> None:
    body = """
with cache.lock(facts):
    say("building"); sys.stdin.readline()
    cache.store(facts, b"plan", {})
    say("built")
"""
    process = child(cache, body)
    expect(process, "building")
    with cache.lock({**FACTS, "target": "tensorrt"}, waiting=lambda: pytest.fail("another engine has another lock")):
        pass
    waiting, found = threading.Event(), []

    def second() -> None:
        with cache.lock(FACTS, waiting=waiting.set):
            found.append(cache.find(FACTS))

    thread = threading.Thread(target=second)
    thread.start()
    assert waiting.wait(60)
    cache.clear()
    assert len(list((cache.folder / ".locks").iterdir())) == 1, "a lock that is held stays, another goes"
    assert found == []
    go(process)
    assert finish(process) == "built"
    thread.join(60)
    assert len(found) == 1
    assert found[0] is not None


def test_a_disk_that_fills_up_leaves_the_cache_sound(cache: Cache) -> None:
    pytest.importorskip("resource")
    body = """
import resource, warnings
warnings.simplefilter("always")
small = cache.store({**facts, "small": True}, b"plan", {})
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
assert small is not None and cache.store(facts, b"plan" * 100_000, {}) is None
say("done")
"""
    process = child(cache, body)
    out, err = process.communicate(timeout=120)
    assert out.strip() == "done", err
    assert "CacheWarning: The result is not cached" in err
    assert "File too large" in err
    assert [entry.facts.get("small") for entry in cache.entries()] == [True]
    assert list(cache.folder.glob(".unfinished*")) == []


def test_an_entry_removed_by_another_process_is_absent(cache: Cache) -> None:
    """One process stores, another clears, over and over: nobody ever sees half an entry, or fails."""
    body = """
import warnings
warnings.simplefilter("error")
say("ready"); sys.stdin.readline()
for _ in range(100):
    ACTION
say("done")
"""
    store = child(cache, body.replace("ACTION", 'cache.store(facts, b"plan" * 1000, {})'))
    clear = child(cache, body.replace("ACTION", "cache.clear([entry.key for entry in cache.entries()])"))
    for process in (store, clear):
        expect(process, "ready")
        go(process)
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while store.poll() is None and time.monotonic() - started < 100:
            entry = cache.find(FACTS)
            assert entry is None or entry.size == 4000
    assert finish(store) == "done"
    assert finish(clear) == "done"
