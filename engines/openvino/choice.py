"""Which runtime an ONNX file gets where nobody says: OpenVINO where a check on this machine speaks for it.

The check runs a packaged picture under both runtimes, once for each file, release and processor; its result is kept in
the cache. OpenVINO must give what ONNX Runtime gives, as exactly as the ladder asks of the file, in clearly less time.
"""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import asdict, dataclass

import numpy as np

from ...cache import NETWORK, RUNTIMES, Cache, Facts, processor_name, program_facts
from ...errors import AgileIRError
from ...export.artifact import OnnxArtifact
from ...export.floors import file_floor
from ..onnxruntime.half_emulation import computes_in_half
from ..onnxruntime.runner import OnnxRuntimeRunner
from ..runner import Runner
from .loading import openvino_version
from .runner import OpenVinoRunner
from .turns import sample_input, take_turns

__all__ = ["Check", "choose_runner", "compare_runtimes"]

LOGGER = logging.getLogger(__name__)

FASTER = 0.95
"""OpenVINO's time over ONNX Runtime's from which the difference is taken for one."""


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
        kept = {name: str(value) for name, value in asdict(check).items()}  # JSON has no infinity
        cache.store(facts, json.dumps(kept).encode(), kept)
    if check.objection:
        LOGGER.info("ONNX Runtime runs %s, not OpenVINO %s: %s", artifact.name, version, check.objection)
        return onnxruntime or OnnxRuntimeRunner(artifact)
    LOGGER.info(
        "OpenVINO %s runs %s, in %.2f of ONNX Runtime's time in a check", version, artifact.name, check.time_ratio
    )
    return openvino or OpenVinoRunner(artifact)


def compare_runtimes(onnxruntime: Runner, openvino: OpenVinoRunner) -> Check:
    """Runs a packaged picture under both, in turns.

    Args:
        onnxruntime: What is compared with.
        openvino: The same file under OpenVINO.
    """
    times, outputs = take_turns((onnxruntime, openvino), sample_input(openvino.artifact))
    first, second = (np.clip(output, 0, 1).astype(np.float64) for output in outputs)
    error = float(np.mean((first - second) ** 2))
    psnr = -math.inf if math.isnan(error) else math.inf if error == 0 else -10 * math.log10(error)
    floor = file_floor(openvino.artifact.precision, openvino.spec.top_k)
    return Check(psnr, floor, min(times[1]) / min(times[0]))


def _facts(artifact: OnnxArtifact, version: str) -> Facts:
    """All that the check depends on."""
    return {
        NETWORK: artifact.sha256,
        "openvino": version,
        **program_facts(),
        "processor": processor_name(),
        "threads": [os.cpu_count(), os.environ.get("OMP_NUM_THREADS")],
    }
