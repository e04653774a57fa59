"""What half precision costs, block by block: range used, values lost, decibels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines import Images
from ..errors import InputError, Unsupported
from ..export.artifact import OnnxArtifact
from ..export.element_types import HALF_TYPES
from ..export.floors import FLOORS
from ..export.precision import convert_precision
from ..json_form import JsonForm
from ..models import Restorer
from ..progress import Progress, silent
from .bisection import AFTER, block_psnr
from .images import ParityImage
from .metrics import psnr
from .probe import block_outputs, dictionary_tensors, ordered_blocks, record_dictionaries
from .ranges import padded
from .rounding import BlockWatch, Rounding

if TYPE_CHECKING:
    import onnx

__all__ = ["BlockQuality", "QualityReport", "block_quality"]


@dataclass(frozen=True)
class BlockQuality:
    """One block in half precision, over all pictures.

    Attributes:
        block: Name of the block or stage, or what follows the last.
        k: The block's output in the file is the model's divided by ``2^k``.
        rounding: What rounding did to the tensors of the block, given the model's float32 results as its input.
        share: ``rounding.amax`` over the greatest finite number of the format.
        own_psnr: dB between the block's output and the model's in float32 for the same input; -inf where a value is
            not finite. At the peak of the model's output; after the last block of the picture, at peak 1.
        psnr: The same for the file as it runs, with the losses of all blocks before.
    """

    block: str
    k: int
    rounding: Rounding
    share: float
    own_psnr: float
    psnr: float


@dataclass(frozen=True)
class QualityReport(JsonForm):
    """What half precision costs a model.

    Attributes:
        subject: The file looked at.
        precision: ``"float16"`` or ``"bfloat16"``.
        floor: dB that a block must hold.
        blocks: The blocks in the order they are computed, then what follows the last.
        images: Names of the pictures.
    """

    subject: str
    precision: str
    floor: float
    blocks: tuple[BlockQuality, ...]
    images: tuple[str, ...]

    @property
    def first_bad(self) -> str | None:
        """The first block whose output misses the floor or is not finite; None where all hold it."""
        return next((entry.block for entry in self.blocks if not entry.psnr >= self.floor), None)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object; infinite numbers are strings."""
        return super().to_json() | {"first_bad": self.first_bad}


def block_quality(
    model: Restorer,
    artifact: OnnxArtifact,
    images: Sequence[ParityImage],
    *,
    subject: str | None = None,
    progress: Progress = silent,
) -> QualityReport:
    """Measures every block of a half-precision file against the model in float32.

    Half precision is emulated on the CPU (`engines.half_emulation`). A key-semantic model is given PyTorch's keys, so
    that a key which flips is not charged to the blocks that use it.

    Args:
        model: The model the file came from.
        artifact: The file. A float32 file is looked at as its float16 conversion, which is not written.
        images: Pictures in the model's channels, of any size.
        subject: What the report calls the file; its path where None.
        progress: Told each step.

    Raises:
        InputError: There is no picture, or the file names no blocks.
        Unsupported: A weight is beyond the precision's range, or the file is INT8 with a float32 rest.
    """
    import ml_dtypes
    import onnx

    if not images:
        raise InputError("There is no picture to measure the blocks on.", fix="Give at least one.")
    graph = artifact.model
    if artifact.precision == "float32":
        graph = convert_precision(graph, "float16")
    precision = _half_type(graph)
    if precision is None:
        raise Unsupported(
            f"{artifact.name} ({artifact.precision}) computes nothing in half precision.",
            fix="Name a file in float16 or bfloat16, or a float32 file to see what float16 would do to it.",
        )
    blocks = ordered_blocks(graph, artifact.blocks)
    if not blocks:
        raise InputError(f"{artifact.name} names no blocks.", fix="Export it again.")
    semantic = bool(dictionary_tensors(graph))
    alone, whole = (BlockWatch(graph, blocks, alone, semantic) for alone in (True, False))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(HALF_TYPES[precision])
    roundings: dict[str, Rounding] = {}
    losses: dict[str, tuple[float, float]] = {}
    for image in images:
        progress(f"blocks of {image.name}")
        expected, keys = _reference(model, image, blocks)
        expected = {name: np.ldexp(value, -artifact.rescale.get(name, 0)) for name, value in expected.items()}
        fed = {name: _rounded(expected[name], dtype) for name in blocks}
        inputs, given = padded(artifact, image), keys if semantic else []
        own, counts = alone.run(inputs, given, fed)
        found, _ = whole.run(inputs, given, {})
        for name in (*blocks, AFTER):
            judge = psnr if name == AFTER else block_psnr
            now = judge(expected[name], own[name]), judge(expected[name], found[name])
            before = losses.get(name, now)
            losses[name] = min(now[0], before[0]), min(now[1], before[1])
            roundings[name] = roundings.get(name, Rounding()) + counts.get(name, Rounding())
    greatest = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
    entries = tuple(
        BlockQuality(
            name, artifact.rescale.get(name, 0), roundings[name], roundings[name].amax / greatest, *losses[name]
        )
        for name in (*blocks, AFTER)
    )
    floor = FLOORS[precision]
    return QualityReport(subject or str(artifact.path), precision, floor, entries, tuple(i.name for i in images))


def _half_type(graph: onnx.ModelProto) -> str | None:
    """The half precision of a model's weights; None where it has none."""
    kinds = {tensor.data_type for tensor in graph.graph.initializer}
    return next((name for name, kind in HALF_TYPES.items() if kind in kinds), None)


def _reference(model: Restorer, image: ParityImage, blocks: Sequence[str]) -> tuple[dict[str, Images], list[Any]]:
    """Output of every block of the model, the padded restored image under `AFTER`, and the dictionaries."""
    with record_dictionaries() as recorded:
        outputs, restored = block_outputs(model, image.pixels[None], blocks)
    return outputs | {AFTER: restored}, [tensor.numpy() for tensor in recorded]


def _rounded(values: Images, dtype: np.dtype[Any]) -> Images:
    """Float32 values as a half-precision format holds them."""
    with np.errstate(over="ignore"):
        return values.astype(dtype).astype(np.float32)
