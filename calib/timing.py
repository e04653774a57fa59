"""What INT8 gains in time on this machine: the quantised file against the float one, under the same runtime."""

from __future__ import annotations

import logging
import statistics
from dataclasses import dataclass

from ..engines.onnxruntime.runner import OnnxRuntimeRunner
from ..engines.openvino.loading import openvino_version
from ..engines.openvino.runner import OpenVinoRunner
from ..engines.openvino.turns import sample_input, take_turns
from ..errors import AgileIRError
from ..export.artifact import OnnxArtifact
from ..json_form import JsonForm
from ..progress import Progress, silent

__all__ = ["TimeGain", "time_gains"]

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class TimeGain(JsonForm):
    """Both files under one runtime, in turns.

    Attributes:
        runtime: ``"onnxruntime"`` or ``"openvino"``.
        version: Its version.
        rows: Height of the input, pixels.
        columns: Its width.
        rounds: How often each file ran.
        float32_seconds: The least time of the float32 file.
        int8_seconds: The least time of the INT8 file.
        ratio: INT8's least time over float32's.
        median_ratio: The same of the medians.
    """

    runtime: str
    version: str
    rows: int
    columns: int
    rounds: int
    float32_seconds: float
    int8_seconds: float
    ratio: float
    median_ratio: float

    def told(self) -> tuple[str, str]:
        """A line of a table: what, and the figure."""
        milliseconds = f"{self.int8_seconds * 1e3:.0f} ms after {self.float32_seconds * 1e3:.0f} ms"
        size = f"{self.rows}x{self.columns} pixels"
        return (
            f"time under {self.runtime} {self.version}",
            f"{self.ratio:.2f} of float32's (medians: {self.median_ratio:.2f}); {milliseconds}, {size}",
        )


def time_gains(source: OnnxArtifact, made: OnnxArtifact, progress: Progress = silent) -> list[TimeGain]:
    """Measures both files under ONNX Runtime, and under OpenVINO where it is installed.

    Args:
        source: The float32 file.
        made: The INT8 file made of it, everything else in float32: a CPU takes no time from half precision, which is
            emulated there. Of other files nothing is measured.
        progress: Told each runtime.
    """
    if source.precision != "float32" or made.conversion:
        return []
    images, gains = sample_input(source), []
    for kind in (OnnxRuntimeRunner, OpenVinoRunner) if openvino_version() else (OnnxRuntimeRunner,):
        try:
            runners = [kind(artifact) for artifact in (source, made)]
        except AgileIRError as error:  # the files are as good as they were
            LOGGER.info("Time not measured: %s", error.what)
            continue
        described = runners[0].describe()
        progress(str(described["target"]))
        (before, after), _ = take_turns(runners, images)
        gains.append(
            TimeGain(
                runtime=described["target"],
                version=described["version"],
                rows=images.shape[2],
                columns=images.shape[3],
                rounds=len(before),
                float32_seconds=min(before),
                int8_seconds=min(after),
                ratio=min(after) / min(before),
                median_ratio=statistics.median(after) / statistics.median(before),
            )
        )
    return gains
