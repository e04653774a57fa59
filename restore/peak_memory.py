"""Measuring the peak memory of a runner at some sizes: resident memory on a CPU, device memory on a GPU."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.runner import Runner
from ..engines.tensorrt.runner import TensorRTRunner
from ..errors import EnvironmentProblem

if TYPE_CHECKING:
    from ..engines.torch_runner import TorchRunner

__all__ = ["Measure", "Peak", "cuda_device", "measuring", "padded_pixels"]


@dataclass(frozen=True)
class Peak:
    """What was measured at one size.

    Attributes:
        pixels: Pixels of the input, padded to the model's multiple, of all images.
        bytes: Most memory in use, above that before the runner ran for the first time.
        seconds: Processor time of one run; 0 where nothing was run.
    """

    pixels: int
    bytes: int
    seconds: float = 0.0


Measure = Callable[[int, int, int], Peak]
"""Takes batch, rows and columns.

Raises:
    EnvironmentProblem: It cannot be measured.
"""


@contextlib.contextmanager
def measuring(runner: Runner) -> Iterator[Measure]:
    """Whatever measures a runner, while the block runs; sizes must grow from call to call.

    - An engine (TensorRT, TensorRT-RTX) is asked: working memory of its context, input and output. Nothing runs.
    - PyTorch on a GPU runs here: `torch.cuda.max_memory_allocated`, without what it keeps in reserve.
    - All others run in a process of their own, to which the runner is pickled: the peak of resident memory (``VmHWM``)
      above that of the loaded runner, with two runs of every size. In this process the figure would depend on what ran
      before: ONNX Runtime's arena keeps its memory, so that a second run shows nothing, and so does the C library's.
    """
    if isinstance(runner, TensorRTRunner):
        yield lambda batch, rows, columns: _asked(runner, batch, rows, columns)
    elif (device := cuda_device(runner)) is not None:
        yield lambda batch, rows, columns: _run_on_cuda(runner, device, batch, rows, columns)
    else:
        with _child(runner) as measure:
            yield measure


def cuda_device(runner: Runner) -> str | None:
    """The GPU that PyTorch runs a model on; None for every other runner."""
    device = str(getattr(runner, "device", ""))
    return device if device.startswith("cuda") else None


def padded_pixels(runner: Runner, batch: int, rows: int, columns: int) -> int:
    """Pixels of images that are padded to the model's multiple."""
    multiple = runner.spec.pad_multiple
    return batch * (rows + -rows % multiple) * (columns + -columns % multiple)


def _asked(runner: TensorRTRunner, batch: int, rows: int, columns: int) -> Peak:
    taken = runner.device_bytes(batch, rows, columns)
    if taken is None:
        raise EnvironmentProblem(f"The engine takes no {rows}x{columns} pixels.")
    return Peak(padded_pixels(runner, batch, rows, columns), taken)


def _run_on_cuda(runner: TorchRunner | Runner, device: str, batch: int, rows: int, columns: int) -> Peak:
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    runner.run(np.zeros((batch, runner.spec.channels, rows, columns), np.float32))
    taken = torch.cuda.max_memory_allocated(device) - before
    return Peak(padded_pixels(runner, batch, rows, columns), taken)


@contextlib.contextmanager
def _child(runner: Runner) -> Iterator[Measure]:
    """A process that measures; it ends with the block, whatever happens."""
    try:
        pickled = pickle.dumps(runner)
    except Exception as error:  # whatever an object of the runner raises
        raise EnvironmentProblem(
            "The memory of this runner cannot be measured.", why=f"It cannot be sent to another process: {error}"
        ) from error
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__package__}.peak_child import main; main()"
    with tempfile.TemporaryDirectory(prefix="agileir-memory-", ignore_cleanup_errors=True) as folder:
        file = Path(folder, "runner")
        file.write_bytes(pickled)
        del pickled
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent only, which then ends it
        )
        try:
            yield lambda batch, rows, columns: Peak(
                padded_pixels(runner, batch, rows, columns), **_answer(child, (batch, rows, columns))
            )
        finally:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _answer(child: subprocess.Popen[str], size: tuple[int, int, int]) -> dict[str, Any]:
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it died; the missing answer tells
        child.stdin.write(json.dumps(size) + "\n")
        child.stdin.flush()
    line = child.stdout.readline()
    answer = json.loads(line) if line else {"error": f"Its process ended with status {child.wait()}."}
    if "error" in answer:
        raise EnvironmentProblem(
            f"The memory that {size[1]}x{size[2]} pixels take cannot be measured.", why=str(answer["error"])
        )
    return dict(answer)
