"""``verify`` and ``info`` for an engine; ONNX Runtime stands in for the GPU that would run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agileir_export.engines import OnnxRuntimeRunner, opening
from agileir_export.engines.artifact import sidecar_path
from agileir_export.engines.profiles import Profile
from agileir_export.export import read_artifact

from ..engines.sidecars import describe
from .command import document, run


@pytest.fixture
def plan(trial: Path) -> Path:
    """Bytes in place of a plan, with the sidecar that a build of the trial file would write."""
    artifact = read_artifact(trial)
    profiles = (Profile((1, 8, 8), (1, 8, 8), (2, 64, 64)),)
    known = {"facts": {"onnx_sha256": artifact.sha256}, "provenance": artifact.provenance, "build": {"seconds": 1.5}}
    path = Path("e.plan").absolute()
    return describe(path, artifact.spec, b"plan", target="rtx", profiles=profiles, **known).path


def test_an_engine_is_verified(plan: Path, trial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_runner", lambda source: OnnxRuntimeRunner(trial))
    result = run("verify", plan, "--json")
    assert result.exit_code == 0, result.stderr
    (report,) = document(result)["reports"]
    assert [rung["name"] for rung in report["rungs"]] == ["engine float16 = PyTorch"]
    assert report["rungs"][0]["worst"] > 100
    missed = run("verify", plan, "--min-psnr", 400)
    assert missed.exit_code == 1 and "engine float16 = PyTorch" in missed.stderr
    outside = run("verify", plan, "--size", "128x128")
    assert outside.exit_code == 2 and "1x8x8..2x64x64" in outside.stderr


def test_info_shows_the_sidecar(plan: Path) -> None:
    result = run("info", plan, "--json")
    assert result.exit_code == 0, result.stderr
    facts = document(result)
    assert (facts["kind"], facts["target"], facts["gpus"]) == ("engine", "rtx", ["sm86"])


def test_damage_is_told(plan: Path) -> None:
    plan.write_bytes(b"other")
    for verb in ("verify", "info"):
        result = run(verb, plan)
        assert result.exit_code == 2 and "is not the plan its sidecar describes" in result.stderr
    sidecar_path(plan).write_text("{")
    assert "damaged sidecar" in run("info", plan).stderr
    sidecar_path(plan).unlink()
    result = run("verify", plan)
    assert result.exit_code == 2 and "sidecar cannot be read" in result.stderr
