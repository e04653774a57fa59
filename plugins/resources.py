"""What a kernel takes of a GPU: registers, spills and shared memory, as the assembler `ptxas` says."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import EnvironmentProblem, InternalError
from .calls import Call
from .dispatch import kernel_module
from .ptx import CompiledKernel, compile_kernel

__all__ = ["ARCHITECTURES", "Resources", "assemble", "compile_call", "find_ptxas"]

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""Compute capabilities times ten: Ampere, Ada, Hopper, Blackwell."""


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


def compile_call(call: Call, dtype: str, tactic: int = 1) -> CompiledKernel:
    """The kernel of a call on images of unknown size, in one tensor type."""
    module = kernel_module(call.operator)
    window = call.attributes["window_size"]
    shapes = call.shapes(1, window, window)
    shapes[0] = (-1, -1, -1, shapes[0][3])
    for index in call.integer_inputs:
        shapes[index] = (-1, *shapes[index][1:])
    types = ["int32" if index in call.integer_inputs else dtype for index in range(len(shapes))]
    launch = module.launch(shapes, call.attributes, dtype, tactic)
    return compile_kernel(launch, types, module.OUTPUT_TYPE or dtype)


def assemble(ptx: str, architecture: int, ptxas: str) -> Resources:
    """Assembles PTX for an architecture, as a driver does when it loads an engine.

    Raises:
        InternalError: `ptxas` refuses the text.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [ptxas, "-v", f"-arch=sm_{architecture}", "-o", str(Path(folder, "kernel.cubin")), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InternalError(f"ptxas refuses the kernel for sm_{architecture}: {done.stderr.strip()}")

    def number(pattern: str) -> int:
        match = re.search(pattern, done.stderr)
        return int(match[1]) if match else 0

    return Resources(number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores"), number(r"(\d+) bytes smem"))
