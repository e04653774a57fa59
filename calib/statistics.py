"""What the layers of a graph read on real images: histograms and channel ranges, image by image, resumable."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..cache import Cache, program_facts
from ..engines.runner import Images
from ..parity.probe import OnnxProbe
from .histogram import BINS, histogram, threshold
from .layers import Layer

if TYPE_CHECKING:
    import onnx

__all__ = ["Statistics", "collect"]


@dataclass(frozen=True)
class Statistics:
    """What is known of one tensor.

    Attributes:
        counts: Histogram of its absolute values, see `histogram`.
        channels: Greatest absolute value by channel.
    """

    counts: npt.NDArray[np.int64]
    channels: npt.NDArray[np.float32]

    @property
    def largest(self) -> float:
        """Greatest absolute value."""
        return float(self.channels.max(initial=0))

    def threshold(self, method: str, percentile: float) -> float:
        """The value that becomes 127, see `histogram.threshold`."""
        return threshold(self.counts, self.largest, method, percentile)

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self.counts + other.counts, np.maximum(self.channels, other.channels))


def collect(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    images: Iterable[Images],
    cache: Cache | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Statistics]:
    """Statistics of the inputs of layers over images; one image and one result are in memory at a time.

    Args:
        model: The graph in float32.
        layers: Its layers.
        images: Inputs of the graph, ``[1, C, H, W]``.
        cache: Where the result of every image is kept by graph, image and program, so that an interrupted run goes on
            where it was; the sums are the same bit for bit. None: nothing is kept.
        progress: Called with the number of images done.

    Returns:
        Statistics by tensor name.

    Raises:
        InputError: A value is not finite.
    """
    axes = {layer.input: layer.input_axis for layer in layers}
    known = {} if cache is None else {"graph": _digest(model.SerializeToString(deterministic=True)), **program_facts()}
    probe: OnnxProbe | None = None
    total: dict[str, Statistics] = {}
    for number, image in enumerate(images, 1):
        facts = {**known, "image": _digest(image.tobytes()), "shape": list(image.shape)}
        entry = None if cache is None else cache.find(facts)
        found = None if entry is None else _load(entry.content, axes)
        if found is None:
            probe = probe or OnnxProbe(model, list(axes))
            found = _measure(probe, axes, image)
            if cache is not None:
                cache.store(facts, _pack(found), {})
        total = {name: total[name] + found[name] for name in axes} if total else found
        progress(number)
    return total


def _measure(probe: OnnxProbe, axes: Mapping[str, int], image: Images) -> dict[str, Statistics]:
    _, values = probe.run(image)
    found = {}
    for (name, axis), value in zip(axes.items(), values, strict=True):
        others = tuple(index for index in range(value.ndim) if index != axis % value.ndim)
        channels = np.maximum(value.max(others), -value.min(others)).astype(np.float32)
        found[name] = Statistics(histogram(value), channels)
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pack(found: Mapping[str, Statistics]) -> bytes:
    """Statistics as a compressed archive; of the histograms only what is not zero."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for index, statistics in enumerate(found.values()):
        used = np.flatnonzero(statistics.counts)
        arrays[f"bins{index}"] = used.astype(np.int32)
        arrays[f"counts{index}"] = statistics.counts[used]
        arrays[f"channels{index}"] = statistics.channels
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _load(path: Path, axes: Mapping[str, int]) -> dict[str, Statistics] | None:
    """What was kept; None where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {}
            for index, name in enumerate(axes):
                counts = np.zeros(BINS, np.int64)
                counts[arrays[f"bins{index}"]] = arrays[f"counts{index}"]
                found[name] = Statistics(counts, arrays[f"channels{index}"])
            return found
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return None
