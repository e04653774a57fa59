"""The process in which a runner's memory is measured: it knows nothing but the runner, and has run nothing before.

Its only argument is the file of a pickled runner. Every line of standard input asks for a size, ``[batch, rows,
columns]`` in JSON; the answer is a line with ``bytes`` and ``seconds``, or ``error``. It ends with the input.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.runner import Runner
from ..process_memory import PEAK, RESIDENT, process_memory, restart_peak

__all__ = ["main"]

CALLS = 2
"""Runs of a size: in the second, PyTorch holds a little more."""


def main() -> None:
    """Loads the runner, and measures until nothing more is asked for."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    try:
        runner: Runner = pickle.loads(Path(sys.argv[1]).read_bytes())
        restart_peak()
        before = process_memory(RESIDENT)
        for line in sys.stdin:
            print(json.dumps(_measure(runner, json.loads(line), before)), file=answers, flush=True)
    except Exception as error:  # whatever a runtime raises; the parent says what it means
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)


def _measure(runner: Runner, size: tuple[int, int, int], before: int | None) -> dict[str, Any]:
    batch, rows, columns = size
    images = np.random.default_rng(0).random((batch, runner.spec.channels, rows, columns), np.float32)
    seconds = []
    for _ in range(CALLS):
        started = time.process_time()
        runner.run(images)
        seconds.append(time.process_time() - started)
    peak = process_memory(PEAK)
    if before is None or peak is None:
        return {"error": "This system does not tell how much memory a process holds."}
    return {"bytes": peak - before, "seconds": min(seconds)}
