"""The benchmark of whole folders: all ways restore the same pictures, and the table says what was measured."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image as pillow

from agileir_export.export import OnnxArtifact

from ..export import networks
from ..scripts import load_script


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(Path(__file__).parents[2] / "benchmarks" / "restore.py")


@pytest.fixture
def model(folder: Path) -> OnnxArtifact:
    return networks.exported(folder, "swinir-light")


def test_a_plain_loop_restores_what_we_do(bench: ModuleType, model: OnnxArtifact, tmp_path: Path) -> None:
    assert model.path is not None
    for name in ("pictures", "whole", "ours"):
        (tmp_path / name).mkdir()
    bench.make_photographs(tmp_path / "pictures", 2, 40, 56)
    for way in ("whole", "ours"):
        bench.ROADS[way](model.path, tmp_path / "pictures", tmp_path / way)
    for number in range(2):
        found = [np.asarray(pillow.open(tmp_path / way / f"{number:03}.jpg"), int) for way in ("whole", "ours")]
        assert found[0].shape == (80, 112, 3)
        assert np.abs(found[0] - found[1]).max() <= 1


def test_one_run_is_measured(bench: ModuleType, model: OnnxArtifact, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    bench.make_photographs(tmp_path / "pictures", 1, 16, 16)
    found = bench.run_one("naive", model.path, tmp_path / "pictures")
    assert (
        found["seconds"] > 0 and found["processor_seconds"] > 0 and (found["peak_bytes"] > 0 or sys.platform != "linux")
    )


def test_table(bench: ModuleType) -> None:
    row = {"pictures_a_second": 0.5, "against_whole": 1.25, "processor_against_whole": 1.1, "peak_MiB": 100.4}
    text = bench.table({"m": {"ways": {"ours": row}}})
    assert text.splitlines()[-1] == "| `m` | ours | 0.500 | 1.25 | 1.10 | 100 |"
