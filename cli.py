"""The command line: each verb parses, calls one function of the rooms below, and prints."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__
from .errors import AgileIRError, InputError, InternalError, ParityMissed
from .terminal import Terminal

if TYPE_CHECKING:
    from .export import OnnxArtifact
    from .models import Restorer
    from .parity import ParityReport

__all__ = ["main"]

Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    """Turns typed errors into messages and exit codes; nothing else reaches the user as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        terminal = ctx.ensure_object(Terminal)
        try:
            return super().invoke(ctx)
        except AgileIRError as error:
            if terminal.debug:
                raise
            terminal.error(error)
            ctx.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt, BrokenPipeError):
            raise
        except Exception as error:
            if terminal.debug:
                raise
            unexpected = InternalError(
                f"{type(error).__name__}: {error}",
                fix="This is a defect: run again with --debug and report the traceback.",
            )
            terminal.error(unexpected)
            ctx.exit(unexpected.exit_code)


class _Size(click.ParamType):
    """``HxW`` in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)x(\d+)", value)
        if match is None or "0" in match.groups():
            self.fail(f"{value!r} is not a size such as 128x96 (rows x columns).", param, ctx)
        return int(match[1]), int(match[2])


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if category.__module__.startswith(__package__):
        print(f"warning: {message}", file=sys.stderr)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agileir-export")
@click.option("-v", "--verbose", count=True, help="Say more.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and results.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def main(ctx: click.Context, verbose: int, quiet: bool, debug: bool) -> None:
    """Image-restoration transformers from a checkpoint to a verified ONNX file.

    Exit codes: 0 success, 1 parity missed, 2 bad input, 3 unsupported here, 4 environment, 5 internal.
    """
    terminal = ctx.ensure_object(Terminal)
    terminal.verbosity, terminal.debug = (-1 if quiet else min(verbose, 1)), debug
    warnings.showwarning = _show_warning


def _json_option(command: Command) -> Command:
    def choose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.ensure_object(Terminal).as_json = value

    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=choose, is_eager=True, help="Print the result as JSON."
    )
    return option(command)


def _model_options(command: Command) -> Command:
    """Adds the options of `load_model` and hands them over as one mapping, ``options``."""

    @functools.wraps(command)
    def collected(*arguments: Any, **keywords: Any) -> Any:
        names = ("weights", "random_weights", "top_k", "attention")
        return command(*arguments, options={name: keywords.pop(name) for name in names}, **keywords)

    decorated: Any = collected
    options = (
        click.option("--weights", type=click.Path(path_type=Path), help="Checkpoint for a preset."),
        click.option("--random-weights", type=int, metavar="SEED", help="Random weights for a preset, for trials."),
        click.option("--top-k", type=int, help="Keys per query of a SemanIR model."),
        click.option(
            "--attention",
            type=click.Choice(["paper", "bypassed"]),
            default="paper",
            help="bypassed: AgileIR as its released code behaves.",
        ),
    )
    for option in reversed(options):
        decorated = option(decorated)
    result: Command = decorated
    return result


def _images_options(command: Command) -> Command:
    options = (
        click.option(
            "--images",
            multiple=True,
            type=click.Path(path_type=Path),
            help="Pictures or folders to verify on (the packaged samples by default).",
        ),
        click.option("--size", "sizes", multiple=True, type=_Size(), help="Crop to this size; may be repeated."),
        click.option("--min-psnr", type=float, metavar="DB", help="Floor of the ONNX rungs instead of the ladder's."),
        click.option("--html", type=click.Path(path_type=Path), help="Write the report as a page, too."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="ONNX file to write.")
@_model_options
@click.option("--opset", type=int, default=20, show_default=True, help="ONNX opset, 18 to 23.")
@click.option("--static", type=_Size(), help="Fix the size (batch 1) instead of leaving it free.")
@click.option("--decomposed", is_flag=True, help="Plain ONNX only, for tools that know no functions.")
@_images_options
@click.option("--no-verify", is_flag=True, help="Do not compare the file with the model.")
@_json_option
@click.pass_obj
def onnx(
    terminal: Terminal,
    model: str,
    output: Path,
    options: dict[str, Any],
    opset: int,
    static: tuple[int, int] | None,
    decomposed: bool,
    images: tuple[Path, ...],
    sizes: tuple[tuple[int, int], ...],
    min_psnr: float | None,
    html: Path | None,
    no_verify: bool,
) -> None:
    """Export MODEL (preset, packaged model or checkpoint) to ONNX and verify the file in dB.

    Exits with 1 when a rung of the ladder is missed; the file is kept for a look at it.
    """
    from .export import export_onnx
    from .export.provenance import describe_source
    from .models import load_model

    with terminal.working(f"Loading {model}"):
        loaded = load_model(model, **options)
    source = describe_source(model, options)
    with terminal.working(f"Exporting {loaded.spec.name}"):
        artifact = export_onnx(
            loaded, output, opset=opset, static=static, decomposed=decomposed, source=source
        )
    terminal.note(f"Wrote {output}: {artifact.nodes} nodes, sha256 {artifact.sha256[:12]}")
    result: dict[str, Any] = {"artifact": artifact.to_json()}
    report = None
    if not no_verify:
        report = _verify(terminal, loaded, artifact, images, sizes, min_psnr, html)
        result["parity"] = report.to_json()
    terminal.result(result)
    if report is not None:
        _exit_on_miss([report])


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="MODEL_OR_ONNX...")
@click.option("--reference", metavar="MODEL", help="Model an ONNX file came from, where the file cannot tell.")
@_model_options
@_images_options
@_json_option
@click.pass_obj
def verify(
    terminal: Terminal,
    sources: tuple[str, ...],
    reference: str | None,
    options: dict[str, Any],
    images: tuple[Path, ...],
    sizes: tuple[tuple[int, int], ...],
    min_psnr: float | None,
    html: Path | None,
) -> None:
    """Compare ONNX files with the models they came from; a model is exported to a temporary file first."""
    from .parity.pairs import open_pair

    if html is not None and len(sources) > 1:
        raise InputError("--html writes one report.", fix="Verify one file at a time.")
    reports = []
    for source in sources:
        terminal.note(f"Opening {source}")
        with open_pair(source, reference, options) as (model, artifact):
            reports.append(_verify(terminal, model, artifact, images, sizes, min_psnr, html))
    terminal.result({"passed": all(r.passed for r in reports), "reports": [r.to_json() for r in reports]})
    _exit_on_miss(reports)


def _verify(
    terminal: Terminal,
    model: Restorer,
    artifact: OnnxArtifact,
    paths: tuple[Path, ...],
    sizes: tuple[tuple[int, int], ...],
    min_psnr: float | None,
    html: Path | None,
) -> ParityReport:
    from .parity import load_images, verify

    images = load_images(model.spec, paths, sizes or None) if paths or sizes else None
    with terminal.working(f"Verifying {artifact.path.name}") as progress:
        report = verify(model, artifact, images, min_psnr=min_psnr, progress=progress)
    from .parity.tables import COLUMNS, report_rows

    terminal.table(f"Parity of {artifact.path.name}", COLUMNS, report_rows(report))
    if html is not None:
        from .parity.page import write_page

        write_page(report, model, artifact, images, html)
        terminal.note(f"Wrote {html}")
    return report


def _exit_on_miss(reports: list[ParityReport]) -> None:
    missed = [(report, rung) for report in reports for rung in report.rungs if not rung.passed]
    if not missed:
        return
    report, rung = missed[0]
    block = f" The first block that breaks is {rung.broken_block}." if rung.broken_block else ""
    raise ParityMissed(
        f"{report.subject} misses the rung '{rung.name}': {rung.worst:.2f} dB, floor {rung.floor:g} dB.{block}",
        fix="The file is kept as it is; do not use it without knowing why.",
    )


@main.command()
@click.argument("source", metavar="MODEL_OR_ONNX")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder, or a file for one image.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@_model_options
@_json_option
@click.pass_obj
def restore(
    terminal: Terminal,
    source: str,
    images: tuple[Path, ...],
    output: Path,
    overwrite: bool,
    options: dict[str, Any],
) -> None:
    """Restore pictures: PNG and TIFF (8 and 16 bits), JPEG, WebP; alpha, grey and EXIF are kept."""
    from .engines.opening import open_runner
    from .restore import plan_outputs, restore_file

    pairs = plan_outputs(images, output, overwrite)
    with terminal.working(f"Loading {source}"):
        runner = open_runner(source, options)
    done = []
    with terminal.working("Restoring") as progress:
        for number, (picture, target) in enumerate(pairs, 1):
            progress(f"{picture.name} ({number} of {len(pairs)})")
            done.append(restore_file(runner, picture, target, overwrite))
    sizes = [f"{f.size_in[0]}x{f.size_in[1]} -> {f.size_out[0]}x{f.size_out[1]}" for f in done]
    rows = [(f.output, size, f"{f.seconds:.2f} s") for f, size in zip(done, sizes, strict=True)]
    terminal.table("Restored", ("file", "rows x columns", "time"), rows)
    terminal.result({"runner": runner.describe(), "files": [dataclasses.asdict(f) for f in done]})


@main.command()
@_json_option
@click.pass_obj
def models(terminal: Terminal) -> None:
    """List presets and packaged models."""
    from .models import list_models

    entries = list_models()
    columns = ("model", "family", "task", "scale", "channels", "weights")
    rows = [
        (e.name, e.family, e.task, f"x{e.scale}", e.channels, "packaged" if e.packaged else "-") for e in entries
    ]
    terminal.table("Models", columns, rows)
    terminal.result([dataclasses.asdict(entry) for entry in entries])


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@_json_option
@click.pass_obj
def info(terminal: Terminal, file: Path) -> None:
    """Show what an exported ONNX file or a checkpoint is."""
    from .export.provenance import describe_file

    facts = describe_file(file)
    terminal.table(str(file), ("what", "value"), [(k, v) for k, v in facts.items() if k != "blocks"])
    terminal.result(facts)


@main.command()
@_json_option
@click.pass_obj
def doctor(terminal: Terminal) -> None:
    """Show what is installed, which targets work here, and why others do not."""
    from .engines import diagnose

    diagnosis = diagnose().to_json()
    rows = [
        (t["name"], "works" if t["works"] else "no", t["why_not"] or "", t["fix"] or "") for t in diagnosis["targets"]
    ]
    terminal.table("Targets", ("target", "", "why not", "what to do"), rows)
    terminal.result(diagnosis)
