"""The verb ``restore``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .options import TileType, common_options, memory_size, model_options
from .terminal import Terminal
from .video import refuse_video_options, restore_one_video, video_options

if TYPE_CHECKING:
    from ..models import LoadOptions
    from ..progress import Progress
    from ..restore.tiled_runner import Tile

__all__ = ["restore"]


@click.command(short_help="Restore pictures.")
@click.argument("source", metavar="MODEL_OR_ONNX")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=str), required=True, help="File for one picture, folder for several."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option(
    "--tile",
    type=TileType(),
    default="auto",
    show_default=True,
    metavar="auto|off|N|HxW",
    help="Cut pictures into tiles of at most so many pixels; auto: only what does not fit.",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    metavar="N",
    help="Pixels that tiles share. Default: the fewest that reach --seam-psnr.",
)
@click.option(
    "--seam-psnr",
    type=float,
    default=60.0,
    show_default=True,
    metavar="DB",
    help="Quality at the seams of tiles against the whole picture.",
)
@click.option(
    "--memory",
    callback=memory_size,
    metavar="BYTES",
    help="With --tile auto: most memory to take in all, as in 4GiB. Default: what is free.",
)
@video_options
@model_options
@common_options
@click.pass_obj
def restore(
    terminal: Terminal,
    /,
    source: str,
    images: tuple[Path, ...],
    output: str,
    overwrite: bool,
    tile: Tile,
    overlap: int | None,
    seam_psnr: float,
    memory: int | None,
    options: LoadOptions,
    **video: Any,
) -> None:
    """Restore pictures, all pictures of folders, or a video, with an exported file (fast) or a model (PyTorch).

    PNG and TIFF (8 and 16 bits), JPEG, WebP and BMP, and read only: GIF, AVIF and JPEG 2000. Grey, alpha, EXIF, colour
    description and printed size are kept; what a format does not hold is said. The suffix of a single output file
    chooses its format; in a folder, pictures keep name and format, and those only read become PNG.

    A picture that is larger than the file or engine takes, or than fits, is restored in tiles, whose overlap is
    measured: see docs/tiles.md.

    A video keeps its sound, subtitles, times and colours, and the suffix of the output is its format; - is standard
    input or output, as YUV4MPEG2: see docs/video.md.
    """
    if memory is not None and tile != "auto":
        raise InputError("--memory chooses a tile, and --tile has chosen one.", fix="Leave one of the two out.")
    from ..engines.opening import open_runner
    from ..restore import PlannedRoom, TiledRunner, plan_outputs, restore_planned
    from ..restore.video import VideoOptions, is_video

    if any(is_video(path) for path in (*images, Path(output))):

        def opened(progress: Progress) -> TiledRunner:
            runner = open_runner(source, options)
            room = PlannedRoom(runner, memory, progress)
            return TiledRunner(runner, tile, overlap, seam_psnr, room, progress=progress)

        restore_one_video(terminal, images, output, overwrite, VideoOptions(**video), opened)
        return
    refuse_video_options(list(video))
    with terminal.working():
        pairs = plan_outputs(images, output, overwrite)
    with terminal.working(f"Loading {source}"):
        runner = open_runner(source, options)
    with terminal.working("Restoring") as progress:
        room = PlannedRoom(runner, memory, progress)
        tiled = TiledRunner(runner, tile, overlap, seam_psnr, room, progress=progress)
        done = restore_planned(tiled, pairs, overwrite, progress)
    sizes = [f"{f.size_in[0]}x{f.size_in[1]} -> {f.size_out[0]}x{f.size_out[1]}" for f in done]
    rows = [(f.output, size, f"{f.seconds:.2f} s") for f, size in zip(done, sizes, strict=True)]
    terminal.table("Restored", ("file", "rows x columns", "time"), rows)
    terminal.result({"runner": runner.describe(), "files": [dataclasses.asdict(f) for f in done]})
