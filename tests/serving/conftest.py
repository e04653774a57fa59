"""A bundle, and one real server for the tests that only ask it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agileir_export.bundle import write_bundle
from agileir_export.export import OnnxArtifact

from .servers import ServeProcess, installation

MOST_PIXELS, MOST_BYTES = 96 * 96, 200_000


@pytest.fixture(scope="session")
def bundle(swinir: OnnxArtifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the quickest file there is."""
    folder = tmp_path_factory.mktemp("served") / "bundle"
    write_bundle(folder, swinir, name="small")
    return folder


@pytest.fixture(scope="session", autouse=True)
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where servers write, and a cache of their own."""
    os.environ["PYTEST_LOGS"] = str(tmp_path_factory.mktemp("logs"))
    yield
    del os.environ["PYTEST_LOGS"]


@pytest.fixture(scope="session")
def server(bundle: Path) -> Iterator[ServeProcess]:
    """A server of the bundle, with small limits."""
    installation()
    limits = ("--max-pixels", MOST_PIXELS, "--max-bytes", MOST_BYTES)
    served = ServeProcess(bundle, "--runtime", "onnxruntime", *limits)
    yield served
    served.kill()
