"""What the verb ``restore`` does with a video."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from ..progress import Progress
from .options import given, stacked
from .terminal import Terminal

if TYPE_CHECKING:
    from ..engines.runner import Runner
    from ..restore.video import VideoOptions

__all__ = ["refuse_video_options", "restore_one_video", "video_options"]

DAMAGED = 1
"""Exit code where the source was damaged, and what could be decoded is written."""

video_options = stacked(
    click.option("--codec", metavar="NAME", help="Video: FFmpeg's encoder. Default: libx264, above 8 bits libx265."),
    click.option("--crf", type=float, metavar="X", help="Video: the encoder's rate factor; less is better and larger."),
    click.option("--drop", is_flag=True, help="Video: leave out sound and subtitles that the format cannot hold."),
    click.option("--raw", is_flag=True, help="Video to standard output: samples alone, without headers."),
)
"""The fields of `VideoOptions`."""


def refuse_video_options(names: Sequence[str]) -> None:
    """Says that options have nothing to do where there is no video.

    Raises:
        InputError: One of them was given.
    """
    if useless := given(*names):
        raise InputError(f"{', '.join(useless)}: there is no video.", fix="Leave it out for pictures.")


def restore_one_video(
    terminal: Terminal,
    paths: Sequence[Path],
    output: str,
    overwrite: bool,
    options: VideoOptions,
    opened: Callable[[Progress], Runner],
) -> None:
    """Restores a video, and tells it; nothing on standard output where the frames go there.

    Args:
        terminal: Where to speak.
        paths: What was named to be restored.
        output: Where to.
        overwrite: Whether an existing file may be replaced.
        options: How it is written.
        opened: Makes the runner.

    Raises:
        InputError: More than a video was named, or a result cannot be printed beside the frames.
    """
    from ..restore.video import plan_video, restore_video

    if len(paths) > 1:
        raise InputError(f"{len(paths)} files with a video among them: a video is restored alone.", fix="Name one.")
    if output == "-" and terminal.as_json:
        raise InputError("Frames and --json both go to standard output.", fix="Leave one of the two out.")
    source = paths[0]
    with terminal.working():
        target = plan_video(source, output, options, overwrite)
    with terminal.working(f"Restoring {source}") as progress:
        progress("loading the model")
        runner = opened(_once(progress))
        done = restore_video(runner, source, target, options, overwrite, progress)
    speed = f"{done.frames / max(done.seconds, 1e-9):.2f} frames/s"
    told = (*(f"{rows}x{columns}" for rows, columns in (done.size_in, done.size_out)), done.encoder, done.pixel_format)
    if output != "-":
        columns = ("file", "frames", "rows x columns", "became", "encoder", "pixels", "speed")
        terminal.table("Restored", columns, [(done.output, done.frames, *told, speed)])
        terminal.result({"runner": runner.describe(), "video": dataclasses.asdict(done)})
    else:
        terminal.note(f"{done.frames} frames, {told[0]} -> {told[1]}, {speed}")
    if done.damage:
        click.get_current_context().exit(DAMAGED)


def _once(progress: Progress) -> Progress:
    """A `Progress` that is told every step once: not every tile of every frame."""
    told: set[str] = set()

    def tell(step: str, done: int = 0, total: int = 0, /) -> None:
        if step not in told:
            told.add(step)
            progress(step)

    return tell
