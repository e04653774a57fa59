"""The verb ``calibrate``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..calib.options import METHODS, CalibrationOptions
from ..errors import InputError
from .completion import complete_model
from .options import (
    Command,
    SizeType,
    Verb,
    collected,
    common_options,
    given,
    model_options,
    output_option,
    path_option,
    stacked,
)
from .terminal import Terminal

if TYPE_CHECKING:
    from ..calib import CalibrationReport
    from ..calib.timing import TimeGain
    from ..models import LoadOptions

__all__ = ["calibrate"]

DEFAULTS = CalibrationOptions()

MEASURING = (
    *("images", "ground_truth", "crops", "held_out", "seed", "method", "percentile", "psnr_budget", "min_parity"),
    *("min_agreement", "equalise", "ends", "every_layer", "plot"),
)
"""Options of what a recipe has settled."""


def tuned(*names: str, **settings: Any) -> Callable[[Command], Command]:
    """An option that shows the default of the field of `CalibrationOptions` that it sets."""
    field = names[-1].removeprefix("--").replace("-", "_")
    return click.option(*names, default=getattr(DEFAULTS, field), show_default=True, **settings)


images_options = stacked(
    path_option(
        "--images",
        multiple=True,
        help="Inputs of the model: picture, folder or list (.txt); may be repeated. A denoiser's get their noise here.",
    ),
    path_option(
        "--ground-truth",
        multiple=True,
        help="Pictures of what is to be restored, degraded here to measure the loss (and to calibrate, "
        "without --images); may be repeated. Default: the packaged samples.",
    ),
    tuned("--crops", help="Crops to calibrate on."),
    tuned("--held-out", help="Files to judge on, not calibrate."),
    tuned("--seed", help="Of the order of the files."),
)

method_options = stacked(
    tuned("--method", type=click.Choice(METHODS), help="How the range of an activation is found."),
    tuned("--percentile", help="For --method percentile."),
    tuned("--psnr-budget", metavar="DB", help="Greatest loss of any picture against ground truth."),
    tuned("--min-psnr", "min_parity", metavar="DB", help="Least PSNR of any picture against the float file."),
    tuned(
        "--min-agreement",
        metavar="SHARE",
        help="SemanIR only: least share of keys that stay the same, in any picture.",
    ),
    click.option(
        "--equalise/--no-equalise",
        default=None,
        help="Move channel scales into weights, always or never. Default: where it lowers the loss.",
    ),
    click.option("--ends", is_flag=True, help="Quantise first convolution and reconstruction head, too."),
    click.option(
        "--quick",
        "every_layer",
        is_flag=True,
        callback=lambda _, option, quick: not quick,
        help="Measure the cost of single layers only where the budget does not hold with all of them.",
    ),
    click.option(
        "--fp16",
        "rest",
        is_flag=True,
        callback=lambda _, option, fp16: "float16" if fp16 else "float32",
        help="Everything else in float16, not float32.",
    ),
)


@click.command(cls=Verb, short_help="Make an INT8 file within a budget in dB.")
@click.argument("source", metavar="MODEL_OR_ONNX", shell_complete=complete_model)
@output_option("-o", "--output", required=True, suffixes=(".onnx",), help="ONNX file to write or replace.")
@images_options
@method_options
@path_option("--recipe", metavar="FILE", help="Apply an earlier recipe; nothing is measured.")
@output_option("--save-recipe", metavar="FILE", suffixes=(".json",), help="Write the recipe (JSON).")
@output_option("--plot", metavar="FILE", suffixes=(".svg",), help="Write layer against dB (SVG).")
@click.option("--no-cache", is_flag=True, help="Do not keep what was found on each image.")
@click.option("--static", type=SizeType(), metavar="HxW", help="For a model: one size only (rows x columns, batch 1).")
@model_options
@common_options
@click.pass_obj
@functools.partial(collected, parameter="how", kind=CalibrationOptions)
def calibrate(
    terminal: Terminal,
    /,
    source: str,
    output: Path,
    images: tuple[Path, ...],
    ground_truth: tuple[Path, ...],
    recipe: Path | None,
    save_recipe: Path | None,
    plot: Path | None,
    no_cache: bool,
    static: tuple[int, int] | None,
    options: LoadOptions,
    how: CalibrationOptions,
) -> None:
    """Make an INT8 file (Q/DQ) of a model or a float32 file, within a budget in dB.

    Every layer's cost is measured on held-out pictures; the costliest stay float until no picture loses more than
    --psnr-budget. Exits with 1 where the budget cannot be met. At the end the file's time on this machine is compared
    with the float32 file's; with --fp16 there is none to compare.

    \b
    agileir-export calibrate agileir_tiny_x2 -o int8.onnx --ground-truth photos/
    agileir-export calibrate swinir.onnx -o int8.onnx --images inputs/ --fp16
    """  # noqa: D301
    from ..cache import RANGES, Cache
    from ..calib import calibrate as run
    from ..calib import loss_plot, read_recipe
    from ..calib.timing import time_gains
    from ..conversion import ConversionRequest, convert
    from ..engines.opening import is_onnx
    from ..files import check_output, write_atomic

    if recipe is not None and (idle := given(*MEASURING)):
        raise InputError(f"--recipe measures nothing: it leaves nothing for {idle[0]} to do.")
    if how.method != "percentile" and given("percentile"):
        raise InputError("--percentile is for --method percentile.")
    if static is not None and is_onnx(source):
        raise InputError(
            f"--static is for a model, and {source} is an exported file.",
            fix="Export it with --static, or leave the option out.",
        )
    for file in filter(None, (output, save_recipe, plot)):
        check_output(file, overwrite=True)
    how.check()
    earlier = None if recipe is None else read_recipe(recipe)
    with terminal.working() as progress:
        artifact = convert(source, ConversionRequest(static=static), options, keep=not no_cache, progress=progress)
    if artifact.spec.top_k is None and given("min_agreement"):
        raise InputError(f"--min-agreement is for SemanIR: {artifact.spec.name} chooses no keys.")
    with terminal.working(f"Calibrating {artifact.spec.name}") as progress:
        made, report = run(
            artifact,
            images,
            ground_truth=ground_truth,
            options=how,
            recipe=earlier,
            cache=None if no_cache else Cache(drawer=RANGES),
            progress=progress,
        )
    written = made.write(output)
    if save_recipe is not None:
        write_atomic(save_recipe, report.recipe.text().encode(), overwrite=True)
    if plot is not None:
        write_atomic(plot, loss_plot(report).encode(), overwrite=True)
    with terminal.working("Timing") as progress:
        gains = time_gains(artifact, written, progress)
    _show(terminal, output, report, gains)
    times = [gain.to_json() for gain in gains]
    terminal.result({"artifact": written.to_json(), "calibration": report.to_json(), "times": times})


def _show(terminal: Terminal, output: Path, report: CalibrationReport, gains: list[TimeGain]) -> None:
    """Tables for people."""
    from ..calib.report import COLUMNS

    if any(layer.quality for layer in report.layers):
        terminal.table("Every layer alone in INT8", COLUMNS, report.rows())
    lines = [*report.summary(), *(gain.told() for gain in gains)]
    terminal.table(f"Calibration of {output}", ("what", "value"), lines)
    for note in report.notes:
        terminal.note(note)
    if report.skipped:
        terminal.note(f"{report.skipped} files could not be read as images and were skipped")
    terminal.note(f"Wrote {output}")
