"""Packaged pictures cut small: the task rung restores whole samples, which takes long on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from agileir_export.images.files import Image, read_image, sample_images, write_image

USERS = ("agileir_export.parity.truths", "agileir_export.parity.images")
"""Modules that look samples up by their own name for `sample_images`."""


def cut_samples(folder: Path, rows: int = 24, columns: int = 36) -> list[tuple[str, Path]]:
    """The middles of two samples, written to a folder, in the form of `sample_images`."""
    found = []
    for name, path in sample_images()[:2]:
        pixels = read_image(path).pixels
        top, left = (pixels.shape[1] - rows) // 2, (pixels.shape[2] - columns) // 2
        cut = np.ascontiguousarray(pixels[:, top : top + rows, left : left + columns])
        write_image(folder / f"{name}.png", Image(cut), overwrite=True)
        found.append((name, folder / f"{name}.png"))
    return found


def use_samples(monkeypatch: Any, samples: list[tuple[str, Path]]) -> None:
    """Makes the ladder take these for the packaged pictures."""
    for module in USERS:
        monkeypatch.setattr(f"{module}.sample_images", lambda: samples)
