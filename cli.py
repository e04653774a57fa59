"""The command line: errors become messages and exit codes; the verbs are in `commands`."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import click

from .commands.bundle import bundle
from .commands.cache import cache
from .commands.calibrate import calibrate
from .commands.info import doctor, info, models
from .commands.onnx import onnx
from .commands.options import TYPED, common_options
from .commands.polygraphy import polygraphy
from .commands.restore import restore
from .commands.serve import serve
from .commands.terminal import Terminal
from .commands.trt import trt
from .commands.verify import verify
from .errors import AgileIRError, InternalError, system_error
from .version import __version__

__all__ = ["main"]

INTERRUPTED = 130
"""Exit code of a process that Ctrl-C or SIGTERM ended, as shells number the former: 128 + SIGINT."""


class _Group(click.Group):
    """Turns typed errors into messages and exit codes; without --debug, nobody sees a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        del ctx
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = list(args)
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Ends as it should where standard output takes nothing, too: of an error, or of --help; or is closed."""
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # as long as the process lives
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            problem = system_error(error)
            Terminal().error(problem)
            sys.exit(problem.exit_code)
        finally:
            try:
                sys.stdout.flush()
            except OSError:
                _drop_output()

    def invoke(self, ctx: click.Context) -> Any:
        terminal = ctx.ensure_object(Terminal)
        terminal.as_json |= "--json" in ctx.args  # usage errors come before options are read
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a full disk says so here
            return result
        except AgileIRError as error:
            terminal.error(error)
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            terminal.refused(error.format_message())
            raise
        except (KeyboardInterrupt, click.Abort):
            terminal.note("Interrupted; no file was left half-written.")
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except OSError as error:  # of the system, about a file or stream; what the package foresees is typed already
            problem = system_error(error)
            if error.filename is None:  # that of stdout
                _drop_output()
            terminal.error(problem)
            ctx.exit(problem.exit_code)
        except Exception as error:
            unexpected = InternalError(
                f"{type(error).__name__}: {error}",
                fix="This is a defect of agileir-export. Please report it with the traceback that --debug shows.",
            )
            terminal.error(unexpected)
            ctx.exit(unexpected.exit_code)


def _drop_output() -> None:
    """What standard output still holds goes nowhere: Python would try again, and end with a code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group("agileir-export", cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agileir-export")
@common_options
@click.pass_context
def main(ctx: click.Context) -> None:
    """Image restoration transformers (AgileIR, SemanIR, SwinIR) from a checkpoint to verified ONNX files and engines.

    \b
    agileir-export onnx swinir_x4.pth -o swinir_x4.onnx
    agileir-export trt swinir_x4.pth --fp16 -o swinir_x4.plan
    agileir-export restore swinir_x4.onnx photo.jpg -o big.png

    \b
    Exit codes: 0 success, 1 parity, budget or audit missed or pictures failed, 2 bad input, 3 not supported here,
    4 environment, 5 defect of this program, 130 interrupted.
    """  # noqa: D301
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal does not know is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    ctx.with_resource(warnings.catch_warnings())
    if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
        former = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, and leaves as little
        ctx.call_on_close(lambda: signal.signal(signal.SIGTERM, former))
    terminal = ctx.ensure_object(Terminal)
    warnings.showwarning = terminal.warning
    ctx.with_resource(terminal.listening())


for command in (onnx, verify, restore, calibrate, trt, cache, bundle, serve, polygraphy, models, info, doctor):
    main.add_command(command)

if __name__ == "__main__":
    main()
