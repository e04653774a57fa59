"""Options that several verbs share."""

from __future__ import annotations

import functools
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.core import ParameterSource

from ..errors import OutputError
from ..files import check_separate
from ..models.options import ATTENTION_FORMS, LoadOptions
from .terminal import Terminal

__all__ = [
    "TYPED",
    "Command",
    "DecibelType",
    "OutputType",
    "Size",
    "SizeType",
    "TileType",
    "Verb",
    "VerificationOptions",
    "collected",
    "command_line",
    "common_options",
    "device_numbers",
    "given",
    "memory_size",
    "model_options",
    "output_option",
    "path_option",
    "runtime_option",
    "stacked",
    "verification_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])
Size = tuple[int, int]

TYPED = "agileir_export.typed"
"""Where the command line keeps its words, in the `meta` of click's context."""

UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class OutputType(click.Path):
    """A file that the verb writes.

    Args:
        suffixes: Those it may have, in lower case; empty for any.
        beside: Suffixes of further files that are written next to it, appended to its name.
    """

    def __init__(self, suffixes: tuple[str, ...] = (), beside: tuple[str, ...] = ()) -> None:
        super().__init__(path_type=Path)
        self.suffixes, self.beside = suffixes, beside

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path.

        Raises:
            OutputError: It names no file, or its suffix is that of another kind.
        """
        path = Path(str(super().convert(value, param, ctx)))
        if not path.name:
            raise OutputError(f"{str(value)!r} names no file.", fix="Give the name of the file to write.")
        if self.suffixes and path.suffix.lower() not in self.suffixes:
            raise OutputError(f"{path} does not end in {' or '.join(self.suffixes)}.", fix="Name a file that does.")
        return path


class Verb(click.Command):
    """A verb that writes no output over what it reads, nor over another output."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb.

        Raises:
            OutputError: An output is an input, or another output.
        """
        outputs: dict[str, Path] = {}
        inputs: list[Path] = []
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            if isinstance(parameter.type, OutputType):
                if value is not None:
                    outputs[parameter.opts[0]] = value
                    for suffix in parameter.type.beside:
                        outputs[f"{parameter.opts[0]} with {suffix}"] = value.with_name(value.name + suffix)
                continue
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, str | Path) and Path(each).is_file():
                    inputs.append(Path(each))
        check_separate(outputs, inputs)
        return super().invoke(ctx)


class SizeType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """``HxW`` in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Rows and columns.

        Raises:
            click.BadParameter: Not two numbers from 1 to 999999 joined by an x.
        """
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"0*([1-9][0-9]{0,5})x0*([1-9][0-9]{0,5})", value)
        if match is None:
            self.fail(f"{value!r} is not a size such as 128x96 (rows x columns).", param, ctx)
        return int(match[1]), int(match[2])


class DecibelType(click.types.FloatParamType):
    """A number of dB; not NaN, with which every comparison fails."""

    name = "DB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number.

        Raises:
            click.BadParameter: Not a number.
        """
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of dB.", param, ctx)
        return number


class TileType(SizeType):
    """``auto``, ``off``, a side, or ``HxW`` in pixels."""

    name = "tile"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word, or rows and columns.

        Raises:
            click.BadParameter: Something else.
        """
        if value in ("auto", "off"):
            return value
        if str(value).isdecimal() and int(value) == 0:
            self.fail(f"{value!r} is no side of a tile: give auto, off, or at least 1 pixel.", param, ctx)
        return super().convert(f"{value}x{value}" if str(value).isdecimal() else value, param, ctx)


def memory_size(ctx: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """A callback: ``4GiB`` in bytes, a number of bytes, kB, MB, GB, KiB, MiB or GiB.

    Raises:
        click.BadParameter: Something else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*([KMG]I?B)?B?", text.strip().upper())
    if match is None:
        raise click.BadParameter(f"{text!r} is not an amount of memory such as 4GiB or 512MB.", ctx, option)
    return int(float(match[1]) * UNITS[match[2] or ""])


def device_numbers(
    ctx: click.Context, option: click.Parameter, text: str | None
) -> tuple[int, ...] | Literal["all"] | None:
    """A callback: numbers of GPUs, joined by commas, or the word ``all``.

    Raises:
        click.BadParameter: Something else.
    """
    if text is None or text == "all":
        return text  # type: ignore[return-value]
    if re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", text) is None:
        raise click.BadParameter(f"{text!r} names no GPUs: give numbers such as 0,1 or all.", ctx, option)
    return tuple(map(int, text.split(",")))


def _sets(attribute: str, of: Callable[[Any], Any] = bool) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that sets an attribute of the terminal where the option was given."""

    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Terminal), attribute, of(value))

    return callback


def stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, listed in this order by ``--help``."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def command_line() -> str:
    """What the user typed, as a shell would take it again."""
    context = click.get_current_context().find_root()
    return shlex.join([context.info_name or "agileir-export", *context.meta.get(TYPED, ())])


def given(*names: str) -> list[str]:
    """Of some options of the running verb, those that the command line gave, as it spells them.

    A verb refuses an option that would have nothing to do; a value equal to the default is given, too.

    Args:
        names: Names of the verb's parameters.
    """
    context = click.get_current_context()
    spelt = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    return [spelt[name] for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]


def _common(name: str, *more: str, help: str, callback: Callable[..., None]) -> Callable[[Command], Command]:
    return click.option(name, *more, is_flag=True, expose_value=False, is_eager=True, help=help, callback=callback)


common_options = stacked(
    _common("--json", help="Print the result as one JSON document.", callback=_sets("as_json")),
    _common("-v", "--verbose", help="Show warnings of other libraries, too.", callback=_sets("verbosity", int)),
    _common("-q", "--quiet", help="Say nothing but results and errors.", callback=_sets("verbosity", lambda _: -1)),
    _common("--debug", help="Show the traceback of an error.", callback=_sets("debug")),
)
"""Understood before and after the verb."""


def output_option(
    *names: str, suffixes: tuple[str, ...] = (), beside: tuple[str, ...] = (), **settings: Any
) -> Callable[[Command], Command]:
    """An option for a file that is written, see `OutputType`: a `click.option` with the other settings."""
    return click.option(*names, type=OutputType(suffixes, beside), **settings)


def path_option(*names: str, **settings: Any) -> Callable[[Command], Command]:
    """An option for a path: a `click.option` with the other settings."""
    return click.option(*names, type=click.Path(path_type=Path), **settings)


def collected(command: Command, parameter: str, kind: type) -> Command:
    """The verb with the options that are the fields of a dataclass handed over as one object of it, `parameter`."""

    @functools.wraps(command)
    def run(*arguments: Any, **keywords: Any) -> Any:
        given = {field.name: keywords.pop(field.name) for field in fields(kind)}
        return command(*arguments, **{parameter: kind(**given)}, **keywords)

    return run  # type: ignore[return-value]


def model_options(command: Command, attention: str = "--attention") -> Command:
    """Adds the options of `load_model` and hands them over as one `LoadOptions`, ``options``.

    Args:
        command: The verb.
        attention: Name of the option for AgileIR's attention, for a verb that has another ``--attention``.
    """
    options = stacked(
        path_option("--weights", metavar="FILE", help="Checkpoint for a preset."),
        click.option("--random-weights", type=int, metavar="SEED", help="Random weights for a preset, for trials."),
        click.option("--top-k", type=int, metavar="K", help="Keys per query of a SemanIR model, instead of its own."),
        click.option(
            "--img-range",
            type=float,
            metavar="X",
            help="What the network's inputs are multiplied by, where the guess is wrong: 1 or 255.",
        ),
        click.option(
            attention,
            "attention",
            type=click.Choice(ATTENTION_FORMS),
            default=ATTENTION_FORMS[0],
            show_default=True,
            help="AgileIR only: as in the paper, or discarded as by the authors' released code.",
        ),
    )
    return options(collected(command, "options", LoadOptions))


RUNTIMES = ("auto", "onnxruntime", "openvino")
"""`engines.opening.RUNTIMES`, written out so that help loads nothing."""


def runtime_option(default: str, help: str) -> Callable[[Command], Command]:
    """``--runtime``: what runs an ONNX file."""
    return click.option("--runtime", type=click.Choice(RUNTIMES), default=default, show_default=True, help=help)


@dataclass(frozen=True)
class VerificationOptions:
    """What a verification looks at, and the page it writes.

    Attributes:
        images: Image files and folders; the packaged samples where empty.
        ground_truth: Image files and folders that show what is to be restored; the packaged samples where empty.
        sizes: (rows, columns) of the crops; where empty, whole pictures and sizes that suit the file.
        min_psnr: Floor of the ONNX rungs in dB; None for the ladder's own.
        html: The page; None for none.
    """

    images: tuple[Path, ...] = ()
    ground_truth: tuple[Path, ...] = ()
    sizes: tuple[Size, ...] = ()
    min_psnr: float | None = None
    html: Path | None = None


def verification_options(command: Command) -> Command:
    """Adds the options of a verification and hands them over as one `VerificationOptions`, ``verification``."""
    options = stacked(
        path_option(
            "--images",
            multiple=True,
            help="Picture or folder to verify on; may be repeated. Default: the packaged samples.",
        ),
        path_option(
            "--ground-truth",
            multiple=True,
            help="Picture or folder of what is to be restored: from the pictures of the same names in --images, or "
            "from what is made of it here; may be repeated. Default: the packaged samples.",
        ),
        click.option(
            "--size",
            "sizes",
            multiple=True,
            type=SizeType(),
            metavar="HxW",
            help="Crop to rows x columns; may be repeated.",
        ),
        click.option(
            "--min-psnr", type=DecibelType(), metavar="DB", help="Floor of the ONNX rungs instead of the ladder's own."
        ),
        output_option(
            "--html",
            metavar="FILE",
            suffixes=(".html", ".htm"),
            help="Write the report as a page with pictures, too.",
        ),
    )
    return options(collected(command, "verification", VerificationOptions))
