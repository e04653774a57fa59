"""Memory planned before it is taken: a model of a runner's peak, fitted to a few small runs, against a budget."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..cache import MEMORY, NETWORK, Cache, Facts, processor_name, program_facts
from ..engines.artifact import EngineArtifact
from ..engines.profiles import static_profile
from ..engines.runner import Runner
from ..engines.tensorrt.runner import TensorRTRunner
from ..errors import EnvironmentProblem
from ..export.artifact import OnnxArtifact
from ..process_memory import RESIDENT, process_memory
from ..progress import Progress, silent
from .free_memory import free_memory
from .peak_memory import Measure, Peak, cuda_device, measuring, padded_pixels

__all__ = ["ERROR", "SHARE", "MemoryPlan", "fit", "memory_plan", "on_gpu", "room_bytes"]

ERROR = 1.3
"""How much more than predicted may be taken. On a CPU hardly more was measured (docs/performance.md), of the packaged
models under three runtimes: this is for networks and runtimes that were not, and for a machine that is busy."""

SHARE = 0.9
"""Of what is free, the part that is planned with. The rest is for the pictures themselves and for other programs."""

FIRST, LARGER = 64, (384, 256, 128)
"""Sides (pixels) of the first run, and of the largest, of which the first that takes neither long nor much is taken;
one of half its side lies between. From the first alone, what is loaded on the first use could not be told apart."""

LONGEST, HALF = 20.0, 0.5
"""Processor seconds, and part of the room, that the largest run may take in proportion to the first."""


@dataclass(frozen=True)
class MemoryPlan:
    """How much memory a runner takes for images of a size, and how much there is.

    Peak = `base_bytes` + `bytes_per_pixel` * pixels, where pixels are those of the padded input, of all images:
    every tensor of these networks, SemanIR's dictionary too, has a fixed size a window. (PyTorch bounds the logits
    held at once, of the packaged models from some 33 000 pixels on: too early to bend the line.) `base_bytes`
    is what the first run leaves whatever its size: on a CPU libraries that are loaded on first use (PyTorch 170
    MiB).

    Attributes:
        base_bytes: Bytes that any run takes.
        bytes_per_pixel: Bytes for each pixel of the padded input.
        multiple: Sides are padded to a multiple of this (pixels).
        room: Bytes that may be taken above the present.
    """

    base_bytes: float
    bytes_per_pixel: float
    multiple: int
    room: int

    def predict(self, rows: int, columns: int, batch: int = 1) -> int:
        """Most bytes that running images of a size takes, above what is held before the runner's first run.

        Images and result are counted.

        Args:
            rows: Height of the images (pixels), padded or not.
            columns: Their width.
            batch: How many there are.
        """
        padded = (rows + -rows % self.multiple) * (columns + -columns % self.multiple)
        return round(self.base_bytes + self.bytes_per_pixel * batch * padded)

    def fits(self, rows: int, columns: int, batch: int = 1, beside: int = 0) -> bool:
        """Whether images of a size can be run at once, were as much more taken as `ERROR` says.

        Args:
            rows: Height of the images (pixels).
            columns: Their width.
            batch: How many there are.
            beside: Bytes that something else will take meanwhile.
        """
        return self.predict(rows, columns, batch) * ERROR + beside <= self.room

    def largest_tile(self, multiple: int, beside: int = 0) -> int:
        """The greatest side of a square tile that fits, in input pixels.

        Args:
            multiple: What the side is to be a multiple of (pixels).
            beside: Bytes that something else will take meanwhile.

        Raises:
            EnvironmentProblem: Not even one of a side of `multiple` fits.
        """
        if not self.fits(multiple, multiple, beside=beside):
            taken = f", {beside / 2**20:.0f} MiB of it for the picture and its file" if beside else ""
            raise EnvironmentProblem(
                f"There is no memory for a tile of {multiple}x{multiple} pixels: it takes "
                f"{(self.predict(multiple, multiple) + beside) / 2**20:.0f} MiB{taken}, and "
                f"{max(self.room, 0) / 2**20:.0f} MiB may be taken.",
                fix="Allow more memory, end other programs, or take a smaller model"
                + ("; a JPEG or a TIFF takes less than a PNG to write." if beside else "."),
            )
        low, high = 1, 2
        while self.fits(high * multiple, high * multiple, beside=beside):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.fits(middle * multiple, middle * multiple, beside=beside)
            low, high = (middle, high) if fits else (low, middle)
        return low * multiple


def memory_plan(
    runner: Runner,
    budget: int | None = None,
    *,
    room: int | None = None,
    cache: Cache | None = None,
    progress: Progress = silent,
) -> MemoryPlan:
    """Plans the memory of a runner. What was measured on this machine is kept, and not measured again.

    Args:
        runner: What will run, freshly opened. On a CPU it must be possible to pickle it.
        budget: Most bytes that this process may hold (on a CPU), or the runner on its GPU; None for all that is free.
        room: What `room_bytes` said earlier, if it did.
        cache: Where measurements lie; unless given, a drawer of the cache.
        progress: Told when something is measured.

    Raises:
        EnvironmentProblem: The system does not tell what is free or what a process holds, or nothing could be measured.
    """
    room = room_bytes(runner, budget) if room is None else room
    facts, cache = _facts(runner), cache or Cache(drawer=MEMORY)
    entry = cache.find(facts)
    if entry is None:
        base, slope = fit(_measure(runner, room, progress))
        kept = {"base_bytes": base, "bytes_per_pixel": slope}
        cache.store(facts, json.dumps(kept).encode(), kept)
    else:
        base, slope = float(entry.details["base_bytes"]), float(entry.details["bytes_per_pixel"])
    return MemoryPlan(base, slope, runner.spec.pad_multiple, room)


def fit(peaks: Sequence[Peak]) -> tuple[float, float]:
    """Base and bytes a pixel, neither negative, with the least sum of squared relative errors.

    Args:
        peaks: What was measured, at least once.
    """
    pixels = np.array([peak.pixels for peak in peaks], np.float64)
    taken = np.array([max(peak.bytes, 1) for peak in peaks], np.float64)
    terms = np.stack([1 / taken, pixels / taken], 1)
    base, slope = np.linalg.lstsq(terms, np.ones(len(peaks)))[0] if len(peaks) > 1 else (-1.0, 0.0)
    if base < 0:
        base, slope = 0.0, terms[:, 1].sum() / (terms[:, 1] ** 2).sum()
    elif slope < 0:
        base, slope = taken.max(), 0.0
    return float(base), float(slope)


def room_bytes(runner: Runner, budget: int | None = None) -> int:
    """Bytes that may be taken above the present.

    Args:
        runner: What will run.
        budget: See `memory_plan`.

    Raises:
        EnvironmentProblem: The system does not tell what is free.
    """
    if isinstance(runner, TensorRTRunner):
        return int(runner.free_bytes() * SHARE) if budget is None else budget
    if (device := cuda_device(runner)) is not None:
        import torch

        if budget is None:
            return int(torch.cuda.mem_get_info(device)[0] * SHARE)
        return budget - torch.cuda.memory_allocated(device)
    free, held = free_memory(), process_memory(RESIDENT)
    if budget is not None and held is not None:
        return budget - held
    if free is None:
        raise EnvironmentProblem(
            f"{platform.system()} does not tell how much memory is free.", fix="Say how large tiles may be."
        )
    return int(free * SHARE)


def on_gpu(runner: Runner) -> bool:
    """Whether a runner's memory is that of a GPU."""
    return isinstance(runner, TensorRTRunner) or cuda_device(runner) is not None


