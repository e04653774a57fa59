"""Reads kernels to the limit without a GPU: instructions of their loops, registers, shared memory, bytes a load.

Usage::

    python tools/kernel_counts.py [--dtypes float16] [--labels AgileIR SemanIR] [--architectures 80 90]

Kernels are compiled to the PTX that engines carry, assembled for each architecture and disassembled. Instructions are
counted as a thread executes them, a logit: a body's instructions times the threads of a program, over the logits (or
similarities) that a program computes in one pass through the body. Executed instructions of a kernel are counted from
loops: straight code once, a loop's body as often as the shapes say (`passes_of`). What the counts leave out is the time
that instructions wait. Needs Triton, which brings the disassembler, and no GPU.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agileir_export.errors import AgileIRError, EnvironmentProblem, InternalError
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import CALLS
from agileir_export.plugins.launch import Launch
from agileir_export.plugins.ptx import compile_kernel

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kernel_table import ARCHITECTURES, assembler, planned

SHORT = 24
"""Instructions below which a loop copies or waits, and is no part of the arithmetic."""

STEPS = 15
"""Steps of the bisection until every row of a program holds its count, as seen on random and on real features."""

LABEL = re.compile(r"\s*(\.L_x_\d+):")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*)")
TARGET = re.compile(r"\.L_x_\d+")
USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)")


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop of a kernel: where it lies among the instructions, and how often each is in it, inner loops included."""

    first: int
    last: int
    kinds: Mapping[str, int]

    @property
    def length(self) -> int:
        """Instructions."""
        return self.last - self.first


@dataclass(frozen=True)
class Listing:
    """A kernel's machine code for one architecture.

    Attributes:
        opcodes: Its instructions in order, with their modifiers.
        loops: Its loops, the outer ones first, without those shorter than `SHORT`.
        registers: Registers a thread.
        stack: Bytes of stack a thread: spilled registers.
        shared: Bytes of shared memory a program, static and dynamic.
    """

    opcodes: tuple[str, ...]
    loops: tuple[Loop, ...]
    registers: int
    stack: int
    shared: int

    def load_bytes(self) -> float:
        """Mean bytes a thread takes from global memory in one instruction."""
        widths = [width_of(code) for code in self.opcodes if code.startswith(("LDG", "LDGSTS"))]
        return sum(widths) / len(widths) if widths else 0.0


