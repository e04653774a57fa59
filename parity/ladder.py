"""The parity ladder: PyTorch, folded PyTorch, ONNX, ground truth; each rung judged in dB on real images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..engines import Images, OnnxRuntimeRunner, Runner
from ..engines.torch_runner import TorchRunner
from ..errors import InputError
from ..export import OnnxArtifact, read_artifact
from ..export.exporter import weights_digest
from ..export.floors import AGREEMENT_FLOORS, FLOORS, FOLDED_FLOOR, file_floor, own_dictionary_floor
from ..models import Restorer, fold
from ..progress import Progress, silent
from .bisection import first_broken
from .conditioning import conditioned_floor, own_rounding
from .images import ParityImage, textured, verification_images
from .metrics import key_agreement, max_steps, nonfinite, psnr
from .probe import OnnxProbe, block_output, dictionary_tensors, ordered_blocks, record_dictionaries
from .ranges import padded
from .report import Measure, ParityReport, Rung, TaskRung
from .task import TASK_LOSS, task_notes, task_rung
from .truths import TruthPair

__all__ = ["measure", "verify"]

Dictionaries = Sequence[torch.Tensor]


def verify(
    model: Restorer,
    onnx_file: str | Path | OnnxArtifact,
    images: Sequence[ParityImage] | None = None,
    *,
    truths: Sequence[TruthPair] = (),
    min_psnr: float | None = None,
    also: Sequence[Runner] = (),
    subject: str | None = None,
    progress: Progress = silent,
) -> ParityReport:
    """Compares an exported file with the model it came from, rung by rung.

    Args:
        model: The reference, as loaded (not folded).
        onnx_file: The exported file.
        images: Pictures in the model's channels; the packaged samples at telling sizes where None.
        truths: Ground truth to judge on, `own_pairs`; the packaged samples where empty (none of a file with a fixed
            size, nor of random weights).
        min_psnr: Floor in dB for the ONNX rungs instead of the ladder's own.
        also: Other runners of the same file, such as `OpenVinoRunner`, each with rungs of its own.
        subject: What the report calls the file; its path where None.
        progress: Told each step.

    Raises:
        InputError: The file was exported from another model or other weights, or there is no picture.
        OnnxFileError: The file cannot be read or run.
    """
    artifact = onnx_file if isinstance(onnx_file, OnnxArtifact) else read_artifact(onnx_file)
    folded = fold(model)
    _same_model(folded, artifact)
    if images is None:
        images = verification_images(artifact)
    if not images:
        raise InputError("There is no picture to verify on.", fix="Give at least one, or None for the packaged ones.")
    reference, candidate = TorchRunner(model), OnnxRuntimeRunner(artifact)
    progress("PyTorch")
    wanted: list[Images] = []
    dictionaries: list[Dictionaries] = []
    for image in images:
        with record_dictionaries() as recorded:
            wanted.append(reference.run(image.pixels[None]))
        dictionaries.append(recorded)
    progress("folded PyTorch")
    rungs: list[Rung | TaskRung] = [_folded_rung(reference, TorchRunner(folded), artifact.blocks, images[0], wanted[0])]
    progress(f"ONNX {artifact.precision}")
    semantic = any(dictionaries)
    comparison = _Comparison(artifact, model, images, wanted, dictionaries if semantic else None, progress)
    rungs += comparison.semantic_rungs(min_psnr) if semantic else [comparison.plain_rung(candidate, min_psnr)]
    runners = {"reference": reference.describe(), "candidate": candidate.describe()}
    for runner in also:
        described = runner.describe()
        runners[name := str(described["target"])] = described
        progress(name)
        rungs += comparison.own_rung(runner, name, min_psnr)
    notes: tuple[str, ...] = ()
    if truths or (artifact.provenance.get("random_weights") is None and "height" not in artifact.fixed_sizes):
        progress("ground truth")
        for judged in (candidate, *also):
            if (task := task_rung(reference, judged, TASK_LOSS[artifact.precision], pairs=truths)) is not None:
                suffix = "" if judged is candidate else f", under {judged.describe()['target']}"
                rungs.append(dataclasses.replace(task, name=task.name + suffix))
        notes = task_notes(artifact.spec, rungs)
    return ParityReport(subject or str(artifact.path), artifact.spec, tuple(rungs), runners, notes)


def _same_model(folded: Restorer, artifact: OnnxArtifact) -> None:
    if folded.spec.top_k != artifact.spec.top_k:
        raise InputError(
            f"{artifact.name} was exported with top_k {artifact.spec.top_k}, the model has {folded.spec.top_k}.",
            fix=f"Load the model with --top-k {artifact.spec.top_k}.",
        )
    wanted = artifact.provenance.get("weights_sha256")
    if wanted is not None and weights_digest(folded) != wanted:
        raise InputError(
            f"{artifact.name} was not exported from this model: the weights differ.",
            fix="Name the model and weights it came from; `agileir-export info` shows them.",
        )


def measure(image: ParityImage, truth: Images, output: Images, agreement: float | None = None) -> Measure:
    """One image, and what reference and candidate make of it, compared."""
    _, height, width = image.pixels.shape
    compared = (psnr(truth, output), max_steps(truth, output), nonfinite(output))
    return Measure(image.name, height, width, *compared, agreement)


def _folded_rung(
    reference: TorchRunner, folded: TorchRunner, blocks: Sequence[str], image: ParityImage, truth: Images
) -> Rung:
    """The model against its folded copy, on one picture."""
    pixels = image.pixels[None]
    rung = Rung("folded PyTorch = PyTorch", FOLDED_FLOOR, (measure(image, truth, folded.run(pixels)),))
    if rung.passed or not blocks:
        return rung

    def output(runner: TorchRunner) -> Callable[[str], Images]:
        return lambda block: block_output(runner.model, pixels, block)

    return dataclasses.replace(rung, broken_block=first_broken(blocks, output(reference), output(folded), rung.floor))


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """The ONNX rungs of one file.

    Attributes:
        artifact: The file.
        model: The reference.
        images: The pictures.
        truths: What the reference makes of them.
        dictionaries: The reference's dictionaries for each picture, stage by stage; None for other models.
        progress: See `verify`.
    """

    artifact: OnnxArtifact
    model: Restorer
    images: Sequence[ParityImage]
    truths: Sequence[Images]
    dictionaries: Sequence[Dictionaries] | None
    progress: Progress

    def own_rung(self, runner: Runner, name: str, min_psnr: float | None) -> list[Rung]:
        """The file as another runtime runs it: keys are chosen inside, where they cannot be looked at."""
        precision = self.artifact.precision
        judged = self if self.dictionaries is None else self.textured()
        floor = file_floor(precision, self.artifact.spec.top_k) if min_psnr is None else min_psnr
        outputs = [runner.run(image.pixels[None]) for image in judged.images]
        measures = tuple(map(measure, judged.images, judged.truths, outputs))
        return [Rung(f"{name} {precision} = PyTorch", floor, measures)] if measures else []

    def plain_rung(self, candidate: OnnxRuntimeRunner, min_psnr: float | None) -> Rung:
        """The file as it is."""
        precision = self.artifact.precision
        floor = FLOORS[precision] if min_psnr is None else min_psnr
        outputs = [candidate.run(image.pixels[None]) for image in self.images]
        measures = tuple(map(measure, self.images, self.truths, outputs))
        rung = Rung(f"ONNX {precision} = PyTorch", floor, measures)
        if not rung.passed and min_psnr is None:
            rung = self.conditioned(rung)
        return rung if rung.passed else self.localised(rung)

    def conditioned(self, rung: Rung) -> Rung:
        """The rung of a library's network in float32 with the floor that its own rounding leaves, where that is less.

        Our own families are held to the floor as it is: they are built so that they can.
        """
        if self.artifact.precision != "float32" or not self.artifact.spec.library:
            return rung
        self.progress("the network in float64")
        own = own_rounding(self.model, [image.pixels[None] for image in self.images], self.truths)
        floor = rung.floor if own is None else conditioned_floor(own)
        if floor >= rung.floor:
            return rung
        return dataclasses.replace(rung, floor=floor, note=f"PyTorch's own float32 is {own:.1f} dB from float64")

    def semantic_rungs(self, min_psnr: float | None) -> list[Rung]:
        """Two rungs of a key-semantic model: the file chooses its keys itself, and it is given PyTorch's."""
        graph, precision = self.artifact.model, self.artifact.precision
        names = dictionary_tensors(graph)
        floor = FLOORS[precision] if min_psnr is None else min_psnr
        own_floor = own_dictionary_floor(precision) if min_psnr is None else min_psnr
        free = OnnxProbe(graph, names)
        judged = self.textured()
        own = []
        for image, truth, recorded in judged.triples():
            given, (rows, columns) = self.padded(image)
            output, found = free.run(given)
            agreement = key_agreement(_arrays(recorded), found) if names else None
            own.append(measure(image, truth, output[..., :rows, :columns], agreement))
        notes = [] if names else ["decomposed: its dictionaries cannot be looked at"]
        if left_out := len(self.images) - len(own):
            notes.append(f"{left_out} image(s) padded by repeating an edge not judged here: their keys all tie")
        if not own and not names:
            raise InputError(
                f"{self.artifact.name} cannot be judged on these pictures: padded by repeating an edge, all keys tie.",
                fix=f"Give larger pictures or sizes; {self.artifact.spec.pad_multiple} pixels a side always do.",
            )
        rungs = []
        if own:
            agreement_floor = AGREEMENT_FLOORS[precision] if names else None
            name = f"ONNX {precision} = PyTorch, own dictionary"
            first = Rung(name, own_floor, tuple(own), agreement_floor, note="; ".join(notes))
            rungs.append(first if first.passed else judged.localised(first))
        if names:
            fed = OnnxProbe(graph, feed_dictionaries=True)
            same = []
            for image, truth, recorded in self.triples():
                given, (rows, columns) = self.padded(image)
                output, _ = fed.run(given, _arrays(recorded))
                same.append(measure(image, truth, output[..., :rows, :columns]))
            second = Rung(f"ONNX {precision} = PyTorch, same dictionary", floor, tuple(same))
            rungs.append(second if second.passed else self.localised(second, feed=True))
        return rungs

    def triples(self) -> list[tuple[ParityImage, Images, Dictionaries]]:
        """Image, reference and dictionaries, image by image."""
        return list(zip(self.images, self.truths, self.dictionaries or (), strict=True))

    def textured(self) -> _Comparison:
        """The comparison without images whose padding repeats an edge: tokens tie there, and any choice is right."""
        kept = [t for t in self.triples() if textured(t[0].pixels, padded(self.artifact, t[0]))]
        return dataclasses.replace(
            self, images=[t[0] for t in kept], truths=[t[1] for t in kept], dictionaries=[t[2] for t in kept]
        )

    def padded(self, image: ParityImage) -> tuple[Images, tuple[int, int]]:
        """Input of the graph for an image, and (rows, columns) of the restored image in its output."""
        rows, columns = (side * self.artifact.spec.scale for side in image.pixels.shape[1:])
        return padded(self.artifact, image), (rows, columns)

    def localised(self, rung: Rung, feed: bool = False) -> Rung:
        """Names the block of a failed rung at which its worst image begins to differ."""
        graph = self.artifact.model
        blocks = ordered_blocks(graph, self.artifact.blocks)
        if not blocks:
            return rung
        worst = min(range(len(self.images)), key=lambda index: _badness(rung.measures[index]))
        worst_input = padded(self.artifact, self.images[worst])
        fed = _arrays(self.dictionaries[worst]) if feed and self.dictionaries is not None else []

        def expected(block: str) -> Images:
            self.progress(f"looking at {block}")
            return block_output(self.model, self.images[worst].pixels[None], block)

        def found(block: str) -> Images:
            probe = OnnxProbe(graph, [block], feed_dictionaries=feed)
            output: Images = np.ldexp(probe.run(worst_input, fed)[1][0], self.artifact.rescale.get(block, 0))
            return output

        return dataclasses.replace(rung, broken_block=first_broken(blocks, expected, found, rung.floor))


def _badness(measure: Measure) -> tuple[float, float]:
    return measure.psnr, 1.0 if measure.agreement is None else measure.agreement


def _arrays(dictionaries: Dictionaries) -> list[Any]:
    return [tensor.numpy() for tensor in dictionaries]