def _measure(runner: Runner, room: int, progress: Progress) -> list[Peak]:
    """Two or three runs of growing size, or the sizes that a runner takes."""
    peaks: list[Peak] = []
    with measuring(runner) as measure:
        for batch, rows, columns in _taken(runner):
            peaks.append(_told(measure, batch, rows, columns, progress))
        if peaks:
            return peaks
        peaks.append(first := _told(measure, 1, FIRST, FIRST, progress))
        for side in LARGER:
            times = padded_pixels(runner, 1, side, side) / first.pixels
            if first.seconds * times <= LONGEST and first.bytes * times <= HALF * room:
                break
        for each in (side // 2, side) if side // 2 > FIRST else (side,):
            with contextlib.suppress(EnvironmentProblem):  # killed for memory: one size alone predicts rather too much
                peaks.append(_told(measure, 1, each, each, progress))
    return peaks


def _told(measure: Measure, batch: int, rows: int, columns: int, progress: Progress) -> Peak:
    progress(f"Measuring the memory of {rows}x{columns} pixels")
    return measure(batch, rows, columns)


def _taken(runner: Runner) -> list[tuple[int, int, int]]:
    """The sizes (batch, rows, columns) to ask of a runner that does not take any size, the smallest first."""
    artifact = getattr(runner, "artifact", None)
    if isinstance(artifact, EngineArtifact):
        profiles = artifact.profiles
        shapes = {shape for each in profiles for shape in (each.minimum, each.optimum, each.maximum)}
        return sorted(shapes, key=np.prod)
    fixed = static_profile(artifact) if isinstance(artifact, OnnxArtifact) else None
    return [] if fixed is None else [fixed.maximum]


def _facts(runner: Runner) -> Facts:
    """All that the peak depends on; of a model in PyTorch the structure, not the weights."""
    described = runner.describe()
    network = described.get("sha256")
    model = getattr(runner, "model", None)
    if network is None and model is not None:
        digest = hashlib.sha256(repr(model).encode())
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        for name, module in model.named_modules():
            plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
            digest.update(f"{name} {sorted(plain.items())!r}".encode())
        network = digest.hexdigest()
    return {
        NETWORK: network,
        "runner": described,
        "spec": runner.spec.to_json(),
        "threads": [os.cpu_count(), os.environ.get("OMP_NUM_THREADS")],
        "processor": processor_name(),
        **program_facts(),
    }
