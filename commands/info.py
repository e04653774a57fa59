"""The verbs that only tell: ``models``, ``info`` and ``doctor``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ..errors import EnvironmentProblem, InputError
from .options import common_options
from .terminal import Terminal

__all__ = ["doctor", "info", "models"]

MOST_LINES = 20
"""Facts within a fact that are shown one by one."""

LONGEST = 60
"""Characters of a list that is shown as it is."""


@click.command()
@click.option("--spandrel", is_flag=True, help="List the networks whose checkpoints are loaded by spandrel instead.")
@common_options
@click.pass_obj
def models(terminal: Terminal, spandrel: bool) -> None:
    """List presets and packaged models."""
    from ..models import list_models

    if spandrel:
        from ..models.spandrel import architectures

        known = architectures()
        terminal.table("Networks of spandrel", ("network", "title"), [(each.name, each.title) for each in known])
        terminal.note(
            "Give a checkpoint of one of them as MODEL: onnx, trt, restore. docs/coverage.md says what works."
        )
        terminal.note("Their code has permissive licences; weights have terms of their own: see where you got them.")
        terminal.result([dataclasses.asdict(each) for each in known])
        return
    entries = list_models()
    columns = ("model", "family", "task", "scale", "channels", "weights")
    rows = [(e.name, e.family, e.task, f"x{e.scale}", e.channels, "packaged" if e.packaged else "-") for e in entries]
    terminal.table("Models", columns, rows)
    terminal.result([dataclasses.asdict(entry) for entry in entries])


@click.command(short_help="Show what a file or a model is.")
@click.argument("file", type=click.Path(path_type=Path))
@common_options
@click.pass_obj
def info(terminal: Terminal, file: Path) -> None:
    """Show what an exported ONNX file, an engine, a checkpoint or a model of `agileir-export models` is.

    Of a file that was restored with in tiles, also the quality at their seams, in dB, by their overlap in pixels.
    """
    from ..engines.artifact import is_engine, read_engine
    from ..export.artifact import read_artifact
    from ..export.provenance import describe_file

    facts = {"kind": "engine", **read_engine(file).to_json()} if is_engine(file) else describe_file(file)
    if facts["kind"] == "onnx":
        from ..calib.layers import multiplications

        facts["multiplications_per_pixel"] = multiplications(read_artifact(file))
    if "sha256" in facts:
        from ..restore.seams import known_seams

        seams = known_seams(facts["sha256"])
        facts |= {} if seams is None else {"seam_psnr": seams.to_json()}
    terminal.table(str(file), ("what", "value"), list(_flat(facts)))
    terminal.result(facts)


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Facts as lines of a table: those within a fact become ``fact.inner``; of what is long only the length."""
    lines: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if isinstance(value, dict) and len(value) <= MOST_LINES:
            lines += _flat(value, f"{prefix}{name}.") or [(prefix + name, "-")]
        elif isinstance(value, list) and value and all(isinstance(each, dict) and "shape" in each for each in value):
            lines += [(f"{prefix}{name}.{each['name']}", _tensor(each)) for each in value]
        elif isinstance(value, list) and len(told := ", ".join(map(str, value))) <= LONGEST:
            lines.append((prefix + name, told or "-"))
        elif value is not None:
            lines.append(
                (prefix + name, len(value) if isinstance(value, list | dict) else "-" if value == "" else value)
            )
    return lines


def _tensor(facts: dict[str, Any]) -> str:
    """An input or output: its type and sizes."""
    return f"{facts['type']} {' x '.join(map(str, facts['shape']))}"


@click.command(short_help="Show what is installed and which targets work here.")
@click.option(
    "--target", metavar="NAME", help="Exit with 4 unless this target, or all whose names begin so, work here."
)
@common_options
@click.pass_obj
def doctor(terminal: Terminal, target: str | None) -> None:
    """Show what is installed, which targets have all they need here, and what the others lack."""
    from ..engines import diagnose

    diagnosis = diagnose().to_json()
    asked = [each for each in diagnosis["targets"] if target is not None and each["name"].startswith(target)]
    if target is not None and not asked:
        known = ", ".join(each["name"] for each in diagnosis["targets"])
        raise InputError(f"There is no target {target!r}.", fix=f"Choose one of {known}.")
    installed = [(name, c["version"] or "-", c["distribution"] or "-") for name, c in diagnosis["components"].items()]
    terminal.table("Installed", ("component", "version", "distribution"), installed)
    if diagnosis["openvino_devices"]:
        terminal.table("Devices that OpenVINO sees", ("device",), [(name,) for name in diagnosis["openvino_devices"]])
    rows = [(t["name"], "works" if t["works"] else "no", t["why_not"], t["fix"]) for t in diagnosis["targets"]]
    terminal.table("Targets", ("target", "", "why not", "what to do"), rows)
    terminal.result(diagnosis)
    for each in asked:
        if not each["works"]:
            raise EnvironmentProblem(f"{each['name']} does not work here: {each['why_not']}.", fix=each["fix"])
