"""The command line: each verb parses, calls one function of the rooms below, and prints."""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__
from .errors import AgileIRError, InputError, InternalError, OutputError, ParityMissed
from .terminal import Terminal

if TYPE_CHECKING:
    from .export import OnnxArtifact
    from .models import Restorer
    from .parity import ParityReport

__all__ = ["main"]

INTERRUPTED = 130
"""Exit code of a process that Ctrl-C ended, as shells number it: 128 + SIGINT."""

Command = TypeVar("Command", bound=Callable[..., Any])
Size = tuple[int, int]


class _Group(click.Group):
    """Turns typed errors into messages and exit codes; without --debug, nobody sees a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        del ctx
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        terminal = ctx.ensure_object(Terminal)
        try:
            return super().invoke(ctx)
        except AgileIRError as error:
            terminal.error(error)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            terminal.note("Interrupted; no file was left half-written.")
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            unexpected = InternalError(
                f"{type(error).__name__}: {error}",
                fix="This is a defect of agileir-export. Please report it with the traceback that --debug shows.",
            )
            terminal.error(unexpected)
            ctx.exit(unexpected.exit_code)


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """``HxW`` in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"0*([1-9][0-9]{0,5})x0*([1-9][0-9]{0,5})", value)
        if match is None:
            self.fail(f"{value!r} is not a size such as 128x96 (rows x columns).", param, ctx)
        return int(match[1]), int(match[2])


