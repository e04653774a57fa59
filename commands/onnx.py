"""The verb ``onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .completion import complete_model
from .options import (
    Size,
    SizeType,
    Verb,
    VerificationOptions,
    common_options,
    model_options,
    output_option,
    verification_options,
)
from .terminal import Terminal
from .verify import exit_on_miss, verification_pictures, verify_file

if TYPE_CHECKING:
    from ..models import LoadOptions

__all__ = ["onnx"]


@click.command(cls=Verb, short_help="Export a model to ONNX and verify the file.")
@click.argument("model", shell_complete=complete_model)
@output_option("-o", "--output", required=True, suffixes=(".onnx",), help="ONNX file to write or replace.")
@model_options
@click.option("--fp16", is_flag=True, help="Compute in float16; input and output stay float32.")
@click.option("--bf16", is_flag=True, help="Compute in bfloat16; input and output stay float32.")
@click.option("--no-rescale", is_flag=True, help="With --fp16: leave residual streams as they are.")
@click.option("--opset", type=int, show_default="20; 22 with --bf16", help="ONNX opset, 18 to 23.")
@click.option(
    "--static",
    type=SizeType(),
    metavar="HxW",
    help="Fix the size (rows x columns, batch 1) instead of leaving it free.",
)
@click.option("--decomposed", is_flag=True, help="Plain ONNX only, for tools that know no functions.")
@verification_options
@click.option("--no-verify", is_flag=True, help="Do not compare the file with the model.")
@common_options
@click.pass_obj
def onnx(
    terminal: Terminal,
    model: str,
    output: Path,
    options: LoadOptions,
    fp16: bool,
    bf16: bool,
    no_rescale: bool,
    opset: int | None,
    static: Size | None,
    decomposed: bool,
    verification: VerificationOptions,
    no_verify: bool,
) -> None:
    """Export MODEL to ONNX and verify the file against PyTorch, in dB, on real pictures.

    MODEL is a checkpoint (.pth, .pt, .ckpt, .safetensors, .bin, .pth.tar), or a preset that `agileir-export models`
    lists, with --weights or --random-weights where it is not packaged.

    Exits with 1 when a rung of the ladder is missed; the file is kept for a look at it.
    """
    from ..files import check_output

    if no_verify and verification != VerificationOptions():
        raise InputError(
            "--no-verify leaves nothing for --images, --ground-truth, --size, --min-psnr and --html to do."
        )
    for file in filter(None, (output, verification.html)):
        check_output(file, overwrite=True)
    if fp16 and bf16:
        raise InputError("--fp16 and --bf16 exclude each other.")
    if no_rescale and not fp16:
        raise InputError("--no-rescale is for --fp16 only.", why="Other precisions have float32's range.")
    from ..conversion import ConversionRequest, export, in_precision
    from ..models import load_model

    precision = "float16" if fp16 else "bfloat16" if bf16 else None
    request = ConversionRequest(precision, opset, static, decomposed, rescale=not no_rescale)
    with terminal.working() as progress:
        progress(f"Loading {model}")
        loaded = load_model(model, options)
        exported = export(loaded, request, progress)
        converted = in_precision(exported, request, progress) if precision else exported
        pictures = None if no_verify else verification_pictures(converted, verification)
        artifact = converted.write(output)
    terminal.note(f"Wrote {output}: {artifact.nodes} nodes, sha256 {artifact.sha256[:12]}")
    for kept in artifact.conversion.get("float32_nodes", ()):
        terminal.note(f"In float32: {kept['count']} {kept['op']} ({kept['reason']})")
    result: dict[str, Any] = {"artifact": artifact.to_json()}
    reports = []
    if not no_verify:
        reports.append(verify_file(terminal, str(output), loaded, artifact, verification, pictures=pictures)[0])
        result["parity"] = reports[0].to_json()
    terminal.result(result)
    exit_on_miss(reports)
