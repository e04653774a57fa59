"""Engines as files: built, audited, cached, with a sidecar; and nothing else is left, whatever happens."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agileir_export.cache.store import Cache
from agileir_export.engines.artifact import read_engine
from agileir_export.engines.audit.verdict import Audit
from agileir_export.engines.building import engine as building
from agileir_export.engines.building.engine import build_engine, engine_facts, make_engine, write_engine
from agileir_export.engines.building.request import BuildRequest
from agileir_export.engines.profile_choice import choose_profiles, read_sizes
from agileir_export.errors import AuditMissed, InputError, OutputError
from agileir_export.export.artifact import OnnxArtifact

from ..export import networks
from ..export.written import half_file
from .builds import described, product, request
from .rtx_builds import needs_rtx

pytestmark = needs_rtx


@pytest.fixture(scope="module")
def half(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxArtifact:
    exported = networks.exported(folder, "swinir-light")
    return half_file(exported, tmp_path_factory.mktemp("half") / "half.onnx", "float16")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> OnnxArtifact:
    """One product, which builds at once."""
    return described(product(tmp_path_factory.mktemp("small") / "small.onnx", "FLOAT16"))


def ask_for(artifact: OnnxArtifact, **changes: Any) -> BuildRequest:
    given = {
        "sha256": artifact.sha256,
        "precision": artifact.precision,
        "profiles": choose_profiles(artifact, read_sizes(static=(8, 8))),
        **changes,
    }
    return request(artifact.path, **given)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "a.plan"


def test_an_engine_its_sidecar_and_its_copy_in_the_cache(small: OnnxArtifact, cache: Cache, output: Path) -> None:
    steps: list[str] = []
    engine = build_engine(small, output, ask_for(small), cache=cache, progress=steps.append)
    assert steps == ["parsing", "preparing", "optimising", "serialising", "auditing"]
    assert read_engine(output) == engine
    assert files(output.parent) == ["a.plan", "a.plan.json"]
    assert (engine.precision, engine.target, engine.gpus, engine.spec) == ("float16", "rtx", ("sm86",), small.spec)
    assert engine.provenance == small.provenance
    assert engine.facts["sha256"] == small.sha256
    assert engine.audit["passed"]
    assert {share["precision"] for share in engine.audit["shares"] if share["kind"] == "gemm"} == {"float16"}
    assert engine.build["seconds"] > 0
    assert 2**20 < engine.build["peak_memory_bytes"] < 2**34
    assert not engine.build["cached"]

    steps.clear()
    again = build_engine(small, output.with_name("b.plan"), ask_for(small), cache=cache, progress=steps.append)
    assert steps == []
    assert again.build == {**engine.build, "cached": True}
    assert again.sha256 == engine.sha256
    assert again.audit == engine.audit

    build_engine(small, output, ask_for(small, gpus=("sm89",)), cache=cache, progress=steps.append)
    assert steps[0].startswith("not in the cache: another gpus")
    assert re.fullmatch(r"parsing, about \d+ s in all", steps[1])
    assert read_engine(output).gpus == ("sm89",)
    assert len(cache.entries()) == 2


def test_facts_name_the_version_and_nothing_of_this_machine(half: OnnxArtifact) -> None:
    facts, gpus = engine_facts(half, ask_for(half))
    assert facts["target_version"][0].isdigit()
    assert (facts["gpu"], facts["driver"], gpus) == ("", "", ("sm86",))


def test_an_engine_that_fails_its_audit_is_not_written(small: OnnxArtifact, cache: Cache, output: Path) -> None:
    asked = ask_for(small, precision="bfloat16")  # the file holds float16
    with pytest.raises(AuditMissed, match="asked for in bfloat16, and is not") as caught:
        build_engine(small, output, asked, cache=cache)
    assert caught.value.exit_code == 1
    assert files(output.parent) == []
    assert cache.entries() == []


@pytest.mark.parametrize("name", ["a.onnx", "a", "a.plan.json"])
def test_the_name_of_a_plan_says_so(name: str, half: OnnxArtifact, output: Path) -> None:
    with pytest.raises(OutputError, match=r"does not end in \.plan"):
        build_engine(half, output.with_name(name), ask_for(half))


def test_bad_profiles_start_no_build(half: OnnxArtifact, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "build_in_process", lambda *_: pytest.fail("a build was started"))
    with pytest.raises(InputError, match="needs a profile"):
        build_engine(half, output, ask_for(half, profiles=()))
    assert files(output.parent) == []


def made(half: OnnxArtifact) -> building.EngineBuild:
    return building.EngineBuild(b"plan", half, ask_for(half), ("sm86",), {}, Audit("float16", ()), {})


def test_a_full_disk_leaves_neither_file(half: OnnxArtifact, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if mode == "xb" and len(files(output.parent)) == 1:  # the sidecar fitted, the plan does not
            raise OSError(28, "No space left on device")
        return real(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_engine(made(half), output)
    monkeypatch.undo()
    assert files(output.parent) == []


def test_a_full_disk_keeps_the_old_engine(half: OnnxArtifact, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_engine(made(half), output)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError):
        write_engine(dataclasses.replace(made(half), plan=b"newer"), output)
    monkeypatch.undo()
    assert read_engine(output) == old
    assert files(output.parent) == ["a.plan", "a.plan.json"]


# ---- several processes ----

PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from agileir_export.cli import main; main()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("out", "temporary", "cache"):
        (tmp_path / name).mkdir(exist_ok=True)
    return tmp_path


def start(place: Path, source: Path, output: str) -> subprocess.Popen[str]:
    """The verb in a process of its own, its files below one folder."""
    arguments = ["trt", str(source), "--target", "rtx", "--gpu", "sm86", "-o", str(place / "out" / output)]
    surroundings = {"TMPDIR": str(place / "temporary"), "AGILEIR_EXPORT_CACHE": str(place / "cache")}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, **surroundings},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def until(process: subprocess.Popen[str], step: str) -> None:
    """Waits until the verb tells a step."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if step in line:
            return
    pytest.fail(f"{step!r} was never told: {seen}")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def entries(place: Path) -> int:
    return len(Cache(place / "cache" / "engines").entries())


