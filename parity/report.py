"""What a comparison found: measures, rungs, and the report with its verdict."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..models.spec import ModelSpec
from .metrics import json_number

__all__ = ["Measure", "ParityReport", "Rung", "TaskMeasure"]


@dataclass(frozen=True)
class Measure:
    """One image through reference and candidate.

    Attributes:
        image: Name of the image.
        height: Rows of the network's input image, pixels.
        width: Columns, pixels.
        psnr: RGB PSNR in dB at peak 1.0; inf where identical, -inf where a value is not finite.
        max_steps: Greatest difference in 8-bit steps.
        nonfinite: Values of the candidate that are NaN or infinite.
        agreement: Share of the keys of a key-semantic model's dictionaries that reference and candidate both hold,
            over all rows and stages; None for other models.
    """

    image: str
    height: int
    width: int
    psnr: float
    max_steps: float
    nonfinite: int
    agreement: float | None = None


@dataclass(frozen=True)
class TaskMeasure:
    """One image against ground truth, in the protocol of the task.

    Attributes:
        image: Name of the image.
        baseline: dB of the degraded input (bicubic up-scaling, or the noisy image).
        reference: dB of the PyTorch model.
        candidate: dB of the candidate.
    """

    image: str
    baseline: float
    reference: float
    candidate: float

    @property
    def loss(self) -> float:
        """Decibels that the candidate is worse than the reference; inf where it is not finite."""
        if self.candidate == -math.inf:
            return math.inf
        return 0.0 if self.candidate == self.reference else self.reference - self.candidate


@dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Attributes:
        name: What is compared.
        floor: Least PSNR in dB that every image must reach; for the task rung the greatest loss in dB.
        measures: The images, empty for the task rung.
        agreement_floor: Least dictionary agreement, or None.
        task: The images against ground truth, empty for the other rungs.
        broken_block: First block whose output misses the floor, looked for only where the rung failed.
        note: What a reader should know.
    """

    name: str
    floor: float
    measures: tuple[Measure, ...] = ()
    agreement_floor: float | None = None
    task: tuple[TaskMeasure, ...] = ()
    broken_block: str | None = None
    note: str = ""

    @property
    def worst(self) -> float:
        """PSNR of the worst image; for the task rung minus the greatest loss."""
        if self.task:
            return min(-measure.loss for measure in self.task)
        return min(measure.psnr for measure in self.measures)

    @property
    def agreement(self) -> float | None:
        """Dictionary agreement of the worst image."""
        found = [m.agreement for m in self.measures if m.agreement is not None]
        return min(found) if found else None

    @property
    def passed(self) -> bool:
        """Whether every image holds the floors and every value is finite."""
        if self.task:
            return self.worst >= -self.floor
        if any(measure.nonfinite for measure in self.measures) or not self.worst >= self.floor:
            return False
        return self.agreement_floor is None or (self.agreement or 0.0) >= self.agreement_floor


@dataclass(frozen=True)
class ParityReport:
    """The ladder of one file.

    Attributes:
        subject: The file or model looked at.
        spec: Its spec.
        rungs: The steps, in order.
        runners: What ran, by role.
    """

    subject: str
    spec: ModelSpec
    rungs: tuple[Rung, ...]
    runners: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every rung passed."""
        return all(rung.passed for rung in self.rungs)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object; infinite numbers are strings."""
        rungs = [
            dataclasses.asdict(rung) | {"worst": rung.worst, "agreement": rung.agreement, "passed": rung.passed}
            for rung in self.rungs
        ]
        plain: dict[str, Any] = _plain(
            {
                "subject": self.subject,
                "passed": self.passed,
                "spec": self.spec.to_json(),
                "rungs": rungs,
                "runners": self.runners,
            }
        )
        return plain


def _plain(value: Any) -> Any:
    """Replaces numbers JSON cannot hold, and tuples."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return json_number(value) if isinstance(value, float) else value
