"""The verb ``onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import InputError, OutputError
from ..terminal import Terminal
from .options import Size, SizeType, common_options, images_options, model_options
from .verify import exit_on_miss, verify_file

__all__ = ["onnx"]


@click.command(short_help="Export a model to ONNX and verify the file.")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="ONNX file to write or replace.")
@model_options
@click.option("--opset", type=int, default=20, show_default=True, help="ONNX opset, 18 to 23.")
@click.option(
    "--static",
    type=SizeType(),
    metavar="HxW",
    help="Fix the size (rows x columns, batch 1) instead of leaving it free.",
)
@click.option("--decomposed", is_flag=True, help="Plain ONNX only, for tools that know no functions.")
@images_options
@click.option("--no-verify", is_flag=True, help="Do not compare the file with the model.")
@common_options
@click.pass_obj
def onnx(
    terminal: Terminal,
    model: str,
    output: Path,
    options: dict[str, Any],
    opset: int,
    static: Size | None,
    decomposed: bool,
    images: tuple[Path, ...],
    sizes: tuple[Size, ...],
    min_psnr: float | None,
    html: Path | None,
    no_verify: bool,
) -> None:
    """Export MODEL to ONNX and verify the file against PyTorch, in dB, on real pictures.

    MODEL is a checkpoint (.pth, .pt, .ckpt, .safetensors), or a preset that `agileir-export models` lists, with
    --weights or --random-weights where it is not packaged.

    Exits with 1 when a rung of the ladder is missed; the file is kept for a look at it.
    """
    from ..engines.opening import is_onnx
    from ..imaging import check_output

    if not is_onnx(output):
        raise OutputError(f"{output} does not end in .onnx, by which the other verbs know it.", fix="Add the suffix.")
    if no_verify and (images or sizes or min_psnr is not None or html):
        raise InputError("--no-verify leaves nothing for --images, --size, --min-psnr and --html to do.")
    for file in filter(None, (output, html)):
        check_output(file, overwrite=True)
    from ..export import export_onnx
    from ..export.provenance import describe_source
    from ..models import load_model

    with terminal.working(f"Loading {model}"):
        loaded = load_model(model, **options)
    source = describe_source(model, options)
    with terminal.working(f"Exporting {loaded.spec.name}"):
        artifact = export_onnx(loaded, output, opset=opset, static=static, decomposed=decomposed, source=source)
    terminal.note(f"Wrote {output}: {artifact.nodes} nodes, sha256 {artifact.sha256[:12]}")
    result: dict[str, Any] = {"artifact": artifact.to_json()}
    reports = [] if no_verify else [verify_file(terminal, str(output), loaded, artifact, images, sizes, min_psnr, html)]
    for report in reports:
        result["parity"] = report.to_json()
    terminal.result(result)
    exit_on_miss(reports)
