"""Prints what the kernels of all presets take of a GPU: the table of docs/plugins.md. Needs Triton, but no GPU.

Usage::

    python tools/kernel_table.py [--dtypes float16 float32] [--tactic 1]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agileir_export.errors import AgileIRError, EnvironmentProblem, InternalError
from agileir_export.plugins.bias_rows import rows_shape
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import BY_TORCH_NAME, CALLS
from agileir_export.plugins.dispatch import BIAS_TABLE, kernel_module
from agileir_export.plugins.launch import UNKNOWN, Launch
from agileir_export.plugins.ptx import TARGET, CompiledKernel, compile_kernel

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""Compute capabilities times ten: Ampere, Ada, Hopper, Blackwell."""
DTYPES = ("float16", "bfloat16", "float32")
HEADER = ["operator", "preset", "type", "threads", "shared bytes", *(f"sm_{each}" for each in ARCHITECTURES)]


BLACKWELL = 100
"""First compute capability (times ten) of the Blackwell generation."""


@dataclass(frozen=True)
class Resources:
    """Of one kernel on one architecture: registers a thread, bytes spilled (stores), bytes of static shared memory."""

    registers: int
    spilled: int
    shared: int


def find_ptxas() -> str:
    """The assembler: of the CUDA toolkit, or the one that Triton carries.

    Raises:
        EnvironmentProblem: There is none.
    """
    found = shutil.which("ptxas")
    if found is None:
        try:
            import triton
        except ImportError:
            triton = None
        carried = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas" if triton else None
        found = str(carried) if carried is not None and carried.is_file() else None
    if found is None:
        raise EnvironmentProblem(
            "ptxas was not found",
            why="Neither the CUDA toolkit nor Triton is installed.",
            fix="pip install triton",
        )
    return found


def assembler(ptxas: str, architecture: int) -> str:
    """The assembler of an architecture: Triton carries a newer one for Blackwell, and uses it there."""
    newer = Path(ptxas).with_name("ptxas-blackwell")
    return str(newer) if architecture >= BLACKWELL and newer.is_file() else ptxas


def kernel_shapes(call: Call) -> list[tuple[int, ...]]:
    """Shapes of a call's tensors for one window, as PyTorch and engines give them to the kernel."""
    window = call.attributes["window_size"]
    shapes = call.shapes(1, window, window)
    if BIAS_TABLE in BY_TORCH_NAME[call.operator].inputs:
        shapes[-1] = rows_shape(shapes[-1], window)
    return shapes


def planned(call: Call, dtype: str, tactic: int = 1) -> tuple[Launch, list[str], str]:
    """How a call's kernel is started for images of unknown size, with its biases in row form; types of its tensors."""
    module = kernel_module(call.operator)
    shapes = kernel_shapes(call)
    for index in (0, *call.integer_inputs):
        free = 1 if index else 3
        shapes[index] = (*[UNKNOWN] * free, *shapes[index][free:])
    types = ["int32" if index in call.integer_inputs else dtype for index in range(len(shapes))]
    return module.launch(shapes, call.attributes, dtype, tactic), types, module.OUTPUT_TYPE or dtype


def compile_call(call: Call, dtype: str, tactic: int = 1, target: int = TARGET) -> CompiledKernel:
    """The kernel of a call on images of unknown size, in one tensor type; position biases are in row form.

    Args:
        call: The operator and its arguments.
        dtype: Tensor type.
        tactic: Which of the kernel's tactics, from 1.
        target: What the text is for, as `compile_kernel` names it.
    """
    launch, types, output = planned(call, dtype, tactic)
    return compile_kernel(launch, types, output, target)


def assemble(ptx: str, architecture: int, ptxas: str) -> Resources:
    """Assembles PTX for an architecture, as a driver does when it loads an engine.

    Raises:
        InternalError: `ptxas` refuses the text.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [
            assembler(ptxas, architecture),
            "-v",
            f"-arch=sm_{architecture}",
            "-o",
            str(Path(folder, "kernel.cubin")),
            str(source),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InternalError(f"ptxas refuses the kernel for sm_{architecture}: {done.stderr.strip()}")

    def number(pattern: str) -> int:
        match = re.search(pattern, done.stderr)
        return int(match[1]) if match else 0

    return Resources(number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores"), number(r"(\d+) bytes smem"))


def row(call: Call, dtype: str, tactic: int, ptxas: str) -> list[str]:
    """Cells of one kernel; those of an architecture hold registers, and spilled bytes where there are any."""
    compiled = compile_call(call, dtype, tactic)
    cells = [call.operator, call.label, dtype, str(compiled.num_threads), str(compiled.shared_bytes)]
    for architecture in ARCHITECTURES:
        found = assemble(compiled.ptx, architecture, ptxas)
        cells.append(f"{found.registers} (+{found.spilled} B)" if found.spilled else str(found.registers))
    return cells


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main(given: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--labels", nargs="+", help="only these presets")
    parser.add_argument("--tactic", type=int, default=1)
    options = parser.parse_args(given)
    try:
        ptxas = find_ptxas()
        print(line(HEADER))
        print(line(["---"] * len(HEADER)))
        for call in CALLS:
            if options.labels and call.label not in options.labels:
                continue
            for dtype in options.dtypes:
                print(line(row(call, dtype, options.tactic, ptxas)), flush=True)
    except AgileIRError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
