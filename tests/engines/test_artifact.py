"""The sidecar of an engine: written, read back, and what is wrong with a damaged one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agileir_export.engines.artifact import EngineArtifact, is_engine, read_engine, sidecar_path
from agileir_export.engines.profiles import Profile
from agileir_export.errors import InputError
from agileir_export.models.spec import ModelSpec

from .sidecars import describe


@pytest.fixture
def engine(tmp_path: Path) -> EngineArtifact:
    return describe(
        tmp_path / "e.plan",
        ModelSpec("semanir", "custom", "denoising", 1, 3, 8, 16, top_k=7, noise_level=25.0),
        b"a plan",
        precision="bfloat16",
        profiles=(Profile((1, 8, 8), (1, 16, 16), (2, 64, 64)), Profile((1, 8, 8), (1, 8, 8), (1, 8, 8))),
        gpus=("sm90",),
        facts={"flags": ["tf32"], "driver": None},
        audit={"passed": True},
        provenance={"weights_sha256": "ab"},
        build={"seconds": 1.5, "cached": False},
    )


def test_what_is_written_is_read(engine: EngineArtifact) -> None:
    assert read_engine(engine.path) == engine
    assert read_engine(str(engine.path)) == engine
    assert sidecar_path(engine.path).name == "e.plan.json"


def test_the_sidecar_names_no_folder(engine: EngineArtifact, tmp_path: Path) -> None:
    assert str(tmp_path) not in sidecar_path(engine.path).read_text()


@pytest.mark.parametrize(
    ("name", "answer"), [("a.plan", True), ("a.ENGINE", True), ("a.trt", True), ("a.onnx", False), ("plan", False)]
)
def test_engines_are_known_by_their_suffix(name: str, answer: bool) -> None:
    assert is_engine(name) is answer


@pytest.mark.parametrize(
    "change",
    [
        {"sidecar_version": 99},
        {"profiles": [{"min": [1]}]},
        {"spec": {"family": "swinir"}},
        {"profiles": 3},
        {"gpus": None},
        None,
        [],
    ],
)
def test_a_damaged_sidecar_is_told(engine: EngineArtifact, change: Any) -> None:
    data = engine.to_json() | change if isinstance(change, dict) else change
    sidecar_path(engine.path).write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"e\.plan\.json: a damaged sidecar"):
        read_engine(engine.path)


def test_missing_and_foreign_files_are_told(engine: EngineArtifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_engine(tmp_path / "none.plan")
    with pytest.raises(InputError, match="is a folder"):
        read_engine(tmp_path)
    engine.path.write_bytes(b"another plan")
    with pytest.raises(InputError, match="is not the plan its sidecar describes"):
        read_engine(engine.path)
    sidecar_path(engine.path).write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="damaged"):
        read_engine(engine.path)
    sidecar_path(engine.path).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_engine(engine.path)
