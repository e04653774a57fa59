"""Every kind of configuration that a bundle writes, read by the real server: its parser, not ours, has the word."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from agileir_export.bundle import write_bundle
from agileir_export.engines.artifact import EngineArtifact
from agileir_export.engines.profiles import Profile
from agileir_export.export import OnnxArtifact
from agileir_export.serving.workplace import Workplace

from ..engines.sidecars import describe
from ..export import networks
from .servers import free_ports, installation

FREE = Profile((1, 64, 64), (2, 128, 256), (4, 512, 512))
TILE = Profile((1, 64, 64), (4, 64, 64), (8, 64, 64))
KINDS = {
    "free": [{"profiles": (FREE,)}],
    "tile": [{"profiles": (TILE,)}],
    "several-profiles": [{"profiles": (TILE, FREE)}],
    "several-gpus": [{"profiles": (FREE,), "gpus": ("sm86",)}, {"profiles": (FREE,), "gpus": ("sm120",)}],
}
"""Engines of a bundle, by what is special about the configuration."""


def loaded(repository: Path, place: Path) -> str:
    """What the server says when it loads a repository."""
    server = installation()
    workplace = Workplace({}, 1, 1)
    try:
        command = [
            workplace.program(server),
            f"--model-repository={repository}",
            f"--backend-directory={workplace.backends(server)}",
            "--disable-auto-complete-config",
            *(f"--{kind}-port={port}" for kind, port in zip(("grpc", "http", "metrics"), free_ports(), strict=True)),
            *(f"--{kind}-address=127.0.0.1" for kind in ("grpc", "http", "metrics")),
        ]
        return subprocess.run(
            command, env=server.environment(), capture_output=True, text=True, timeout=60, cwd=place
        ).stderr
    finally:
        workplace.remove()


def bundle_of(kind: str, artifact: OnnxArtifact, folder: Path, place: Path) -> Path:
    if kind == "static":
        return write_bundle(place / "out", networks.exported(folder, "swinir-light", static=(8, 12)), name="m").folder
    engines: list[EngineArtifact] = []
    for number, changes in enumerate(KINDS.get(kind, [])):
        known = {"provenance": artifact.provenance, "build": {"seconds": 1.0}, **changes}
        engines.append(describe(place / f"{number}.plan", artifact.spec, f"plan {number}".encode(), **known))
    return write_bundle(place / "out", artifact, engines, name="m", instances=2).folder


@pytest.mark.parametrize("kind", ["plain", "static", *KINDS])
def test_the_server_reads_it(kind: str, swinir: OnnxArtifact, folder: Path, tmp_path: Path) -> None:
    repository = bundle_of(kind, swinir, folder, tmp_path) / "triton"
    (repository / "m" / "1" / "model.py").write_text("raise RuntimeError('read and started')\n")
    said = loaded(repository, tmp_path)
    rows = dict(re.findall(r"^\|\s*(\w+)\s*\|[^|]*\| (UNAVAILABLE.*?)\s*\|$", said, re.MULTILINE))
    assert sorted(rows) == sorted(path.name for path in repository.iterdir())
    assert "read and started" in said
    for name in rows.keys() - {"m"}:
        backend = "onnxruntime" if name == "m_onnx" else "tensorrt"
        assert f"unable to find backend library for backend '{backend}'" in rows[name]


def test_a_configuration_that_it_does_not_read_is_told_apart(swinir: OnnxArtifact, tmp_path: Path) -> None:
    repository = bundle_of("plain", swinir, tmp_path, tmp_path) / "triton"
    config = repository / "m_onnx" / "config.pbtxt"
    config.write_text(config.read_text() + "no_such_field: 1\n")
    said = loaded(repository, tmp_path)
    assert "failed to read text proto" in said.lower() or "no_such_field" in said
    assert "unable to find backend" not in said
