"""The parity ladder: PyTorch, folded PyTorch, ONNX, ground truth; each rung judged in dB on real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engines import Images, OnnxRuntimeRunner
from ..engines.torch_runner import TorchRunner
from ..errors import InputError
from ..export import OnnxArtifact, read_artifact
from ..export.exporter import weights_digest
from ..models import Restorer, fold
from ..resizing import pad_to_multiple
from .images import TestImage, load_images
from .metrics import max_steps, nonfinite, psnr
from .probe import OnnxProbe, block_output, dictionary_tensors, record_dictionaries
from .report import Measure, ParityReport, Rung
from .task import TASK_LOSS, task_rung

if TYPE_CHECKING:
    import onnx

__all__ = ["AGREEMENT_FLOORS", "DICTIONARY_FLOORS", "FLOORS", "FOLDED_FLOOR", "verify"]

FOLDED_FLOOR = 120.0
"""dB between a model and its folded copy."""

FLOORS = {"float32": 100.0, "float16": 60.0, "bfloat16": 45.0, "int8": 38.0}
"""dB between PyTorch in float32 and an ONNX file, by the file's precision."""

DICTIONARY_FLOORS = {"float32": 80.0, "float16": 50.0}
"""dB where a model chooses keys itself: a near-tie flips by rounding alone and moves its pixel."""

AGREEMENT_FLOORS = {"float32": 0.999, "float16": 0.99, "bfloat16": 0.99, "int8": 0.99}
"""Share of equal dictionary bits."""

Progress = Callable[[str], None]


def verify(
    model: Restorer,
    onnx_file: str | Path | OnnxArtifact,
    images: Sequence[TestImage] | None = None,
    *,
    min_psnr: float | None = None,
    progress: Progress = lambda step: None,
) -> ParityReport:
    """Compares an exported file with the model it came from, rung by rung.

    Args:
        model: The reference, as loaded (not folded).
        onnx_file: The exported file.
        images: Pictures in the model's channels; the packaged samples at telling sizes where None.
        min_psnr: Floor in dB for the ONNX rungs instead of the ladder's own.
        progress: Called with a few words before each step.

    Raises:
        InputError: The file was exported from another model or other weights.
        OnnxFileError: The file cannot be read or run.
    """
    artifact = onnx_file if isinstance(onnx_file, OnnxArtifact) else read_artifact(onnx_file)
    folded = fold(model)
    _same_weights(folded, artifact)
    if images is None:
        sizes = None
        if "height" in artifact.profile:
            sizes = [(artifact.profile["height"], artifact.profile["width"])]
        images = load_images(artifact.spec, sizes=sizes)
    reference, candidate = TorchRunner(model), OnnxRuntimeRunner(artifact)
    progress("PyTorch")
    truths: list[Images] = []
    dictionaries: list[list[torch.Tensor]] = []
    for image in images:
        with record_dictionaries() as recorded:
            truths.append(reference.run(image.pixels[None]))
        dictionaries.append(recorded)
    progress("folded PyTorch")
    rewritten = TorchRunner(folded)
    first = _measure(images[0], truths[0], rewritten.run(images[0].pixels[None]))
    rungs = [Rung("folded PyTorch = PyTorch", FOLDED_FLOOR, (first,))]
    progress(f"ONNX {artifact.precision}")
    if any(dictionaries):
        rungs += _semantic_rungs(artifact, images, truths, dictionaries, min_psnr)
    else:
        floor = min_psnr if min_psnr is not None else FLOORS[artifact.precision]
        measures = [_measure(i, t, candidate.run(i.pixels[None])) for i, t in zip(images, truths, strict=True)]
        rungs.append(Rung(f"ONNX {artifact.precision} = PyTorch", floor, tuple(measures)))
    rungs = [rung if rung.passed else _localise(rung, model, artifact, images, progress) for rung in rungs]
    if artifact.provenance.get("random_weights") is None and "height" not in artifact.profile:
        progress("ground truth")
        if (task := task_rung(reference, candidate, TASK_LOSS[artifact.precision])) is not None:
            rungs.append(task)
    runners = {"reference": reference.describe(), "candidate": candidate.describe()}
    return ParityReport(str(artifact.path), artifact.spec, tuple(rungs), runners)


