"""Prints what the kernels of all presets take of a GPU: the table of docs/plugins.md. Needs Triton, but no GPU.

Usage::

    python tools/kernel_table.py [--dtypes float16 float32] [--tactic 1]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from agileir_export.errors import AgileIRError
from agileir_export.plugins.calls import CALLS, Call
from agileir_export.plugins.resources import ARCHITECTURES, assemble, compile_call, find_ptxas

DTYPES = ("float16", "bfloat16", "float32")
HEADER = ["operator", "preset", "type", "threads", "shared bytes", *(f"sm_{each}" for each in ARCHITECTURES)]


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
