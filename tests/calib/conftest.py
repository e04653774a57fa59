"""Fixtures of the calibration tests: small files of every family, small pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.export import OnnxArtifact
from agileir_export.images.files import Image, write_image

from ..small_samples import use_samples

Pictures = Callable[..., Path]


@pytest.fixture(scope="session")
def small(swinir: OnnxArtifact) -> OnnxArtifact:
    """A super-resolution file whose calibration takes about a second."""
    return swinir


@pytest.fixture(autouse=True)
def small_samples(samples: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    use_samples(monkeypatch, samples)
    monkeypatch.setattr("agileir_export.calib.material.sample_images", lambda: samples)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Writes a folder of pictures of smooth and busy content."""

    def write(count: int = 4, size: tuple[int, int] = (32, 40), name: str = "pictures", **options: Any) -> Path:
        target = tmp_path / name
        target.mkdir(exist_ok=True)
        rows, columns = size
        for number in range(count):
            random = np.random.default_rng(number)
            slopes = np.linspace(0, 1, columns, dtype=np.float32) * np.linspace(1, 0.2, rows, dtype=np.float32)[:, None]
            noise = random.random((3, rows, columns), dtype=np.float32)
            pixels = np.clip(slopes[None] * (1 - 0.1 * number) + 0.1 * number * noise, 0, 1).astype(np.float32)
            write_image(target / f"{number}.png", Image(pixels, **options))
        return target

    return write
