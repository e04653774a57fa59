"""Runners that take turns on a packaged picture: times to compare, on a machine that does other things, too."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ...export.artifact import OnnxArtifact
from ...images.files import read_image, sample_images
from ...images.picture import to_channels
from ..runner import Images, Runner

__all__ = ["sample_input", "take_turns"]

SIDE = 128
"""Pixels of the picture's sides, unless the file is for one size. Of a smaller one, what costs the same at any size
would make up a good part."""

ROUNDS, LONGEST = 7, 4.0
"""Most rounds, and seconds after which no other one begins."""


def sample_input(artifact: OnnxArtifact) -> Images:
    """The middle of a packaged picture, float32 ``[1, C, H, W]`` in 0..1, of sides that the file takes."""
    fixed, spec = artifact.fixed_sizes, artifact.spec
    wanted = [fixed.get(side, max(SIDE, spec.pad_multiple)) for side in ("height", "width")]
    pixels = read_image(sample_images()[0][1]).pixels
    more = [(0, max(0, want - have)) for want, have in zip(wanted, pixels.shape[1:], strict=True)]
    pixels = np.pad(to_channels(pixels, spec.channels), [(0, 0), *more], mode="symmetric")
    top, left = ((have - want) // 2 for want, have in zip(wanted, pixels.shape[1:], strict=True))
    return np.ascontiguousarray(pixels[None, :, top : top + wanted[0], left : left + wanted[1]])


def take_turns(runners: Sequence[Runner], images: Images) -> tuple[list[list[float]], list[Images]]:
    """Runs every runner on the images, round after round, after one that does not count.

    Args:
        runners: What is compared.
        images: float32 ``[B, C, H, W]`` in 0..1.

    Returns:
        Seconds of every round, and the result, runner by runner.
    """
    outputs = [runner.run(images) for runner in runners]
    times: list[list[float]] = [[] for _ in runners]
    started = time.perf_counter()
    while len(times[0]) < ROUNDS and (not times[0] or time.perf_counter() - started < LONGEST):
        for seconds, runner in zip(times, runners, strict=True):
            begun = time.perf_counter()
            runner.run(images)
            seconds.append(time.perf_counter() - begun)
    return times, outputs
