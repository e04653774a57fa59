"""The verb ``restore``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..errors import InputError, PicturesFailed
from .completion import complete_model
from .options import (
    DecibelType,
    OutputType,
    TileType,
    Verb,
    common_options,
    device_numbers,
    given,
    memory_size,
    model_options,
    runtime_option,
)
from .terminal import Terminal
from .video import refuse_video_options, restore_one_video, video_options

if TYPE_CHECKING:
    from ..models import LoadOptions
    from ..progress import Progress
    from ..restore import Restoration
    from ..restore.tiled_runner import Tile

__all__ = ["restore"]


MOST_ROWS = 20
"""Restored pictures that are listed one by one."""


@click.command(cls=Verb, short_help="Restore pictures.")
@click.argument("source", metavar="MODEL_OR_ONNX", shell_complete=complete_model)
@click.argument("images", metavar="IMAGES...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=str), required=True, help="File for one picture, folder for several."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--skip-existing", is_flag=True, help="Leave out pictures whose output exists.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run into the same folder ended.")
@click.option("--recursive", is_flag=True, help="Search folders with all that is in them, and mirror the tree.")
@click.option("--log", type=OutputType(), metavar="FILE", help="Append a line of JSON for every picture.")
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
    type=DecibelType(),
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
@click.option(
    "--devices",
    callback=device_numbers,
    metavar="N,N,...|all",
    help="Restore on these GPUs, a process for each. For engines and models.",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Restore on a Ray cluster: at an address, auto for that of this machine, or one started for this run.",
)
@click.option(
    "--server",
    metavar="URL",
    help="Restore on a server, grpc://HOST:PORT/MODEL (see serve); no MODEL_OR_ONNX is named then.",
)
@click.option("--at-once", type=click.IntRange(1, 256), default=8, show_default=True, help="Pictures sent to --server.")
@click.option(
    "--server-seconds", type=click.FloatRange(min=0.1), default=300.0, show_default=True, help="For its answer to one."
)
@runtime_option("auto", "What runs an ONNX file; auto: OpenVINO where it is installed, holds and is faster here.")
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
    skip_existing: bool,
    resume: bool,
    recursive: bool,
    log: Path | None,
    tile: Tile,
    overlap: int | None,
    seam_psnr: float,
    memory: int | None,
    devices: tuple[int, ...] | Literal["all"] | None,
    runtime: str,
    ray: str | None,
    server: str | None,
    at_once: int,
    server_seconds: float,
    options: LoadOptions,
    **video: Any,
) -> None:
    """Restore pictures, folders, patterns ("photos/**/*.jpg"), lists (@list.txt, a path a line), or a video.

    MODEL_OR_ONNX is an exported file (fast) or a model (PyTorch).

    PNG and TIFF (8 and 16 bits), JPEG, WebP and BMP, and read only: GIF, AVIF and JPEG 2000. Grey, alpha, EXIF, colour
    description and printed size are kept; what a format does not hold is said. The suffix of a single output file
    chooses its format; in a folder, pictures keep name and format, and those only read become PNG.

    A picture that is larger than the file or engine takes, or than fits, is restored in tiles, whose overlap is
    measured: see docs/tiles.md.

    Of several pictures, one that cannot be restored is named, and the rest is done: the exit code is 1 then. A folder
    keeps a journal for --resume: see docs/folders.md.

    A video keeps its sound, subtitles, times and colours, and the suffix of the output is its format; - is standard
    input or output, as YUV4MPEG2: see docs/video.md.
    """
    if server is not None:
        images = (Path(source), *images)
        _refuse_beside_server(list(video))
    elif useless := given("at_once", "server_seconds"):
        raise InputError(f"{', '.join(useless)} is for a server, and no --server is given.")
    elif not images:
        raise click.MissingParameter(param_hint="'IMAGES...'", param_type="argument")
    else:
        _refuse_swapped(source, images)
    if memory is not None and tile != "auto":
        raise InputError("--memory chooses a tile, and --tile has chosen one.", fix="Leave one of the two out.")
    if devices is not None and ray is not None:
        raise InputError("A Ray cluster knows its GPUs: it is not told --devices.", fix="Leave one of the two out.")
    from ..engines.opening import open_runner
    from ..restore import (
        DeviceRunner,
        FolderOptions,
        PlannedRoom,
        TiledRunner,
        plan_outputs,
        restore_on_devices,
        restore_on_ray,
        restore_planned,
    )
    from ..restore.video import VideoOptions, is_video

    def opened(progress: Progress) -> TiledRunner:
        runner = open_runner(source, options, runtime)
        room = PlannedRoom(runner, memory, progress)
        return TiledRunner(runner, tile, overlap, seam_psnr, room, progress=progress)

    if server is None and any(is_video(path) for path in (*images, Path(output))):
        if useless := given("skip_existing", "resume", "recursive", "log", "devices", "ray"):
            raise InputError(f"{', '.join(useless)}: a video has no use for it.", fix="Leave it out.")
        restore_one_video(terminal, images, output, overwrite, VideoOptions(**video), opened)
        return
    if server is None:
        refuse_video_options(list(video))
    with terminal.working():
        plan = plan_outputs(images, output, FolderOptions(overwrite, recursive, resume, skip_existing, log=log))
    if server is not None:
        from ..restore.server import ServerAddress, ServerOptions, restore_on_server

        address = ServerAddress.parse(server)
        with terminal.working("Restoring") as progress:
            found, described = restore_on_server(address, plan, progress, ServerOptions(at_once, server_seconds))
        return _show(terminal, found, described)
    if devices is not None or ray is not None:
        opener = DeviceRunner(source, options, tile, overlap, seam_psnr, memory, runtime)
        with terminal.working("Restoring") as progress:
            if ray is not None:
                found, described = restore_on_ray(opener, plan, progress, address=ray, gpus=opener.wants_gpu)
            else:
                numbers = None if devices == "all" else devices
                found, described = restore_on_devices(opener, numbers, plan, progress)
        return _show(terminal, found, described)
    with terminal.working("Restoring") as progress:
        progress(f"loading {source}")
        runner = opened(progress)
        found = restore_planned(runner, plan, progress, memory=memory)
    _show(terminal, found, runner.describe())


def _refuse_beside_server(video: list[str]) -> None:
    """Refuses options that the server has decided.

    Raises:
        InputError: One was given.
    """
    local = ("tile", "overlap", "seam_psnr", "memory", "devices", "ray", "runtime")
    model = ("weights", "random_weights", "top_k", "img_range", "attention")
    if useless := given(*local, *model, *video):
        raise InputError(
            f"{', '.join(useless)}: that is for the server to say.", fix="Give it to `agileir-export serve`."
        )


def _refuse_swapped(source: str, images: tuple[Path, ...]) -> None:
    """Says which way round the arguments go, where a picture stands for the model.

    Raises:
        InputError: So it is.
    """
    from ..images import IMAGE_SUFFIXES

    if Path(source).suffix.lower() in IMAGE_SUFFIXES and Path(source).is_file():
        models = [path for path in images if path.suffix.lower() not in IMAGE_SUFFIXES and path.is_file()]
        raise InputError(
            f"{source} is a picture, where the model belongs.",
            fix=f"Name the model first: agileir-export restore {models[0] if models else 'MODEL'} {source} -o OUT",
        )


def _show(terminal: Terminal, found: Restoration, runner: dict[str, Any]) -> None:
    """What was done, skipped and failed.

    Raises:
        PicturesFailed: Some were not restored.
    """
    sizes = [f"{f.size_in[0]}x{f.size_in[1]} -> {f.size_out[0]}x{f.size_out[1]}" for f in found.done]
    files = [(f.output, size, f"{f.seconds:.2f} s") for f, size in zip(found.done, sizes, strict=True)]
    if 0 < len(files) <= MOST_ROWS:
        terminal.table("Restored", ("file", "rows x columns", "time"), files)
    if found.failed:
        terminal.table("Failed", ("file", "why"), [(f.source, f"{f.error.what} {f.error.why}") for f in found.failed])
    total = len(found.done) + len(found.skipped) + len(found.failed)
    if total > 1 or found.skipped:
        reasons = Counter(skipped.reason for skipped in found.skipped)
        rows = [("done", len(found.done)), *((f"skipped: {why}", count) for why, count in reasons.items())]
        terminal.table("Pictures", ("", "number"), [*rows, ("failed", len(found.failed))])
        if found.done:
            terminal.note(f"{len(found.done) / found.seconds:.3g} pictures/s")
    terminal.result({"runner": runner, **found.to_json()})
    if found.failed:
        raise PicturesFailed(
            f"{len(found.failed)} of {total} pictures could not be restored; the rest is done.",
            fix="Mend or remove them, and run it again with --resume.",
        )
