"""The verb ``verify``, and the verification other verbs end with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, ParityMissed
from ..files import check_output, write_atomic
from .completion import complete_model
from .options import (
    Size,
    TileType,
    Verb,
    VerificationOptions,
    command_line,
    common_options,
    given,
    model_options,
    runtime_option,
    verification_options,
)
from .terminal import Terminal

if TYPE_CHECKING:
    from ..engines.runner import Runner
    from ..export import OnnxArtifact
    from ..models import LoadOptions, ModelSpec, Restorer
    from ..parity import ParityImage, ParityReport, TruthPair
    from ..parity.quality import QualityReport

    Pictures = tuple[list[ParityImage], list[TruthPair]]

__all__ = ["exit_on_miss", "verification_pictures", "verify", "verify_file"]


@click.command(cls=Verb, short_help="Compare ONNX files and engines with the models they came from.")
@click.argument("sources", nargs=-1, required=True, metavar="MODEL_OR_FILE...", shell_complete=complete_model)
@click.option("--reference", metavar="MODEL", help="Model a file came from, where the file cannot tell.")
@model_options
@verification_options
@click.option("--blocks", is_flag=True, help="Show what half precision costs every block; a float32 file as float16.")
@click.option("--tiles", is_flag=True, help="Compare tiles with the whole picture at their seams, too.")
@click.option("--tile", type=TileType(), metavar="N|HxW", help="Greatest tile of --tiles. Default: half the picture.")
@click.option("--time", "timed", is_flag=True, help="Time the file or engine, too, on the largest picture.")
@runtime_option("onnxruntime", "openvino: judge the file under OpenVINO, too; auto: where `restore` would take it.")
@common_options
@click.pass_obj
def verify(
    terminal: Terminal,
    sources: tuple[str, ...],
    reference: str | None,
    options: LoadOptions,
    verification: VerificationOptions,
    blocks: bool,
    tiles: bool,
    tile: Size | str | None,
    timed: bool,
    runtime: str,
) -> None:
    r"""Compare ONNX files and engines with the models they came from, in dB, on real pictures.

    A file made from a preset knows its origin; one made from a checkpoint needs --reference FILE. A model instead of
    a file is exported to a temporary file first. Pictures of yours are compared whole, up to 256x256 of their middle,
    and in smaller crops. Exits with 1 when a rung of the ladder is missed.

    \b
    agileir-export verify a.onnx --images photos/
    agileir-export verify a.onnx --ground-truth sharp/
    agileir-export verify a.onnx --images x4/ --ground-truth sharp/
    """
    from ..engines.artifact import is_engine
    from ..engines.opening import open_onnx
    from ..parity.pairs import open_pair

    if isinstance(tile, str) or (given("tile") and not tiles):
        raise InputError("--tile is the size of --tiles, as N or HxW.", fix="Give --tiles and a size.")
    if verification.html is not None:
        if len(sources) > 1:
            raise InputError("--html writes the page of one report.", fix="Verify one file at a time.")
        check_output(verification.html, overwrite=True)
    reports: list[ParityReport] = []
    shown: list[dict[str, Any]] = []
    terminal.unfinished = {"reports": shown}
    for source in sources:
        terminal.note(f"Opening {source}")
        if is_engine(source):
            if blocks:
                raise InputError("--blocks looks into ONNX files.", fix="Leave it out, or verify the ONNX file.")
            if given("runtime"):
                raise InputError("--runtime is for ONNX files.", fix="Leave it out, or verify the ONNX file.")
            report, times = _verify_engine(terminal, source, reference, options, verification, tiles, tile, timed)
            reports.append(report)
            shown.append(report.to_json() | times)
            continue
        model, artifact = open_pair(source, reference, options)
        found = None if not blocks else _show_blocks(terminal, source, model, artifact, verification)
        pictures, runner = verification_pictures(artifact, verification), open_onnx(artifact, runtime)
        more: dict[str, Any] = {"tiles": tiles, "tile": tile, "runner": runner, "blocks": found, "pictures": pictures}
        reports.append(verify_file(terminal, source, model, artifact, verification, **more)[0])
        times = _time(terminal, runner, pictures[0]) if timed else {}
        shown.append(reports[-1].to_json() | ({} if found is None else {"blocks": found.to_json()}) | times)
    terminal.result({"passed": all(report.passed for report in reports), "reports": shown})
    exit_on_miss(reports)


def verify_file(
    terminal: Terminal,
    subject: str,
    model: Restorer,
    artifact: OnnxArtifact,
    verification: VerificationOptions,
    page: bool = False,
    tiles: bool = False,
    tile: Size | None = None,
    runner: Runner | None = None,
    blocks: QualityReport | None = None,
    pictures: Pictures | None = None,
) -> tuple[ParityReport, str]:
    """Judges a file against its model, shows the table and writes the page that was asked for.

    Args:
        terminal: Where steps are told.
        subject: What the user calls the file.
        model: The model.
        artifact: The file.
        verification: What to look at.
        page: Whether the page is wanted for another use, too.
        tiles: Whether to compare tiles with the whole picture.
        tile: Greatest size of a tile.
        runner: What runs the file; ONNX Runtime where None, and what is not has rungs of its own.
        blocks: What was found of its blocks, for the page.
        pictures: `verification_pictures`, where they have been read.

    Returns:
        The report, and its page (HTML) where it was asked for.
    """
    from ..engines import OnnxRuntimeRunner
    from ..parity import verify
    from ..parity.tables import COLUMNS, report_rows

    images, truths = pictures or verification_pictures(artifact, verification)
    also = () if runner is None or isinstance(runner, OnnxRuntimeRunner) else (runner,)
    with terminal.working(f"Verifying {subject}") as progress:
        report = verify(
            model,
            artifact,
            images,
            truths=truths,
            min_psnr=verification.min_psnr,
            also=also,
            subject=subject,
            progress=progress,
        )
    section = ""
    if tiles:
        report, section = _with_tiles(terminal, report, runner or OnnxRuntimeRunner(artifact), verification, tile)
    terminal.table(f"Parity of {subject}", COLUMNS, report_rows(report))
    for note in report.notes:
        terminal.note(note)
    text = ""
    if page or verification.html is not None:
        from ..parity.page import block_section, report_page

        section += "" if blocks is None else block_section(blocks)
        text = report_page(report, model, artifact, images, section, command_line())
    if verification.html is not None:
        write_atomic(verification.html, text.encode(), overwrite=True)
        terminal.note(f"Wrote {verification.html}")
    return report, text


def verification_pictures(artifact: OnnxArtifact, verification: VerificationOptions) -> Pictures:
    """What to look at: pictures to compare on, and the user's ground truth, if any was named.

    Raises:
        ImageError: One that was named is missing, or none can be read.
        InputError: Ground truth is of no use for the model, or lacks its inputs.
    """
    from ..parity import verification_images

    fixed = artifact.fixed_sizes
    size = (fixed["height"], fixed["width"]) if "height" in fixed else None
    images = verification_images(artifact, verification.images, verification.sizes)
    return images, _truths(artifact.spec, verification, size)


def _truths(spec: ModelSpec, verification: VerificationOptions, size: Size | None = None) -> list[TruthPair]:
    from ..parity import own_pairs

    if not verification.ground_truth:
        return []
    return own_pairs(spec, verification.ground_truth, verification.images, size)


def _show_blocks(
    terminal: Terminal,
    subject: str,
    model: Restorer,
    artifact: OnnxArtifact,
    verification: VerificationOptions,
) -> QualityReport:
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
    return report


def _verify_engine(
    terminal: Terminal,
    source: str,
    reference: str | None,
    options: LoadOptions,
    verification: VerificationOptions,
    tiles: bool,
    tile: Size | None,
    timed: bool,
) -> tuple[ParityReport, dict[str, Any]]:
    """Judges an engine on the GPU of this machine; returns the report, and the time where it is asked for."""
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
    truths = _truths(engine.spec, verification)
    runner = open_runner(source)
    with terminal.working(f"Verifying {source}") as progress:
        report = verify_engine(
            model,
            engine,
            runner,
            images,
            truths=truths,
            min_psnr=verification.min_psnr,
            subject=source,
            progress=progress,
        )
    if tiles:
        report, _ = _with_tiles(terminal, report, runner, verification, tile)
    terminal.table(f"Parity of {source}", COLUMNS, report_rows(report))
    for note in report.notes:
        terminal.note(note)
    return report, _time(terminal, runner, images) if timed else {}


def _time(terminal: Terminal, runner: Runner, images: Sequence[ParityImage]) -> dict[str, Any]:
    """Shows how long a runner takes; returns it under its name in a report."""
    from ..parity.latency import LATENCY_COLUMNS, latency

    found = latency(runner, images)
    if found is None:
        terminal.note("Not timed: half precision is emulated on the CPU, which takes other times than a GPU does.")
        return {"time": None}
    terminal.table("Time for a picture", LATENCY_COLUMNS, [found.row()])
    return {"time": found.to_json()}


def _with_tiles(
    terminal: Terminal, report: ParityReport, runner: Runner, verification: VerificationOptions, tile: Size | None
) -> tuple[ParityReport, str]:
    """A report with the rung of the tiles, and its part of the page."""
    from ..restore.seam_report import judge_tiles, seam_section, tile_images, with_tiles

    images = tile_images(runner, verification.images, verification.sizes)
    with terminal.working(f"Verifying tiles of {report.subject}") as progress:
        judged = judge_tiles(runner, images, tile, progress)
    return with_tiles(report, judged), seam_section(judged)


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
