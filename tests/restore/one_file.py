"""One file through a runner, with nothing around it: what the road does for every picture."""

from __future__ import annotations

from pathlib import Path

from agileir_export.engines.runner import Runner
from agileir_export.restore.one_picture import Restored, read_picture, restore_picture, size_of, write_picture


def restore_file(runner: Runner, source: Path, output: Path, overwrite: bool = False) -> Restored:
    """Reads, restores and writes; the time is not taken."""
    before = read_picture(source, runner.spec)
    after = restore_picture(runner, before, output)
    write_picture(output, after, overwrite)
    return Restored(source, output, size_of(before), size_of(after), 0.0)
