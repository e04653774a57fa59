"""Several GPUs: a process for each, which sees no other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines.opening import is_onnx, open_runner
from ..engines.runner import Runner
from ..errors import EnvironmentProblem, InputError, Unsupported
from ..models.options import LoadOptions
from ..progress import Progress, silent
from .files import Plan
from .folder import Restoration
from .processes import Place, restore_in_processes
from .seams import SEAM_PSNR
from .tiled_runner import PlannedRoom, Tile, TiledRunner
from .worker import Order

__all__ = ["DeviceRunner", "find_devices", "restore_on_devices"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable by which CUDA shows a process some GPUs only; in it, they are numbered from 0."""


@dataclass(frozen=True)
class DeviceRunner:
    """Opens a runner in another process: on the only GPU that it sees, or an ONNX file on the CPU.

    Attributes:
        source: Engine, preset, packaged model or checkpoint.
        options: How to load a model.
        tile: See `restore_pictures`, as the following.
        overlap: Pixels that tiles share.
        seam_psnr: dB at the seams.
        memory: Most bytes of the GPU.
        runtime: What runs an ONNX file, see `open_runner`.
    """

    source: str
    options: LoadOptions | None = None
    tile: Tile = "auto"
    overlap: int | None = None
    seam_psnr: float = SEAM_PSNR
    memory: int | None = None
    runtime: str = "onnxruntime"

    @property
    def wants_gpu(self) -> bool:
        """Whether it runs on a GPU: an engine or a model, not an ONNX file."""
        return not is_onnx(self.source)

    def __call__(self) -> Runner:
        """The runner."""
        runner = open_runner(self.source, self.options, self.runtime)
        if (model := getattr(runner, "model", None)) is not None:
            from ..engines.torch_runner import TorchRunner

            runner = TorchRunner(model, "cuda")
        return TiledRunner(runner, self.tile, self.overlap, self.seam_psnr, PlannedRoom(runner, self.memory))


def find_devices(wanted: Sequence[int] | None) -> list[Place]:
    """The GPUs of some numbers, or all, as places for a process.

    Args:
        wanted: Numbers as PyTorch counts the GPUs that this process sees; None for all.

    Raises:
        EnvironmentProblem: PyTorch sees no GPU.
        InputError: There is none of a number, or it is named twice.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise EnvironmentProblem(
            "There is no GPU to restore on: PyTorch sees none.",
            fix="Leave --devices out: without it, ONNX files and models run on the CPU. `agileir-export doctor` says "
            "what is missing.",
        )
    numbers = list(range(count)) if wanted is None else list(wanted)
    for number in numbers:
        if number >= count or numbers.count(number) > 1:
            why = f"There are {count}, from 0 on." if number >= count else "It was named twice."
            raise InputError(f"GPU {number} cannot be taken.", why=why, fix="Name each once, or all.")
    seen = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return [Place(f"GPU {number}", {VISIBLE: seen[number] if seen else str(number)}) for number in numbers]


def restore_on_devices(
    opener: DeviceRunner, devices: Sequence[int] | None, plan: Plan, progress: Progress = silent
) -> tuple[Restoration, dict[str, Any]]:
    """Has a plan carried out by a process a GPU, each with its own runner, all fed from one queue.

    Args:
        opener: Opens the runner in each of them.
        devices: Numbers of the GPUs; None for all.
        plan: What to restore.
        progress: Told each picture.

    Returns:
        What became of the pictures, and how the first runner describes itself.

    Raises:
        Unsupported: The source runs on the CPU.
        AgileIRError: See `find_devices`, `restore_in_processes`.
    """
    if not opener.wants_gpu:
        raise Unsupported(
            f"{Path(opener.source).name} does not run on a GPU here: ONNX files are run by ONNX Runtime on the CPU.",
            fix="Build an engine of it with `agileir-export trt`, name a model instead, or leave --devices out.",
        )
    places = find_devices(devices)
    return restore_in_processes(Order(opener, len(places)), places, plan, progress)
