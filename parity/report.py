"""What a comparison found: measures, rungs, and the report with its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..json_form import JsonForm, plain
from ..models.spec import ModelSpec

__all__ = ["Measure", "ParityReport", "Rung", "TaskMeasure", "TaskRung"]


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
class Rung(JsonForm):
    """One step of the ladder.

    Attributes:
        name: What is compared.
        floor: Least PSNR in dB that every image must reach.
        measures: The images.
        agreement_floor: Least dictionary agreement, or None.
        broken_block: First block whose output misses the floor, looked for only where the rung failed.
        note: What a reader should know.
    """

    name: str
    floor: float
    measures: tuple[Measure, ...]
    agreement_floor: float | None = None
    broken_block: str | None = None
    note: str = ""

    @property
    def worst(self) -> float:
        """PSNR of the worst image."""
        return min(measure.psnr for measure in self.measures)

    @property
    def agreement(self) -> float | None:
        """Dictionary agreement of the worst image."""
        found = [m.agreement for m in self.measures if m.agreement is not None]
        return min(found) if found else None

    @property
    def passed(self) -> bool:
        """Whether every image holds the floors and every value is finite."""
        if any(measure.nonfinite for measure in self.measures) or not self.worst >= self.floor:
            return False
        return self.agreement_floor is None or (self.agreement or 0.0) >= self.agreement_floor

    def to_json(self) -> dict[str, Any]:
        """The rung as a JSON object."""
        facts = {"worst": self.worst, "agreement": self.agreement, "passed": self.passed}
        return super().to_json() | {"task": [], **plain(facts)}


@dataclass(frozen=True)
class TaskRung:
    """The step that looks at ground truth: the candidate restores as well as the reference does.

    Attributes:
        name: What is compared.
        greatest_loss: dB that the candidate may be worse on every image.
        measures: The images.
    """

    name: str
    greatest_loss: float
    measures: tuple[TaskMeasure, ...]

    @property
    def loss(self) -> float:
        """DB lost on the image that loses most."""
        return max(measure.loss for measure in self.measures)

    @property
    def passed(self) -> bool:
        """Whether no image loses more than it may."""
        return self.loss <= self.greatest_loss

    def to_json(self) -> dict[str, Any]:
        """The rung as a JSON object of the same names as `Rung`'s: its floor is the loss that is allowed."""
        bare = Rung(self.name, self.greatest_loss, ())
        facts = {"task": self.measures, "worst": -self.loss, "passed": self.passed, "agreement": None}
        return JsonForm.to_json(bare) | {**plain(facts)}


@dataclass(frozen=True)
class ParityReport(JsonForm):
    """The ladder of one file.

    Attributes:
        subject: The file or model looked at.
        spec: Its spec.
        rungs: The steps, in order.
        runners: What ran, by role.
        notes: What was left out, and why.
    """

    subject: str
    spec: ModelSpec
    rungs: tuple[Rung | TaskRung, ...]
    runners: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every rung passed."""
        return all(rung.passed for rung in self.rungs)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object; infinite numbers are strings."""
        return super().to_json() | {"passed": self.passed}
