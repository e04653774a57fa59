"""What quantisation loses on held-out pictures, in dB: against ground truth, and against the float file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.runner import Images
from ..images.resizing import pad_to_multiple
from ..json_form import JsonForm
from ..parity.images import textured
from ..parity.metrics import key_agreement, psnr
from ..parity.tables import decibels
from ..parity.task import task_metric
from .options import CalibrationOptions

if TYPE_CHECKING:
    from ..export import OnnxArtifact

__all__ = ["Judge", "Picture", "Quality", "Run", "describe", "fit_to_graph"]

Run = Callable[[Images], tuple[Images, Sequence[Any]]]
"""Padded images ``[1, C, H, W]`` to restored ones and the dictionaries of a key-semantic model (else none)."""


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
class Quality(JsonForm):
    """What a quantised graph loses on all pictures.

    Attributes:
        loss: Greatest loss of a picture against ground truth, in dB of the task's metric; None without ground truth.
        mean_loss: Mean of those losses.
        parity: RGB PSNR in dB against the float graph, of the worst picture.
        agreement: Share of the keys that the dictionaries of both graphs hold, in the worst picture; None for models
            without them.
    """

    loss: float | None
    mean_loss: float | None
    parity: float
    agreement: float | None = None

    def usage(self, options: CalibrationOptions) -> float:
        """Greatest part of an allowance that is used: loss, amplitude of the noise, keys that differ."""
        used = [10 ** min((options.min_parity - self.parity) / 20, 300.0)]
        if self.loss is not None:
            used.append(_part(self.loss, options.psnr_budget))
        if self.agreement is not None:
            used.append(_part(1 - self.agreement, 1 - options.min_agreement))
        return max(used)

    def holds(self, options: CalibrationOptions) -> bool:
        """Whether no more than every allowance is used."""
        return self.usage(options) <= 1

    @property
    def rank(self) -> tuple[float, float]:
        """For choices between ways to quantise the same layers: mean loss, then parity; less is better."""
        return 0.0 if self.mean_loss is None else self.mean_loss, -self.parity


def _part(used: float, allowed: float) -> float:
    """Part of an allowance; nothing used is 0 of any."""
    if used <= 0:
        return 0.0
    return used / allowed if allowed > 0 else math.inf


def describe(quality: Quality) -> str:
    """A quality in words."""
    told = [f"{decibels(quality.parity)} from float"]
    if quality.loss is not None and quality.mean_loss is not None:
        told.insert(0, f"{quality.loss:.4f} dB lost on the worst picture, {quality.mean_loss:.4f} in the mean")
    if quality.agreement is not None:
        told.append(f"{quality.agreement:.2%} of the keys equal")
    return ", ".join(told)


def fit_to_graph(pixels: Images, artifact: OnnxArtifact) -> Images:
    """``[C, H, W]`` as an input of the graph, ``[1, C, H, W]``: padded to its multiple, or to its fixed size."""
    padded, _ = pad_to_multiple(pixels[None], artifact.spec.pad_multiple)
    for axis, name in ((2, "height"), (3, "width")):
        missing = artifact.fixed_sizes.get(name, padded.shape[axis]) - padded.shape[axis]
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
        outputs = [self._restored(index, reference) for index in range(len(pictures))]
        self.references = [restored for restored, _ in outputs]
        self.dictionaries = [dictionaries for _, dictionaries in outputs]
        self.scores = [self._score(index, restored) for index, restored in enumerate(self.references)]

    def _restored(self, index: int, run: Run) -> tuple[Images, Sequence[Any]]:
        _, height, width = self.pictures[index].given.shape
        scale = self.artifact.spec.scale
        output, dictionaries = run(self.inputs[index])
        return output[0, :, : height * scale, : width * scale], dictionaries

    def _score(self, index: int, output: Images) -> float | None:
        """Against ground truth, in dB; -inf where a value is not finite."""
        truth = self.pictures[index].truth
        return None if truth is None else self.metric(truth, output)

    def judge(self, run: Run) -> Quality:
        """Runs a quantised graph on all pictures."""
        losses, parities, agreements = [], [], []
        for index, (reference, score) in enumerate(zip(self.references, self.scores, strict=True)):
            output, dictionaries = self._restored(index, run)
            parities.append(psnr(reference, output))
            if dictionaries and textured(self.pictures[index].given, self.inputs[index]):
                agreements.append(key_agreement(self.dictionaries[index], dictionaries))
            if score is not None:
                found = self._score(index, output)
                losses.append(math.inf if found is None or found == -math.inf else score - found)
        return Quality(
            max(losses, default=None), fmean(losses) if losses else None, min(parities), min(agreements, default=None)
        )