def _sets(attribute: str, of: Callable[[Any], Any] = bool) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that sets an attribute of the terminal where the option was given."""

    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Terminal), attribute, of(value))

    return callback


def _stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, listed in this order by ``--help``."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _common(name: str, *more: str, help: str, callback: Callable[..., None]) -> Callable[[Command], Command]:
    return click.option(name, *more, is_flag=True, expose_value=False, is_eager=True, help=help, callback=callback)


_common_options = _stacked(
    _common("--json", help="Print the result as one JSON document.", callback=_sets("as_json")),
    _common("-v", "--verbose", help="Show warnings of other libraries, too.", callback=_sets("verbosity", int)),
    _common("-q", "--quiet", help="Say nothing but results and errors.", callback=_sets("verbosity", lambda _: -1)),
    _common("--debug", help="Show the traceback of an error.", callback=_sets("debug")),
)
"""Understood before and after the verb."""


@click.group("agileir-export", cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agileir-export")
@_common_options
@click.pass_context
def main(ctx: click.Context) -> None:
    """Image restoration transformers (AgileIR, SemanIR, SwinIR) from a checkpoint to a verified ONNX file.

    \b
    agileir-export onnx swinir_x4.pth -o swinir_x4.onnx
    agileir-export restore swinir_x4.onnx photo.jpg -o big.png

    \b
    Exit codes: 0 success, 1 parity missed, 2 bad input, 3 not supported here,
    4 environment, 5 defect of this program, 130 interrupted.
    """  # noqa: D301
    ctx.with_resource(warnings.catch_warnings())
    warnings.showwarning = ctx.ensure_object(Terminal).warning


def _model_options(command: Command) -> Command:
    """Adds the options of `load_model` and hands them over as one mapping, ``options``."""

    @functools.wraps(command)
    def collected(*arguments: Any, **keywords: Any) -> Any:
        names = ("weights", "random_weights", "top_k", "attention")
        return command(*arguments, options={name: keywords.pop(name) for name in names}, **keywords)

    options = _stacked(
        click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="Checkpoint for a preset."),
        click.option("--random-weights", type=int, metavar="SEED", help="Random weights for a preset, for trials."),
        click.option("--top-k", type=int, metavar="K", help="Keys per query of a SemanIR model, instead of its own."),
        click.option(
            "--attention",
            type=click.Choice(["paper", "bypassed"]),
            default="paper",
            show_default=True,
            help="AgileIR only: as in the paper, or discarded as by the authors' released code.",
        ),
    )
    return options(collected)  # type: ignore[return-value]


_images_options = _stacked(
    click.option(
        "--images",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Picture or folder to verify on; may be repeated. Default: the packaged samples.",
    ),
    click.option(
        "--size", "sizes", multiple=True, type=_Size(), metavar="HxW", help="Crop to rows x columns; may be repeated."
    ),
    click.option("--min-psnr", type=float, metavar="DB", help="Floor of the ONNX rungs instead of the ladder's own."),
    click.option(
        "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the report as a page with pictures, too."
    ),
)


@main.command(short_help="Export a model to ONNX and verify the file.")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="ONNX file to write or replace.")
@_model_options
@click.option("--opset", type=int, default=20, show_default=True, help="ONNX opset, 18 to 23.")
@click.option(
    "--static", type=_Size(), metavar="HxW", help="Fix the size (rows x columns, batch 1) instead of leaving it free."
)
@click.option("--decomposed", is_flag=True, help="Plain ONNX only, for tools that know no functions.")
@_images_options
@click.option("--no-verify", is_flag=True, help="Do not compare the file with the model.")
@_common_options
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
    from .engines.opening import is_onnx
    from .imaging import check_output

    if not is_onnx(output):
        raise OutputError(f"{output} does not end in .onnx, by which the other verbs know it.", fix="Add the suffix.")
    if no_verify and (images or sizes or min_psnr is not None or html):
        raise InputError("--no-verify leaves nothing for --images, --size, --min-psnr and --html to do.")
    for file in filter(None, (output, html)):
        check_output(file, overwrite=True)
    from .export import export_onnx
    from .export.provenance import describe_source
    from .models import load_model

    with terminal.working(f"Loading {model}"):
        loaded = load_model(model, **options)
    source = describe_source(model, options)
    with terminal.working(f"Exporting {loaded.spec.name}"):
        artifact = export_onnx(loaded, output, opset=opset, static=static, decomposed=decomposed, source=source)
    terminal.note(f"Wrote {output}: {artifact.nodes} nodes, sha256 {artifact.sha256[:12]}")
    result: dict[str, Any] = {"artifact": artifact.to_json()}
    reports = [] if no_verify else [_verify(terminal, str(output), loaded, artifact, images, sizes, min_psnr, html)]
    for report in reports:
        result["parity"] = report.to_json()
    terminal.result(result)
    _exit_on_miss(reports)


@main.command(short_help="Compare ONNX files with the models they came from.")
@click.argument("sources", nargs=-1, required=True, metavar="MODEL_OR_ONNX...")
@click.option("--reference", metavar="MODEL", help="Model an ONNX file came from, where the file cannot tell.")
@_model_options
@_images_options
@_common_options
@click.pass_obj
def verify(
    terminal: Terminal,
    sources: tuple[str, ...],
    reference: str | None,
    options: dict[str, Any],
    images: tuple[Path, ...],
    sizes: tuple[Size, ...],
    min_psnr: float | None,
    html: Path | None,
) -> None:
    """Compare ONNX files with the models they came from, in dB, on real pictures.

    A file made from a preset knows its origin; one made from a checkpoint needs --reference FILE. A model instead of
    a file is exported to a temporary file first. Exits with 1 when a rung of the ladder is missed.
    """
    from .imaging import check_output
    from .parity.pairs import open_pair

    if html is not None:
        if len(sources) > 1:
            raise InputError("--html writes the page of one report.", fix="Verify one file at a time.")
        check_output(html, overwrite=True)
    reports = []
    for source in sources:
        terminal.note(f"Opening {source}")
        with open_pair(source, reference, options) as (model, artifact):
            reports.append(_verify(terminal, source, model, artifact, images, sizes, min_psnr, html))
    terminal.result({"passed": all(r.passed for r in reports), "reports": [r.to_json() for r in reports]})
    _exit_on_miss(reports)


def _verify(
    terminal: Terminal,
    subject: str,
    model: Restorer,
    artifact: OnnxArtifact,
    paths: tuple[Path, ...],
    sizes: tuple[Size, ...],
    min_psnr: float | None,
    html: Path | None,
) -> ParityReport:
    from .parity import verification_images, verify
    from .parity.tables import COLUMNS, report_rows

    images = verification_images(artifact, paths, sizes)
    with terminal.working(f"Verifying {subject}") as progress:
        report = verify(model, artifact, images, min_psnr=min_psnr, subject=subject, progress=progress)
    terminal.table(f"Parity of {subject}", COLUMNS, report_rows(report))
    if html is not None:
        from .parity.page import write_page

        write_page(report, model, artifact, images, html)
        terminal.note(f"Wrote {html}")
    return report


def _exit_on_miss(reports: list[ParityReport]) -> None:
    from .parity.tables import describe_miss

    for report in reports:
        for rung in report.rungs:
            if not rung.passed:
                raise ParityMissed(
                    f"{report.subject} misses the rung '{rung.name}': {describe_miss(rung)}.",
                    fix="Do not use the exported file without knowing why; --html FILE shows where it differs.",
                )


@main.command(short_help="Restore pictures.")
@click.argument("source", metavar="MODEL_OR_ONNX")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="File for one picture, folder for several."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@_model_options
@_common_options
@click.pass_obj
def restore(
    terminal: Terminal,
    source: str,
    images: tuple[Path, ...],
    output: Path,
    overwrite: bool,
    options: dict[str, Any],
) -> None:
    """Restore pictures, or all pictures of folders, with an exported file (fast) or a model (PyTorch).

    PNG and TIFF (8 and 16 bits), JPEG, WebP and BMP; grey, alpha, EXIF orientation and colour profile are kept. The
    suffix of a single output file chooses its format; in a folder, pictures keep name and format.
    """
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
@_common_options
@click.pass_obj
def models(terminal: Terminal) -> None:
    """List presets and packaged models."""
    from .models import list_models

    entries = list_models()
    columns = ("model", "family", "task", "scale", "channels", "weights")
    rows = [(e.name, e.family, e.task, f"x{e.scale}", e.channels, "packaged" if e.packaged else "-") for e in entries]
    terminal.table("Models", columns, rows)
    terminal.result([dataclasses.asdict(entry) for entry in entries])


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@_common_options
@click.pass_obj
def info(terminal: Terminal, file: Path) -> None:
    """Show what an exported ONNX file or a checkpoint is."""
    from .export.provenance import describe_file

    facts = describe_file(file)
    terminal.table(str(file), ("what", "value"), list(_flat(facts)))
    terminal.result(facts)


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Facts as lines of a table: those within a fact become ``fact.inner``, of lists only the length is told."""
    lines: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{prefix}{name}.") or [(prefix + name, "-")]
        elif value is not None:
            lines.append((prefix + name, len(value) if isinstance(value, list) else value))
    return lines


@main.command(short_help="Show what is installed and which targets work here.")
@_common_options
@click.pass_obj
def doctor(terminal: Terminal) -> None:
    """Show what is installed, which targets have all they need here, and what the others lack."""
    from .engines import diagnose

    diagnosis = diagnose().to_json()
    installed = [(name, c["version"] or "-", c["distribution"] or "-") for name, c in diagnosis["components"].items()]
    terminal.table("Installed", ("component", "version", "distribution"), installed)
    rows = [
        (t["name"], "works" if t["works"] else "no", t["why_not"] or "", t["fix"] or "") for t in diagnosis["targets"]
    ]
    terminal.table("Targets", ("target", "", "why not", "what to do"), rows)
    terminal.result(diagnosis)
