"""The verb ``bundle``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .completion import complete_model
from .options import Verb, VerificationOptions, common_options, given, model_options, path_option, verification_options
from .terminal import Terminal
from .verify import exit_on_miss, verify_file

if TYPE_CHECKING:
    from ..export import OnnxArtifact
    from ..models import LoadOptions

__all__ = ["bundle"]


@click.command(cls=Verb, short_help="Put a model and its engines into one folder for deployment.")
@click.argument("source", metavar="MODEL_OR_ONNX", shell_complete=complete_model)
@path_option("-o", "--output", required=True, help="Folder to make.")
@path_option(
    "--engine",
    "plans",
    multiple=True,
    metavar="PLAN",
    help="Engine built by `trt` from the same weights; may be repeated.",
)
@click.option("--name", help="Name of the model under Triton, instead of its own.")
@click.option("--max-batch", type=click.IntRange(1, 1024), default=8, show_default=True, help="Of the ONNX file there.")
@click.option(
    "--instances", type=click.IntRange(1, 64), default=1, show_default=True, help="Triton's instances on a device."
)
@click.option("--overwrite", is_flag=True, help="Replace an older bundle.")
@click.option("--reference", metavar="MODEL", help="Model an ONNX file came from, where the file cannot tell.")
@model_options
@verification_options
@click.option("--no-verify", is_flag=True, help="Do not compare the ONNX file with the model.")
@common_options
@click.pass_obj
def bundle(
    terminal: Terminal,
    source: str,
    output: Path,
    plans: tuple[Path, ...],
    name: str | None,
    max_batch: int,
    instances: int,
    overwrite: bool,
    reference: str | None,
    options: LoadOptions,
    verification: VerificationOptions,
    no_verify: bool,
) -> None:
    """Put ONNX file, engines, parity report, model card and a Triton model repository into one folder.

    Exits with 1 when the ONNX file misses a rung of the ladder; the bundle is not written then.
    """
    if no_verify and (reference or verification != VerificationOptions()):
        raise InputError(
            "--no-verify leaves nothing for --images, --ground-truth, --size, --min-psnr, --html and --reference to do."
        )
    from ..bundle import write_bundle
    from ..bundle.bundle import check_bundle
    from ..engines.artifact import read_engine
    from ..engines.opening import is_onnx, refuse_model_options
    from ..export import read_artifact
    from ..parity.pairs import open_pair

    engines = [read_engine(plan) for plan in plans]
    more: dict[str, Any] = {"name": name, "batch": max_batch, "instances": instances, "overwrite": overwrite}
    if no_verify and is_onnx(source):
        refuse_model_options(source, options)
        artifact = read_artifact(source)
        _check_batch(artifact)
        written = write_bundle(output, artifact, engines, **more)
    else:
        model, artifact = open_pair(source, reference, options)
        _check_batch(artifact)
        check_bundle(output, artifact, engines, overwrite)
        report, page = None, ""
        if not no_verify:
            report, page = verify_file(terminal, source, model, artifact, verification, page=True)
            exit_on_miss([report])
        with terminal.working(f"Writing {output}"):
            written = write_bundle(output, artifact, engines, report, page=page, **more)
    terminal.table(f"Bundle {output}", ("file", "sha256"), [(f, d[:12]) for f, d in written.files.items()])
    terminal.result(written.to_json())


def _check_batch(artifact: OnnxArtifact) -> None:
    """Refuses a largest batch for a file that has one size."""
    from ..engines.profiles import static_profile

    fixed = static_profile(artifact)
    if fixed is not None and given("max_batch"):
        raise InputError(
            f"{artifact.name} was exported for {fixed} only: --max-batch has nothing to limit.",
            fix="Leave it out, or export the file without --static.",
        )