def _same_weights(folded: Restorer, artifact: OnnxArtifact) -> None:
    wanted = artifact.provenance.get("weights_sha256")
    if wanted is not None and weights_digest(folded) != wanted:
        raise InputError(
            f"{artifact.path} was not exported from this model: the weights differ.",
            fix="Name the model and weights it came from; `agileir-export info` shows them.",
        )


def _measure(image: TestImage, truth: Images, output: Images, agreement: float | None = None) -> Measure:
    _, height, width = image.pixels.shape
    compared = (psnr(truth, output), max_steps(truth, output), nonfinite(output))
    return Measure(image.name, height, width, *compared, agreement)


def _semantic_rungs(
    artifact: OnnxArtifact,
    images: Sequence[TestImage],
    truths: Sequence[Images],
    dictionaries: Sequence[Sequence[torch.Tensor]],
    min_psnr: float | None,
) -> list[Rung]:
    """Two rungs: the file chooses its keys itself, and it is given PyTorch's."""
    graph = _load(artifact)
    names = dictionary_tensors(graph)
    precision = artifact.precision
    own_floor = DICTIONARY_FLOORS.get(precision, FLOORS[precision])
    floor = FLOORS[precision]
    if min_psnr is not None:
        own_floor = floor = min_psnr
    note = "" if names else "decomposed: its dictionaries cannot be looked at"
    free = OnnxProbe(graph, names)
    fed = OnnxProbe(graph, feed_dictionaries=True) if names else None
    own, given = [], []
    for image, truth, recorded in zip(images, truths, dictionaries, strict=True):
        padded, _ = pad_to_multiple(image.pixels[None], artifact.spec.pad_multiple)
        rows, columns = truth.shape[2:]
        output, found = free.run(padded)
        agreement = _agreement(recorded, found) if names else None
        own.append(_measure(image, truth, output[..., :rows, :columns], agreement))
        if fed is not None:
            output, _ = fed.run(padded, [tensor.numpy() for tensor in recorded])
            given.append(_measure(image, truth, output[..., :rows, :columns]))
    agreement_floor = AGREEMENT_FLOORS[precision] if names else None
    rungs = [Rung(f"ONNX {precision} = PyTorch, own dictionary", own_floor, tuple(own), agreement_floor, note=note)]
    if given:
        rungs.append(Rung(f"ONNX {precision} = PyTorch, same dictionary", floor, tuple(given)))
    return rungs


def _load(artifact: OnnxArtifact) -> onnx.ModelProto:
    import onnx

    return onnx.load(artifact.path)


def _agreement(expected: Sequence[torch.Tensor], found: Sequence[Images]) -> float:
    """Share of keys that both dictionaries hold, of all keys of the expected one, over all rows and stages."""
    equal = total = 0
    for torch_words, onnx_words in zip(expected, found, strict=True):
        words = torch_words.numpy()
        equal += int(np.bitwise_count(words & onnx_words).sum())
        total += int(np.bitwise_count(words).sum())
    return equal / total


def _localise(
    rung: Rung, model: Restorer, artifact: OnnxArtifact, images: Sequence[TestImage], progress: Progress
) -> Rung:
    """Names the first block of a failed rung that misses the floor, by bisection over block outputs.

    A block counts as broken when the PSNR of its output, at the peak of the reference's own magnitude, is below the
    rung's floor; blocks after a broken one are taken to be broken.
    """
    import dataclasses

    graph = _load(artifact)
    present = {output for node in graph.graph.node for output in node.output}
    blocks = [block for block in artifact.blocks if block in present]
    if not blocks or not rung.measures:
        return rung
    order = {output: i for i, node in enumerate(graph.graph.node) for output in node.output}
    blocks.sort(key=order.__getitem__)
    worst = min(range(len(images)), key=lambda index: rung.measures[index].psnr)
    pixels = images[worst].pixels[None]
    padded, _ = pad_to_multiple(pixels, artifact.spec.pad_multiple)

    def broken(block: str) -> bool:
        progress(f"looking at {block}")
        expected = block_output(model, pixels, block)
        _, (found,) = OnnxProbe(graph, [block]).run(padded)
        peak = float(np.abs(expected).max()) or 1.0
        error = float(np.mean((expected.astype(np.float64) - found) ** 2))
        return not (error == 0 or 10 * np.log10(peak**2 / error) >= rung.floor)

    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high) // 2
        if broken(blocks[middle]):
            high = middle
        else:
            low = middle + 1
    name = blocks[low] if low < len(blocks) else "after the last block"
    return dataclasses.replace(rung, broken_block=name)
