"""The verb ``polygraphy``."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import InputError
from .options import DecibelType, Size, SizeType, Verb, common_options, output_option, path_option
from .terminal import Terminal

__all__ = ["polygraphy"]


@click.command(cls=Verb, short_help="Write the command that compares with NVIDIA's polygraphy.")
@click.argument("model", metavar="ONNX", type=click.Path(path_type=Path))
@path_option(
    "--against",
    metavar="FILE",
    help="Another ONNX file of the network for the other side, such as its half precision, or a built engine.",
)
@click.option("--trt", is_flag=True, help="The other side is TensorRT.")
@click.option("--rtx", is_flag=True, help="The other side is TensorRT-RTX.")
@path_option(
    "--images",
    multiple=True,
    help="Picture or folder to run on; may be repeated. Default: the packaged samples.",
)
@click.option("--size", type=SizeType(), metavar="HxW", help="Cut pictures to rows x columns. Default: whole pictures.")
@click.option("--psnr", type=DecibelType(), metavar="DB", help="Floor in dB instead of the parity ladder's.")
@output_option("-o", "--output", help="Script to write. Default: print it.")
@click.option("--overwrite", is_flag=True, help="Replace an existing script.")
@common_options
@click.pass_obj
def polygraphy(
    terminal: Terminal,
    model: Path,
    against: Path | None,
    trt: bool,
    rtx: bool,
    images: tuple[Path, ...],
    size: Size | None,
    psnr: float | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Print or write a shell script that compares two executions of a network with NVIDIA's polygraphy.

    One side is ONNX Runtime on the file ONNX. The other is TensorRT (--trt) or TensorRT-RTX (--rtx) on the same file,
    or on the one that --against names; with --against alone it is ONNX Runtime on that, or the engine that it names.
    Nothing is run.
    """
    from ..files import check_output, write_atomic
    from ..parity.polygraphy import plan_comparison

    if trt and rtx:
        raise InputError(
            "--trt and --rtx: ONNX Runtime is compared with one of them.",
            why="polygraphy loads either TensorRT or TensorRT-RTX in a run, never both.",
            fix="Give one of them, and make a script for each.",
        )
    if overwrite and output is None:
        raise InputError(
            "--overwrite is for -o: without it the script is printed.", fix="Leave it out, or add -o FILE."
        )
    target = "trt" if trt else "rtx" if rtx else None
    if output is not None:
        check_output(output, overwrite)
    with terminal.working("Looking at the pictures"):
        comparison = plan_comparison(model, target, against=against, images=images, size=size, floor=psnr)
    script = comparison.script()
    if output is not None:
        write_atomic(output, script.encode(), overwrite)
        output.chmod(output.stat().st_mode | 0o111)
        terminal.note(f"Wrote {output}")
    elif not terminal.as_json:
        click.echo(script, nl=False)
    terminal.result({**comparison.to_json(), "output": output})