def logits_of(launch: Launch) -> tuple[int, int]:
    """Logits (or similarities) of one pass through a kernel's inner loop, and of a program in all."""
    given = launch.constants
    tokens = launch.window_size**2
    if "rows" in given:  # the dictionary counts over all columns in every step of its search
        return given["rows"] * tokens, given["rows"] * tokens
    across = -(-tokens // given["keys"]) * given["keys"]
    down = -(-tokens // given["queries"]) * given["queries"] if "groups" in given else given["queries"]
    return given["queries"] * given["keys"], given.get("groups", 1) * down * across


def width_of(opcode: str) -> int:
    """Bytes that a load instruction takes."""
    for part in opcode.split("."):
        if part in ("128", "64"):
            return int(part) // 8
        if part in ("U16", "S16"):
            return 2
        if part in ("U8", "S8"):
            return 1
    return 4


@cache
def tools() -> Path:
    """Folder of the assembler and the disassembler.

    Raises:
        EnvironmentProblem: Triton does not bring them.
    """
    try:
        import triton
    except ImportError as error:
        raise EnvironmentProblem("Triton is not installed", fix="pip install triton") from error
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    missing = [name for name in ("ptxas", "nvdisasm", "cuobjdump") if not (folder / name).is_file()]
    if missing:
        raise EnvironmentProblem(f"Triton {triton.__version__} brings no {missing[0]}", fix="pip install -U triton")
    return folder


def run(*command: str | Path) -> str:
    """What a tool prints.

    Raises:
        InternalError: It fails.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InternalError(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
    return done.stdout + done.stderr


def listing(ptx: str, dynamic_shared: int, architecture: int) -> Listing:
    """Assembles PTX for an architecture and takes the code apart."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        run(assembler(str(tools() / "ptxas"), architecture), f"-arch=sm_{architecture}", "-o", binary, source)
        code = run(tools() / "nvdisasm", "-c", binary)
        usage = USAGE.search(run(tools() / "cuobjdump", "-res-usage", binary))
    if usage is None:
        raise InternalError("cuobjdump does not say what the kernel uses")
    opcodes, loops = taken_apart(code)
    registers, stack, static = map(int, usage.groups())
    return Listing(opcodes, loops, registers, stack, static + dynamic_shared)


def taken_apart(code: str) -> tuple[tuple[str, ...], tuple[Loop, ...]]:
    """Instructions and loops of a disassembly: a loop is what lies between a label and a branch back to it."""
    places: dict[str, int] = {}
    opcodes: list[str] = []
    spans: set[tuple[int, int]] = set()
    for line in code.splitlines():
        if label := LABEL.match(line):
            places[label[1]] = len(opcodes)
        elif found := INSTRUCTION.match(line):
            opcodes.append(found[1])
            target = TARGET.search(found[2]) if found[1].startswith("BRA") else None
            if target and places.get(target[0], len(opcodes)) < len(opcodes) - 1:  # not the trap at the end
                spans.add((places[target[0]], len(opcodes)))
    ordered = sorted(span for span in spans if span[1] - span[0] >= SHORT)
    loops = [Loop(a, b, Counter(code.split(".")[0] for code in opcodes[a:b])) for a, b in ordered]
    return tuple(opcodes), tuple(sorted(loops, key=lambda loop: (loop.first, -loop.last)))


def innermost(found: Listing, launch: Launch) -> Loop | None:
    """The loop that a kernel spends its time in: over keys, or searching; None where it has none."""
    times = passes_of(found, launch)
    inner = [
        loop
        for loop in found.loops
        if times[loop]
        and not any(loop.first <= each.first and each.last <= loop.last and each != loop for each in found.loops)
    ]
    searching = [loop for loop in inner if not loop.kinds["HMMA"]]
    softmax = [loop for loop in inner if loop.kinds["MUFU"]]
    return max(searching if "rows" in launch.constants else softmax, key=lambda loop: loop.length, default=None)


def passes_of(found: Listing, launch: Launch) -> dict[Loop, int]:
    """How often each loop's body is run through each time the loop is come to.

    Known by what a loop holds: products (HMMA), exponentials (MUFU). Of two copies of the loop over keys, of which one
    masks the seam, the shorter runs: most windows are not at the seam. Loops that are none of these (filling a border,
    ordering ties) count as not run through: all windows together pass them seldom.
    """
    given = launch.constants
    tokens = launch.window_size**2

    def inside(loop: Loop) -> list[Loop]:
        return [each for each in found.loops if loop.first <= each.first and each.last <= loop.last and each != loop]

    if "rows" in given:
        channels = -(-given["channels"] // given["step"])
        searched = max((loop for loop in found.loops if not loop.kinds["HMMA"]), key=lambda loop: loop.length)
        return {
            loop: STEPS if loop == searched else channels if loop.kinds["HMMA"] and not inside(loop) else 0
            for loop in found.loops
        }
    times = dict.fromkeys(found.loops, 0)
    over_keys = [loop for loop in found.loops if loop.kinds["MUFU"] and loop.kinds["HMMA"] and not inside(loop)]
    if over_keys:
        times[min(over_keys, key=lambda loop: loop.length)] = -(-tokens // given["keys"])
    if "groups" in given:
        for loop in found.loops:
            if loop not in over_keys and loop.kinds["HMMA"]:
                outer = all(
                    loop.first <= each.first and each.last <= loop.last for each in found.loops if each.kinds["MUFU"]
                )
                times[loop] = given["groups"] if outer and inside(loop) else -(-tokens // given["queries"])
    return times


def executed(found: Listing, launch: Launch) -> int:
    """Instructions that a thread executes: straight code once, loops as `passes_of` says."""
    times = passes_of(found, launch)
    total = 0
    for place in range(len(found.opcodes)):
        run = 1
        for loop in found.loops:
            if loop.first <= place < loop.last:
                run *= times[loop]
        total += run
    return total


@dataclass(frozen=True)
class Counts:
    """Of one kernel on one architecture.

    Attributes:
        inner: Instructions a logit in the innermost loop; of a kernel without a loop, those of the whole.
        all: Instructions a logit executed in all.
        registers: Registers a thread.
        stack: Bytes spilled a thread.
        shared: Bytes of shared memory.
        load_bytes: Mean bytes a load.
    """

    inner: float
    all: float
    registers: int
    stack: int
    shared: int
    load_bytes: float


def count(call: Call, dtype: str, architecture: int, tactic: int = 1) -> Counts:
    """Counts of an operator's kernel, see the head of this file."""
    launch, types, output = planned(call, dtype, tactic)
    compiled = compile_kernel(launch, types, output)
    found = listing(compiled.ptx, compiled.shared_bytes, architecture)
    once, every = logits_of(launch)
    threads = 32 * launch.num_warps
    loop = innermost(found, launch)
    inner = threads * loop.length / once if loop else threads * len(found.opcodes) / every
    everything = threads * executed(found, launch) / every
    return Counts(inner, everything, found.registers, found.stack, found.shared, found.load_bytes())


def main(given: Sequence[str] | None = None) -> int:
    """Prints the table of docs/plugins.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=["float16"])
    parser.add_argument("--labels", nargs="+", help="only these presets")
    parser.add_argument("--architectures", nargs="+", type=int, default=[80, 90], choices=ARCHITECTURES)
    parser.add_argument("--tactic", type=int, default=1)
    options = parser.parse_args(given)
    head = ["operator", "preset", "type", "GPU", "inner loop", "in all", "registers", "spilled", "shared", "load"]
    try:
        tools()
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for call in CALLS:
            if options.labels and call.label not in options.labels:
                continue
            for dtype in options.dtypes:
                for architecture in options.architectures:
                    found = count(call, dtype, architecture, options.tactic)
                    cells = [call.operator, call.label, dtype, f"sm_{architecture}"]
                    cells += [f"{found.inner:.1f}", f"{found.all:.1f}", str(found.registers), str(found.stack)]
                    cells += [str(found.shared), f"{found.load_bytes:.1f}"]
                    print(f"| {' | '.join(cells)} |", flush=True)
    except AgileIRError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
