"""Measures of benchmarks/video.py."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from agileir_export.restore.video.colour import Colour
from agileir_export.restore.video.frames import samples_of

from ..scripts import load_script


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(Path(__file__).parents[2] / "benchmarks" / "video.py")


def test_loss(bench: ModuleType) -> None:
    colour = Colour(1, False, 8)
    one, other = (bench.encoded(np.full((3, 24, 32), 0.5, np.float32), "yuv420p", colour) for _ in range(2))
    assert bench.loss([(one, other)]) == {"luma": None, "chroma": None}
    samples_of(other)[0][...] += 1
    assert bench.loss([(one, other)]) == {"luma": pytest.approx(20 * np.log10(255)), "chroma": None}


def test_the_definition_is_met(bench: ModuleType) -> None:
    for row in bench.definition():
        assert row["ours"] < 1e-3 < 0.2 < row.get("libswscale", 1) < 1.5
