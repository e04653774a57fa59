"""The rungs of a built engine: against PyTorch, and against ground truth, on the GPU that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..engines.artifact import EngineArtifact
from ..engines.profiles import Profile
from ..engines.runner import Runner
from ..engines.torch_runner import TorchRunner
from ..errors import InputError
from ..export.exporter import weights_digest
from ..export.floors import file_floor
from ..models import Restorer, fold
from ..progress import Progress, silent
from .images import ParityImage, load_images
from .ladder import measure
from .report import ParityReport, Rung, TaskRung
from .task import TASK_LOSS, task_notes, task_rung
from .truths import TruthPair

__all__ = ["engine_images", "engine_sizes", "verify_engine"]


def engine_sizes(profile: Profile, multiple: int) -> list[tuple[int, int]]:
    """Rows and columns that show mistakes of one profile: its smallest size, and one off the window's grid above it.

    Args:
        profile: The profile.
        multiple: Sides that the network takes, pixels.
    """
    (_, low_rows, low_columns), (_, high_rows, high_columns) = profile.minimum, profile.maximum
    off = [min(low + 2 * multiple, high) - 3 for low, high in ((low_rows, high_rows), (low_columns, high_columns))]
    sizes = [(low_rows, low_columns)]
    if off[0] > low_rows - multiple and off[1] > low_columns - multiple and min(off) >= 1:
        sizes.append((off[0], off[1]))
    return sizes


def engine_images(
    engine: EngineArtifact, paths: Sequence[str | Path] = (), sizes: Sequence[tuple[int, int]] = ()
) -> list[ParityImage]:
    """Pictures to verify an engine on, at sizes its profiles hold; smaller pictures are continued by mirroring.

    Args:
        engine: The engine.
        paths: Image files and folders; the packaged samples where empty.
        sizes: (rows, columns) of the crops; `engine_sizes` of every profile where empty.

    Raises:
        ImageError: A path holds no readable image.
        InputError: A size is outside every profile: padding further than to the window changes the result.
    """
    multiple = engine.spec.pad_multiple
    for rows, columns in sizes:
        if not _takes(engine, rows, columns):
            raise InputError(
                f"The size {rows}x{columns} is outside the profiles of {engine.path}: "
                f"{', '.join(map(str, engine.profiles))}.",
                why="An engine pads smaller pictures up to its profile, which is not what PyTorch computes.",
                fix="Give a size within a profile.",
            )
    chosen = sizes or [size for profile in engine.profiles for size in engine_sizes(profile, multiple)]
    chosen = list(dict.fromkeys(chosen))
    images = load_images(engine.spec, paths, chosen)
    wanted = (chosen[index % len(chosen)] for index in range(len(images)))  # as `load_images` deals them out
    return [_mirrored(image, *size) for image, size in zip(images, wanted, strict=True)]


def verify_engine(
    model: Restorer,
    engine: EngineArtifact,
    runner: Runner,
    images: Sequence[ParityImage],
    *,
    truths: Sequence[TruthPair] = (),
    min_psnr: float | None = None,
    subject: str | None = None,
    progress: Progress = silent,
) -> ParityReport:
    """Compares an engine with the model it came from, in dB.

    A key-semantic model chooses its keys inside the engine, where they cannot be looked at: its floor is that of a file
    with its own dictionary, without the agreement of the keys.

    Args:
        model: The reference, as loaded.
        engine: What the engine says of itself.
        runner: The engine, opened.
        images: Pictures from `engine_images`.
        truths: Ground truth to judge on, `own_pairs`, as far as the profiles take it; the packaged samples where empty
            (none of random weights).
        min_psnr: Floor in dB instead of the ladder's own.
        subject: What the report calls the engine; its path where None.
        progress: Told each step.

    Raises:
        InputError: The engine was built from other weights, or there is no picture.
    """
    if weights_digest(fold(model)) != engine.provenance.get("weights_sha256"):
        raise InputError(
            f"{engine.path} was not built from this model: the weights differ.",
            fix="Name the model and weights it came from with --reference.",
        )
    if not images:
        raise InputError("There is no picture to verify on.", fix="Give at least one.")
    reference = TorchRunner(model)
    floor = file_floor(engine.precision, engine.spec.top_k) if min_psnr is None else min_psnr
    measures = []
    for image in images:
        progress(f"{image.name} at {image.pixels.shape[1]}x{image.pixels.shape[2]}")
        truth, output = (one.run(image.pixels[None]) for one in (reference, runner))
        measures.append(measure(image, truth, output))
    rungs: list[Rung | TaskRung] = [Rung(f"engine {engine.precision} = PyTorch", floor, tuple(measures))]
    notes: tuple[str, ...] = ()
    if truths or engine.provenance.get("random_weights") is None:
        progress("ground truth")
        accepts = lambda rows, columns: _takes(engine, rows, columns)  # noqa: E731
        if (task := task_rung(reference, runner, TASK_LOSS[engine.precision], accepts, truths)) is not None:
            rungs.append(task)
        notes = task_notes(engine.spec, rungs)
        if truths and task is None:
            notes += ("Not judged against ground truth: no profile takes an input of its sizes.",)
    runners = {"reference": reference.describe(), "candidate": runner.describe()}
    return ParityReport(subject or str(engine.path), engine.spec, tuple(rungs), runners, notes)


def _mirrored(image: ParityImage, rows: int, columns: int) -> ParityImage:
    """The picture, continued by mirroring to at least this size."""
    _, height, width = image.pixels.shape
    missing = ((0, 0), (0, max(0, rows - height)), (0, max(0, columns - width)))
    return ParityImage(image.name, np.ascontiguousarray(np.pad(image.pixels, missing, mode="symmetric")))


def _takes(engine: EngineArtifact, rows: int, columns: int) -> bool:
    """Whether a picture, padded to the window only, is inside a profile."""
    multiple = engine.spec.pad_multiple
    shape = rows + -rows % multiple, columns + -columns % multiple
    return any((profile.optimum[0], *shape) in profile for profile in engine.profiles)
