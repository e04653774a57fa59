"""Reads kernels to the limit without a GPU: instructions of their loops, registers, shared memory, bytes a load.

Usage::

    python tools/kernel_counts.py [--dtypes float16] [--labels AgileIR SemanIR] [--architectures 80 90]

Kernels are compiled to the PTX that engines carry, assembled for each architecture and disassembled. Instructions are
counted as a thread executes them, a logit: a body's instructions times the threads of a program, over the logits (or
similarities) that a program computes in one pass through the body. Executed instructions of a kernel are those along
the way that most windows take (`executed`): a loop's body as often as the shapes say (`passes_of`), the rest once. What
the counts leave out is the time that instructions wait. Needs Triton, which brings the disassembler, and no GPU.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agileir_export.errors import AgileIRError, EnvironmentProblem, InternalError
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import CALLS
from agileir_export.plugins.launch import ITEM_BYTES, Launch
from agileir_export.plugins.ptx import compile_kernel

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kernel_table import ARCHITECTURES, assembler, planned

STEPS = 15
"""Steps of the bisection until every row of a program holds its count, as seen on random and on real features."""

LEAST_EXPONENTIALS, MOST_EXPONENTIALS = 0.8, 1.5
"""Exponentials that a logit may have in a count that is right: one, and some of the rows; padding may have none."""

JUMPS = ("BRA", "CALL")
"""Instructions that go to a label; a call of a label without a return is a jump, too."""

LABEL = re.compile(r"\s*(\.L_x_\d+):")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*)")
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
class Jump:
    """An instruction that goes elsewhere: to which place among the instructions, and whether on a condition."""

    target: int
    conditional: bool


@dataclass(frozen=True)
class Listing:
    """A kernel's machine code for one architecture.

    Attributes:
        opcodes: Its instructions in order, with their modifiers.
        loops: Its loops, the outer ones first.
        jumps: Its jumps by place; one that ends the program goes behind the last instruction.
        registers: Registers a thread.
        stack: Bytes of stack a thread: spilled registers.
        shared: Bytes of shared memory a program, static and dynamic.
    """

    opcodes: tuple[str, ...]
    loops: tuple[Loop, ...]
    jumps: Mapping[int, Jump]
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
    opcodes, loops, jumps = taken_apart(code)
    registers, stack, static = map(int, usage.groups())
    return Listing(opcodes, loops, jumps, registers, stack, static + dynamic_shared)


def taken_apart(code: str) -> tuple[tuple[str, ...], tuple[Loop, ...], dict[int, Jump]]:
    """Instructions, loops and jumps of a disassembly: a loop is what lies between a label and a branch back to it.

    Where threads may part (BSSY to BSYNC), some take every way: there, no jump is one.
    """
    places: dict[str, int] = {}
    opcodes: list[str] = []
    named: dict[int, tuple[str, bool]] = {}
    ends: dict[int, bool] = {}
    parted = 0
    for line in code.splitlines():
        if label := LABEL.match(line):
            places[label[1]] = len(opcodes)
        elif found := INSTRUCTION.match(line):
            condition, opcode, rest = found.groups()
            kind, place = opcode.split(".")[0], len(opcodes)
            opcodes.append(opcode)
            parted += (kind == "BSSY") - (kind == "BSYNC")
            target = TARGET.search(rest) if kind in JUMPS else None
            if target and (target[0] in places or not parted):
                named[place] = target[0], condition is not None or ".DIV" in opcode
            elif kind == "EXIT":
                ends[place] = condition is not None
    jumps = {place: Jump(places[label], conditional) for place, (label, conditional) in named.items()}
    jumps |= {place: Jump(len(opcodes), conditional) for place, conditional in ends.items()}
    jumps = {place: jump for place, jump in jumps.items() if jump.target != place}  # not the trap at the end
    spans = sorted({(jump.target, place + 1) for place, jump in jumps.items() if jump.target <= place})
    loops = [Loop(a, b, Counter(code.split(".")[0] for code in opcodes[a:b])) for a, b in spans]
    return tuple(opcodes), tuple(sorted(loops, key=lambda loop: (loop.first, -loop.last))), jumps


def within(loop: Loop, loops: Iterable[Loop]) -> list[Loop]:
    """The loops inside a loop, without itself."""
    return [each for each in loops if loop.first <= each.first and each.last <= loop.last and each != loop]


def searching(found: Listing) -> Loop | None:
    """The dictionary's search: its guesses divide, which nothing else without products does."""
    loops = [loop for loop in found.loops if loop.kinds["MUFU"] and not loop.kinds["HMMA"]]
    return max(loops, key=lambda loop: loop.length, default=None)


def over_keys(found: Listing) -> Loop | None:
    """The loop over keys: products and exponentials, and nothing that is stored.

    Of two copies, of which one masks the seam, the shorter: most windows are not at the seam. None where the loop is
    written out.
    """
    loops = [loop for loop in found.loops if loop.kinds["MUFU"] and loop.kinds["HMMA"] and not loop.kinds["STG"]]
    return min(loops, key=lambda loop: loop.length, default=None)


