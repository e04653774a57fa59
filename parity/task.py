"""The task rung: does the exported file still restore, measured against ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..engines.runner import Images, Runner
from ..images.files import read_image, sample_images
from ..images.picture import to_channels
from ..images.resizing import resize_bicubic
from ..models.spec import ModelSpec
from .metrics import psnr, psnr_y
from .report import Rung, TaskMeasure, TaskRung

__all__ = ["TASK_LOSS", "degrade", "task_metric", "task_notes", "task_rung", "without_truth"]

TASK_LOSS = {"float32": 0.01, "float16": 0.02, "bfloat16": 0.1, "int8": 0.1}
"""dB that a file may lose against ground truth, by its precision."""

SEED = 0


def without_truth(spec: ModelSpec) -> str | None:
    """Why a model cannot be judged against ground truth, in words; None where it can."""
    if spec.channels not in (1, 3):
        return f"there is no ground truth of {spec.channels} channels: the packaged pictures are RGB"
    if spec.task == "super-resolution" or (spec.task == "denoising" and spec.noise_level is not None):
        return None
    return f"what degrades a picture of the task {spec.task} is not known"


def task_notes(spec: ModelSpec, rungs: Sequence[Rung | TaskRung]) -> tuple[str, ...]:
    """What a reader should know of the task: that it could not be judged, or that the model itself does it badly."""
    if reason := without_truth(spec):
        return (f"Not judged against ground truth: {reason}.",)
    measures = [measure for rung in rungs if isinstance(rung, TaskRung) for measure in rung.measures]
    return tuple(
        f"The model makes {measure.image} worse: {measure.reference:.2f} dB; its input has {measure.baseline:.2f} dB."
        for measure in measures[:1]
        if all(each.reference < each.baseline for each in measures)
    )


def degrade(truth: Images, spec: ModelSpec) -> Images | None:
    """The input from which a model is to restore `truth` [C, H, W]; None where that is not known (`without_truth`).

    Super-resolution: MATLAB bicubic, rounded to 8 bits. Denoising at a known level: Gaussian noise of fixed seed.
    """
    if without_truth(spec) is not None:
        return None
    if spec.task == "super-resolution":
        return resize_bicubic(truth, 1 / spec.scale, quantize=True)
    noise = np.random.default_rng(SEED).standard_normal(truth.shape)
    return (truth + noise * (spec.noise_level or 0) / 255).astype(np.float32)


def task_metric(spec: ModelSpec) -> Callable[[Images, Images], float]:
    """How a restored image is measured against ground truth, in dB.

    Super-resolution: Y PSNR with a border of the scale; other tasks: RGB PSNR on clamped images.
    """
    if spec.task == "super-resolution":
        return lambda truth, restored: psnr_y(truth, restored, spec.scale)
    return psnr


def task_rung(
    reference: Runner, candidate: Runner, loss: float, accepts: Callable[[int, int], bool] = lambda rows, columns: True
) -> TaskRung | None:
    """Reference and candidate against the packaged pictures; None where there is none (`without_truth`).

    Measured by `task_metric`.

    Args:
        reference: The PyTorch model.
        candidate: The exported file or engine.
        loss: Greatest loss in dB of the candidate against the reference.
        accepts: Whether the candidate takes an input of this many rows and columns; pictures it does not take are left
            out, and where none is left there is no rung.
    """
    spec = reference.spec
    measure = task_metric(spec)
    measures = []
    for name, path in sample_images():
        pixels = to_channels(read_image(path).pixels, spec.channels)
        height, width = (size // spec.scale * spec.scale for size in pixels.shape[1:])
        truth = np.ascontiguousarray(pixels[:, :height, :width])
        given = degrade(truth, spec)
        if given is None:
            return None
        if not accepts(*given.shape[1:]):
            continue
        baseline = given if spec.scale == 1 else resize_bicubic(given, spec.scale)
        restored = [measure(truth, runner.run(given[None])[0]) for runner in (reference, candidate)]
        measures.append(TaskMeasure(name, measure(truth, baseline), *restored))
    return TaskRung("restores ground truth as PyTorch does", loss, tuple(measures)) if measures else None
