"""The task rung: does the exported file still restore, measured against ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..engines.runner import Images, Runner
from ..images.resizing import resize_bicubic
from ..models.spec import ModelSpec
from .metrics import psnr, psnr_y
from .report import Rung, TaskMeasure, TaskRung
from .truths import TruthPair, sample_pairs, without_truth

__all__ = ["TASK_LOSS", "task_metric", "task_notes", "task_rung"]

TASK_LOSS = {"float32": 0.01, "float16": 0.02, "bfloat16": 0.1, "int8": 0.1}
"""dB that a file may lose against ground truth, by its precision."""


def task_notes(spec: ModelSpec, rungs: Sequence[Rung | TaskRung]) -> tuple[str, ...]:
    """What a reader should know of the task: that it could not be judged, or that the model itself does it badly."""
    measures = [measure for rung in rungs if isinstance(rung, TaskRung) for measure in rung.measures]
    if not measures and (reason := without_truth(spec)):
        return (f"Not judged against ground truth: {reason}.",)
    return tuple(
        f"The model makes {measure.image} worse: {measure.reference:.2f} dB; its input has {measure.baseline:.2f} dB."
        for measure in measures[:1]
        if all(each.reference < each.baseline for each in measures)
    )


def task_metric(spec: ModelSpec) -> Callable[[Images, Images], float]:
    """How a restored image is measured against ground truth, in dB.

    Super-resolution: Y PSNR with a border of the scale; other tasks: RGB PSNR on clamped images.
    """
    if spec.task == "super-resolution":
        return lambda truth, restored: psnr_y(truth, restored, spec.scale)
    return psnr


def task_rung(
    reference: Runner,
    candidate: Runner,
    loss: float,
    accepts: Callable[[int, int], bool] = lambda rows, columns: True,
    pairs: Sequence[TruthPair] = (),
) -> TaskRung | None:
    """Reference and candidate against ground truth; None where there is none (`without_truth`).

    Measured by `task_metric`.

    Args:
        reference: The PyTorch model.
        candidate: The exported file or engine.
        loss: Greatest loss in dB of the candidate against the reference.
        accepts: Whether the candidate takes an input of this many rows and columns; pictures it does not take are left
            out, and where none is left there is no rung.
        pairs: The ground truth; the packaged pictures where empty.
    """
    spec = reference.spec
    measure = task_metric(spec)
    measures = []
    for pair in pairs or sample_pairs(spec):
        if not accepts(*pair.given.shape[1:]):
            continue
        baseline = pair.given if spec.scale == 1 else resize_bicubic(pair.given, spec.scale)
        restored = [measure(pair.truth, runner.run(pair.given[None])[0]) for runner in (reference, candidate)]
        measures.append(TaskMeasure(pair.name, measure(pair.truth, baseline), *restored))
    return TaskRung("restores ground truth as PyTorch does", loss, tuple(measures)) if measures else None
