"""What both GPU benchmarks share: options, finding the package, timing, memory, the description of the machine.

Needs PyTorch (with its Triton) and numpy, nothing else.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SLICE_SECONDS = 0.4
"""Time given to the repetitions of one measurement."""

WARM_SECONDS = 0.1
"""Time of the calls before them that do not count: an idle GPU takes a while to raise its clocks."""


class ContextLost(RuntimeError):
    """A kernel has broken the process's CUDA context (an illegal address, say): nothing on the GPU works any more."""


def find_package() -> None:
    """Makes `agileir_export` importable from this checkout, whatever the checkout's folder is called."""
    if importlib.util.find_spec("agileir_export") is None:
        folder = tempfile.mkdtemp(prefix="agileir-export-")
        Path(folder, "agileir_export").symlink_to(ROOT, target_is_directory=True)
        sys.path.insert(0, folder)


def size(text: str) -> tuple[int, int]:
    """Height and width from ``"640x360"``, written width first as picture sizes are."""
    width, times, height = text.partition("x")
    if not times or not (width.isdecimal() and height.isdecimal()) or not int(width) * int(height):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 640x360")
    return int(height), int(width)


def arguments(description: str, output: str) -> argparse.ArgumentParser:
    """The options that both benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path(output), help="JSON file to write (default: %(default)s)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu only tries the script out")
    parser.add_argument("--sizes", nargs="+", type=size, metavar="WxH", help="picture sizes")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--budget", type=float, default=280.0, help="seconds in all; what is left is marked skipped")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the file: do what is not in it, or was skipped"
    )
    return parser


def no_gpu(device: str) -> str | None:
    """Why nothing can be measured here, or None."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "no CUDA device was found; --device cpu tries the script out"
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed: the operators would run as plain torch functions"
    return None


def start_again(deadline: float) -> None:
    """Replaces this process, whose CUDA context is lost, by one that goes on with the file."""
    left = deadline - time.monotonic()
    print(f"the CUDA context is lost; going on in a new process, {left:.0f} s left", flush=True)
    sys.stderr.flush()
    os.closerange(3, 1024)  # the driver's files, too: what the old context holds is freed
    os.execv(sys.executable, [sys.executable, *sys.argv, "--resume", "--budget", f"{max(left, 0):.0f}"])


def repetitions(first_seconds: float, at_least: int = 5, at_most: int = 200) -> int:
    """How often to repeat what took `first_seconds` once."""
    return max(at_least, min(at_most, int(SLICE_SECONDS / max(first_seconds, 1e-9))))


def summary(milliseconds: Sequence[float]) -> dict[str, float | int]:
    """Median, quartiles and extremes of repeated times; quartiles as `statistics.quantiles` has them, inclusive."""
    low, middle, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return {
        "median_ms": middle,
        "quartiles_ms": [low, high],
        "minimum_ms": min(milliseconds),
        "maximum_ms": max(milliseconds),
        "repetitions": len(milliseconds),
    }


def measure(function: Callable[[], Any], device: str) -> dict[str, Any]:
    """Times repeated calls one by one, after two calls that do not count.

    On CUDA with events around every call; "peak_bytes" is what PyTorch's allocator gave out at most beyond what was in
    use before, output included. On the CPU with the clock, and without memory.
    """
    import torch

    if device == "cpu":
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        return summary([1000 * each for each in seconds])
    function()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = clocked(function)
    peak = torch.cuda.max_memory_allocated() - before
    start = time.perf_counter()
    while time.perf_counter() - start < WARM_SECONDS:
        seconds = clocked(function)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repetitions(seconds))]
    for first, last in events:
        first.record()
        function()
        last.record()
    torch.cuda.synchronize()
    return summary([first.elapsed_time(last) for first, last in events]) | {"peak_bytes": peak}


def clocked(function: Callable[[], Any]) -> float:
    """Seconds that one call takes until the GPU has done it."""
    import torch

    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def attempt(function: Callable[[], Any], device: str, deadline: float) -> dict[str, Any]:
    """`measure`, or why there is no measurement: no time or no memory left, or an error, whose first line is kept.

    Raises:
        ContextLost: The error was one after which the GPU answers to nothing in this process.
    """
    if time.monotonic() > deadline:
        return {"skipped": "time budget"}
    try:
        return measure(function, device)
    except Exception as error:
        if out_of_memory(error):
            return {"skipped": "out of memory"}
        first = next(iter(str(error).strip().splitlines()), "")
        failure = f"{type(error).__name__}: {first}"
    finally:
        tidy(device)
    return {"failed": failure}


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the GPU's memory is full."""
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError)


def tidy(device: str) -> None:
    """Gives cached memory back.

    Raises:
        ContextLost: The GPU does not answer any more.
    """
    import torch

    if device == "cuda":
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise ContextLost(str(error).strip().splitlines()[0]) from error


def limits(device: str) -> dict[str, float]:
    """What a GPU reaches on simple work: bytes that a copy reads and writes, half-precision products.

    The sizes fill a large GPU; where they do not fit, the limit is left out. Products are of random numbers: zeros run
    faster than pictures do. Exponentials and integer operations are not measured: 16 and 64 a clock and multiprocessor
    (CUDA programming guide, arithmetic throughput), at the highest clock.
    """
    import torch

    if device == "cpu":
        return {}
    properties = torch.cuda.get_device_properties(0)
    clocks = properties.multi_processor_count * properties.clock_rate * 1e3

    def copying() -> Any:
        source, target = torch.empty(2, 2**31, dtype=torch.uint8, device=device)
        return lambda: target.copy_(source)

    def multiplying() -> Any:
        left, right = torch.randn(2, 8192, 8192, device=device).half()
        return lambda: left @ right

    answer = {"exponentials_per_s": 16 * clocks, "integers_per_s": 64 * clocks}
    for name, make, work in (("tb_per_s", copying, 2**32), ("tflop_per_s", multiplying, 2 * 8192**3)):
        made = cache(make)
        found = attempt(lambda made=made: made()(), device, math.inf)  # type: ignore[misc]
        if "median_ms" in found:
            answer[name] = work / found["median_ms"] / 1e9
    return answer


def driver_version() -> str:
    """Version of the NVIDIA driver, or an empty string."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def machine(device: str) -> dict[str, Any]:
    """Device, driver, versions and date."""
    import torch

    import agileir_export

    try:
        import triton

        triton_version = triton.__version__
    except ImportError:
        triton_version = ""
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": platform.processor() or platform.machine(),
        "agileir_export": agileir_export.__version__,
        "torch": torch.__version__,
        "triton": triton_version,
        "python": platform.python_version(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": driver_version(),
        }
    return found