def passes_in(loop: Loop, launch: Launch) -> int:
    """Blocks of keys that one pass through the loop over keys takes: every logit has one exponential."""
    once, _ = logits_of(launch)
    return max(1, 32 * launch.num_warps * loop.kinds["MUFU"] // once)


def passes_of(found: Listing, launch: Launch) -> dict[Loop, int]:
    """How often each loop's body is run through each time the loop is come to, for the loops that are known.

    Known by what a loop holds: products (HMMA), other sums (FFMA), exponentials and quotients (MUFU), stores (STG).
    """
    given = launch.constants
    tokens = launch.window_size**2
    if "rows" in given:
        channels = -(-given["channels"] // given["step"])
        times = {loop: channels for loop in found.loops if loop.kinds["HMMA"] and not within(loop, found.loops)}
        search = searching(found)
        return times | ({search: STEPS} if search else {})
    inner = over_keys(found)
    times = {inner: -(-tokens // (given["keys"] * passes_in(inner, launch)))} if inner else {}
    if "groups" in given:
        threads = 32 * launch.num_warps
        lanes, high, wide = (given[name] for name in ("key_lanes", "kernel_height", "kernel_width"))
        border = (launch.window_size + high - 1) * (launch.window_size + wide - 1) * lanes
        for loop in found.loops:
            if not loop.kinds["HMMA"] and loop.kinds["FFMA"]:  # the filter of q
                sums = given["queries"] * lanes * high * wide // threads
                times[loop] = max(1, sums // loop.kinds["FFMA"])
            elif not loop.kinds["HMMA"] and loop.kinds["STG"]:  # the zeros around q
                stores = [code for code in found.opcodes[loop.first : loop.last] if code.startswith("STG")]
                times[loop] = -(-border // (threads * sum(map(width_of, stores)) // ITEM_BYTES["float32"]))
        stored = [loop for loop in found.loops if loop.kinds["HMMA"] and loop.kinds["STG"]]
        around = max(stored, key=lambda loop: loop.length)
        blocks = -(-tokens // given["queries"])
        times |= {loop: given["groups"] if loop == around else blocks for loop in stored}
    return times


def executed(found: Listing, launch: Launch) -> list[int]:
    """How often a thread executes each instruction on the way of most windows.

    The way leads through every loop that is known, as often as `passes_of` says, and else where it is shortest: windows
    that are not at a seam, rows without ties. A step of the search counts with all ways of guessing, and of a loop that
    is not known one pass.
    """
    times = passes_of(found, launch)
    search = searching(found) if "rows" in launch.constants else None
    exits: dict[Loop, set[int]] = {loop: set() for loop in found.loops}

    def leave(place: int, target: int) -> set[int]:
        """Where a jump leads: on to the end of a loop that it leaves, where all passes but the last one get to."""
        left = [loop for loop in found.loops if loop.first <= place < loop.last - 1 and target >= loop.last]
        if not left:
            return {target}
        exits[max(left, key=lambda loop: loop.length)].add(target)
        return set()

    after: list[set[int]] = []
    for place in range(len(found.opcodes)):
        jump = found.jumps.get(place)
        if jump and search and search.first <= place < jump.target < search.last:
            jump = None
        goes_on = {place + 1} if jump is None or jump.conditional or jump.target <= place else set()
        after.append(goes_on | leave(place, jump.target) if jump and jump.target > place else goes_on)
    for loop in found.loops:
        for target in exits[loop]:
            after[loop.last - 1] |= leave(loop.last - 1, target)

    weights = [1] * len(found.opcodes)
    for loop in found.loops:
        for place in range(loop.first, loop.last):
            weights[place] *= times.get(loop, 1)
    best = [(0, 0)] * (len(found.opcodes) + 1)
    for place in reversed(range(len(found.opcodes))):
        known = sum(loop.first == place for loop in times)
        loops, cost = min(best[target] for target in after[place] or {place + 1})
        best[place] = loops - known, cost + weights[place]
    taken, place = [0] * len(found.opcodes), 0
    while place < len(found.opcodes):
        taken[place] = weights[place]
        place = min(after[place] or {place + 1}, key=lambda target: best[target])
    return taken


@dataclass(frozen=True)
class Counts:
    """Of one kernel on one architecture.

    Attributes:
        inner: Instructions a logit in the loop over keys, or the search; where it is written out, those of the whole.
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
    """Counts of an operator's kernel, see the head of this file.

    Raises:
        InternalError: The loops of the code were not found as they should be: the figures would be wrong.
    """
    launch, types, output = planned(call, dtype, tactic)
    compiled = compile_kernel(launch, types, output)
    found = listing(compiled.ptx, compiled.shared_bytes, architecture)
    once, every = logits_of(launch)
    threads = 32 * launch.num_warps
    taken = executed(found, launch)
    exponentials = sum(n for n, code in zip(taken, found.opcodes, strict=True) if code.startswith("MUFU.EX2"))
    if "rows" not in launch.constants and not LEAST_EXPONENTIALS <= threads * exponentials / every <= MOST_EXPONENTIALS:
        raise InternalError(
            f"the loops of {call.operator} ({call.label}) were taken for others",
            why=f"For sm_{architecture} they would have {threads * exponentials / every:.2f} exponentials a logit.",
        )
    everything = threads * sum(taken) / every
    loop = searching(found) if "rows" in launch.constants else over_keys(found)
    inner = everything
    if loop:
        inner = threads * loop.length / (once if "rows" in launch.constants else once * passes_in(loop, launch))
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
