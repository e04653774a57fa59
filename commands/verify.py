"""The verb ``verify``, and the verification other verbs end with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, ParityMissed
from ..files import check_output, write_atomic
from .options import VerificationOptions, common_options, model_options, verification_options
from .terminal import Terminal

if TYPE_CHECKING:
    from ..export import OnnxArtifact
    from ..models import LoadOptions, Restorer
    from ..parity import ParityReport

__all__ = ["exit_on_miss", "verify", "verify_file"]


@click.command(short_help="Compare ONNX files and engines with the models they came from.")
@click.argument("sources", nargs=-1, required=True, metavar="MODEL_OR_FILE...")
@click.option("--reference", metavar="MODEL", help="Model a file came from, where the file cannot tell.")
@model_options
@verification_options
@click.option("--blocks", is_flag=True, help="Show what half precision costs every block; a float32 file as float16.")
@common_options
@click.pass_obj
def verify(
    terminal: Terminal,
    sources: tuple[str, ...],
    reference: str | None,
    options: LoadOptions,
    verification: VerificationOptions,
    blocks: bool,
) -> None:
    """Compare ONNX files and engines with the models they came from, in dB, on real pictures.

    A file made from a preset knows its origin; one made from a checkpoint needs --reference FILE. A model instead of
    a file is exported to a temporary file first. Exits with 1 when a rung of the ladder is missed.
    """
    from ..engines.artifact import is_engine
    from ..parity.pairs import open_pair

    if verification.html is not None:
        if len(sources) > 1:
            raise InputError("--html writes the page of one report.", fix="Verify one file at a time.")
        check_output(verification.html, overwrite=True)
    reports, shown = [], {}
    for source in sources:
        terminal.note(f"Opening {source}")
        if is_engine(source):
            if blocks:
                raise InputError("--blocks looks into ONNX files.", fix="Leave it out, or verify the ONNX file.")
            reports.append(_verify_engine(terminal, source, reference, options, verification))
            continue
        model, artifact = open_pair(source, reference, options)
        reports.append(verify_file(terminal, source, model, artifact, verification)[0])
        if blocks:
            shown[source] = _show_blocks(terminal, source, model, artifact, verification)
    passed = all(report.passed for report in reports)
    found = [r.to_json() | ({"blocks": shown[r.subject]} if r.subject in shown else {}) for r in reports]
    terminal.result({"passed": passed, "reports": found})
    exit_on_miss(reports)


def verify_file(
    terminal: Terminal,
    subject: str,
    model: Restorer,
    artifact: OnnxArtifact,
    verification: VerificationOptions,
    page: bool = False,
) -> tuple[ParityReport, str]:
    """Judges a file against its model, shows the table and writes the page that was asked for.

    Args:
        terminal: Where steps are told.
        subject: What the user calls the file.
        model: The model.
        artifact: The file.
        verification: What to look at.
        page: Whether the page is wanted for another use, too.

    Returns:
        The report, and its page (HTML) where it was asked for.
    """
    from ..parity import verification_images, verify
    from ..parity.tables import COLUMNS, report_rows

    images = verification_images(artifact, verification.images, verification.sizes)
    with terminal.working(f"Verifying {subject}") as progress:
        report = verify(model, artifact, images, min_psnr=verification.min_psnr, subject=subject, progress=progress)
    terminal.table(f"Parity of {subject}", COLUMNS, report_rows(report))
    text = ""
    if page or verification.html is not None:
        from ..parity.page import report_page

        text = report_page(report, model, artifact, images)
    if verification.html is not None:
        write_atomic(verification.html, text.encode(), overwrite=True)
        terminal.note(f"Wrote {verification.html}")
    return report, text


def _show_blocks(
    terminal: Terminal,
    subject: str,
    model: Restorer,
    artifact: OnnxArtifact,
    verification: VerificationOptions,
) -> dict[str, Any]:
    """Shows what half precision costs every block of a file; returns the report."""
    from ..parity import verification_images
    from ..parity.quality import block_quality
    from ..parity.tables import QUALITY_COLUMNS, quality_rows

    images = verification_images(artifact, verification.images, verification.sizes)
    with terminal.working(f"Looking at the blocks of {subject}") as progress:
        report = block_quality(model, artifact, images, subject=subject, progress=progress)
    terminal.table(f"{report.precision} in the blocks of {subject}", QUALITY_COLUMNS, quality_rows(report))
    if report.first_bad is not None:
        terminal.note(f"The first block under {report.floor:g} dB: {report.first_bad}")
    return report.to_json()


def _verify_engine(
    terminal: Terminal,
    source: str,
    reference: str | None,
    options: LoadOptions,
    verification: VerificationOptions,
) -> ParityReport:
    """Judges an engine on the GPU of this machine."""
    if verification.html is not None:
        raise InputError(
            "--html shows ONNX files; an engine has a table.", fix="Leave it out, or verify the ONNX file."
        )
    from ..engines.artifact import read_engine
    from ..engines.opening import open_runner
    from ..parity.engine_ladder import engine_images, verify_engine
    from ..parity.pairs import reference_model
    from ..parity.tables import COLUMNS, report_rows

    engine = read_engine(source)
    images = engine_images(engine, verification.images, verification.sizes)
    model = reference_model(engine, reference, options)
    runner = open_runner(source)
    with terminal.working(f"Verifying {source}") as progress:
        report = verify_engine(
            model, engine, runner, images, min_psnr=verification.min_psnr, subject=source, progress=progress
        )
    terminal.table(f"Parity of {source}", COLUMNS, report_rows(report))
    return report


def exit_on_miss(reports: list[ParityReport]) -> None:
    """Ends the verb where a rung was missed.

    Raises:
        ParityMissed: The first rung below its floor.
    """
    from ..parity.tables import describe_miss

    for report in reports:
        for rung in report.rungs:
            if not rung.passed:
                raise ParityMissed(
                    f"{report.subject} misses the rung '{rung.name}': {describe_miss(rung)}.",
                    fix="Do not use the exported file without knowing why; --html FILE shows where it differs.",
                )