def test_two_builds_at_once(small: OnnxArtifact, place: Path, processes: list[subprocess.Popen[str]]) -> None:
    processes += [start(place, small.path, "a.plan"), start(place, small.path, "b.plan")]
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    engines = [read_engine(place / "out" / name) for name in ("a.plan", "b.plan")]
    assert engines[0].sha256 == engines[1].sha256
    assert sorted(engine.build["cached"] for engine in engines) == [False, True]
    assert entries(place) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_leaves_nothing(half: OnnxArtifact, place: Path, processes: list[subprocess.Popen[str]]) -> None:
    processes.append(start(place, half.path, "a.plan"))
    until(processes[0], "parsing")
    processes[0].send_signal(signal.SIGINT)
    _, told = processes[0].communicate(timeout=60)
    assert processes[0].returncode == 130
    assert "Interrupted" in told
    assert files(place / "out") == files(place / "temporary") == []
    assert entries(place) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_build_leaves_a_sound_cache(
    half: OnnxArtifact, place: Path, processes: list[subprocess.Popen[str]]
) -> None:
    processes.append(start(place, half.path, "a.plan"))
    until(processes[0], "parsing")
    processes[0].kill()
    processes[0].wait()
    assert files(place / "out") == []
    assert entries(place) == 0
    deadline = time.monotonic() + 60
    while (left := list(place.glob("temporary/agileir-build-*"))) and time.monotonic() < deadline:
        time.sleep(0.1)  # the builder notices that nobody waits for it, and cleans up
    assert left == []
    processes.append(start(place, half.path, "a.plan"))
    assert processes[1].communicate(timeout=300) and processes[1].returncode == 0
    engine = read_engine(place / "out" / "a.plan")
    assert hashlib.sha256(engine.path.read_bytes()).hexdigest() == engine.sha256
    assert entries(place) == 1


def test_a_damaged_entry_is_built_again(small: OnnxArtifact, cache: Cache, output: Path) -> None:
    first = make_engine(small, ask_for(small), cache)
    cache.entries()[0].content.write_bytes(first.plan[:-1])
    with pytest.warns(UserWarning, match="damaged"):
        second = make_engine(small, ask_for(small), cache)
    assert second.build["cached"] is False
    assert second.plan == first.plan
