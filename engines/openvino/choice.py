"""Which runtime an ONNX file gets where nobody says: OpenVINO where a check on this machine speaks for it.

The check runs a packaged picture under both runtimes, once for each file, release and processor; its result is kept in
the cache. OpenVINO must give what ONNX Runtime gives, as exactly as the ladder asks of the file, in clearly less time.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ...cache import NETWORK, RUNTIMES, Cache, Facts, installed_version, processor_name
from ...errors import AgileIRError
from ...export.artifact import OnnxArtifact
from ...export.floors import file_floor
from ...images.files import read_image, sample_images
from ...version import __version__
from ..onnxruntime.half_emulation import computes_in_half
from ..onnxruntime.runner import OnnxRuntimeRunner
from .loading import openvino_version
from .runner import OpenVinoRunner

if TYPE_CHECKING:
    from ..runner import Images, Runner

__all__ = ["Check", "choose_runner", "compare_runtimes"]

LOGGER = logging.getLogger(__name__)

SIDE = 128
"""Pixels of the picture's sides, unless the file is for one size: below, OpenVINO's dynamic shapes cost too much."""

FASTER = 0.95
"""OpenVINO's time over ONNX Runtime's from which the difference is taken for one."""

ROUNDS, LONGEST = 5, 4.0
"""Most repetitions, and seconds after which there are no more."""


@dataclass(frozen=True)
class Check:
    """What comparing OpenVINO with ONNX Runtime on one picture showed.

    Attributes:
        psnr: OpenVINO's result against ONNX Runtime's, dB at a peak of 1.
        floor: What the ladder asks of the file, dB.
        time_ratio: OpenVINO's time over ONNX Runtime's: the least of each over a few interleaved runs.
    """

    psnr: float
    floor: float
    time_ratio: float

    @property
    def objection(self) -> str:
        """Why OpenVINO is not taken; empty where it is."""
        if not self.psnr >= self.floor:
            return f"its result is {self.psnr:.1f} dB from ONNX Runtime's, and the floor is {self.floor:g} dB"
        if self.time_ratio > FASTER:
            return f"it takes {self.time_ratio:.2f} of ONNX Runtime's time here"
        return ""


def choose_runner(artifact: OnnxArtifact, cache: Cache | None = None) -> OnnxRuntimeRunner | OpenVinoRunner:
    """OpenVINO where it is installed, holds and is faster on this machine; else ONNX Runtime, and the log says why.

    Args:
        artifact: The file.
        cache: Where results of the check lie; unless given, a drawer of the cache.
    """
    version = openvino_version()
    if not version or computes_in_half(artifact.model):
        return OnnxRuntimeRunner(artifact)
    facts, cache = _facts(artifact, version), cache or Cache(drawer=RUNTIMES)
    entry = cache.find(facts)
    openvino: OpenVinoRunner | None = None
    onnxruntime: OnnxRuntimeRunner | None = None
    if entry is not None:
        check = Check(**{name: float(entry.details[name]) for name in Check.__dataclass_fields__})
    else:
        try:
            onnxruntime, openvino = OnnxRuntimeRunner(artifact), OpenVinoRunner(artifact)
            check = compare_runtimes(onnxruntime, openvino)
        except AgileIRError as error:
            LOGGER.info("ONNX Runtime runs %s, not OpenVINO: %s", artifact.name, error.what)
            return onnxruntime or OnnxRuntimeRunner(artifact)
        kept = {name: value if math.isfinite(value) else str(value) for name, value in asdict(check).items()}
        cache.store(facts, json.dumps(kept).encode(), kept)
    if check.objection:
        LOGGER.info("ONNX Runtime runs %s, not OpenVINO %s: %s", artifact.name, version, check.objection)
        return onnxruntime or OnnxRuntimeRunner(artifact)
    LOGGER.info(
        "OpenVINO %s runs %s, in %.2f of ONNX Runtime's time in a check", version, artifact.name, check.time_ratio
    )
    return openvino or OpenVinoRunner(artifact)


def compare_runtimes(onnxruntime: Runner, openvino: OpenVinoRunner) -> Check:
    """Runs the middle of a packaged picture under both, in turns.

    Args:
        onnxruntime: What is compared with.
        openvino: The same file under OpenVINO.
    """
    import numpy as np

    images = _picture(openvino.artifact)
    times: list[list[float]] = [[], []]
    outputs: list[Images] = []
    started = time.perf_counter()
    for number in range(-1, ROUNDS):  # round -1 warms up
        if number > 0 and time.perf_counter() - started > LONGEST:
            break
        outputs = []
        for index, runner in enumerate((onnxruntime, openvino)):
            begun = time.perf_counter()
            outputs.append(runner.run(images))
            if number >= 0:
                times[index].append(time.perf_counter() - begun)
    first, second = (np.clip(output, 0, 1).astype(np.float64) for output in outputs)
    error = float(np.mean((first - second) ** 2))  # NaN where a value is
    psnr = math.inf if error == 0 else -10 * math.log10(error) if error > 0 else -math.inf
    spec = openvino.spec
    return Check(psnr, file_floor(openvino.artifact.precision, spec.top_k), min(times[1]) / min(times[0]))


def _picture(artifact: OnnxArtifact) -> Images:
    """The middle of the first packaged picture, ``[1, C, H, W]``, of the sides that the file takes."""
    import numpy as np

    spec, fixed = artifact.spec, artifact.fixed_sizes
    rows, columns = (fixed.get(side, max(SIDE, spec.pad_multiple)) for side in ("height", "width"))
    pixels = read_image(sample_images()[0][1]).pixels
    if spec.channels == 1:
        pixels = pixels[1:2]  # green
    top, left = (max(0, have - want) // 2 for have, want in zip(pixels.shape[1:], (rows, columns), strict=True))
    middle = pixels[:, top : top + rows, left : left + columns]
    more = [(0, 0), (0, rows - middle.shape[1]), (0, columns - middle.shape[2])]
    padded: Images = np.pad(middle, more, mode="symmetric")[None].astype(np.float32)
    return padded


def _facts(artifact: OnnxArtifact, version: str) -> Facts:
    """All that the check depends on."""
    return {
        NETWORK: artifact.sha256,
        "openvino": version,
        "onnxruntime": installed_version("onnxruntime"),
        "package_version": __version__,
        "processor": processor_name(),
        "threads": [os.cpu_count(), os.environ.get("OMP_NUM_THREADS")],
    }
