"""What quantisation costs on held-out pictures, in dB: against ground truth, and against the float file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.runner import Images
from ..parity.metrics import json_number, psnr
from ..parity.task import task_metric
from ..resizing import pad_to_multiple

if TYPE_CHECKING:
    from ..export import OnnxArtifact

__all__ = ["Judge", "Picture", "Quality", "fit_to_graph"]

Run = Callable[[Images], Images]
"""Padded images ``[1, C, H, W]`` to restored ones."""


@dataclass(frozen=True)
class Picture:
    """A picture to judge on.

    Attributes:
        name: Of the file.
        given: Input of the model ``[C, H, W]``.
        truth: What it should be restored to ``[C, s*H, s*W]``; None where that is not known.
    """

    name: str
    given: Images
    truth: Images | None


@dataclass(frozen=True)
class Quality:
    """What a quantised graph loses on all pictures.

    Attributes:
        loss: Greatest loss of a picture against ground truth, in dB of the task's metric; None without ground truth.
        mean_loss: Mean of those losses.
        parity: RGB PSNR in dB against the float graph, of the worst picture.
    """

    loss: float | None
    mean_loss: float | None
    parity: float

    def holds(self, budget: float, floor: float) -> bool:
        """Whether no picture loses more than `budget` dB, and all are at least `floor` dB from the float graph's."""
        return (self.loss is None or self.loss <= budget) and self.parity >= floor

    @property
    def cost(self) -> tuple[float, float]:
        """For comparisons, greater is worse: the loss where there is ground truth, then the parity."""
        return 0.0 if self.loss is None else self.loss, -self.parity

    @property
    def mean_cost(self) -> tuple[float, float]:
        """As `cost`, of all pictures together: for choices between ways to quantise the same layers."""
        return 0.0 if self.mean_loss is None else self.mean_loss, -self.parity

    def to_json(self) -> dict[str, Any]:
        """The figures as a JSON object; infinite ones are strings."""
        figures = {"loss": self.loss, "mean_loss": self.mean_loss, "parity": self.parity}
        return {name: None if value is None else json_number(value) for name, value in figures.items()}


def fit_to_graph(pixels: Images, artifact: OnnxArtifact) -> Images:
    """``[C, H, W]`` as an input of the graph, ``[1, C, H, W]``: padded to its multiple, or to its fixed size."""
    padded, _ = pad_to_multiple(pixels[None], artifact.spec.pad_multiple)
    for axis, name in ((2, "height"), (3, "width")):
        missing = artifact.profile.get(name, padded.shape[axis]) - padded.shape[axis]
        if missing > 0:
            widths = [(0, 0)] * 4
            widths[axis] = (0, missing)
            padded = np.pad(padded, widths, mode="edge")
    return padded


class Judge:
    """The pictures, what the float graph makes of them, and how far another graph is from that.

    Args:
        artifact: The float file.
        pictures: At least one.
        reference: Runs the float graph.
    """

    def __init__(self, artifact: OnnxArtifact, pictures: Sequence[Picture], reference: Run) -> None:
        self.artifact, self.pictures = artifact, pictures
        self.metric = task_metric(artifact.spec)
        self.inputs = [fit_to_graph(picture.given, artifact) for picture in pictures]
        self.references = [self._restored(index, reference) for index in range(len(pictures))]
        self.scores = [self._score(index, output) for index, output in enumerate(self.references)]

    def _restored(self, index: int, run: Run) -> Images:
        _, height, width = self.pictures[index].given.shape
        scale = self.artifact.spec.scale
        return run(self.inputs[index])[0, :, : height * scale, : width * scale]

    def _score(self, index: int, output: Images) -> float | None:
        """Against ground truth, in dB; -inf where a value is not finite."""
        truth = self.pictures[index].truth
        return None if truth is None else self.metric(truth, output)

    def judge(self, run: Run) -> Quality:
        """Runs a quantised graph on all pictures."""
        losses, parities = [], []
        for index, (reference, score) in enumerate(zip(self.references, self.scores, strict=True)):
            output = self._restored(index, run)
            parities.append(psnr(reference, output))
            if score is not None:
                found = self._score(index, output)
                losses.append(math.inf if found is None or found == -math.inf else score - found)
        if not losses:
            return Quality(None, None, min(parities))
        return Quality(max(losses), fmean(losses), min(parities))
