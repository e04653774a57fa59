"""The program `agileir-export`; also ``python -m agileir_export``, where its script is not on the path."""

from __future__ import annotations

import signal

__all__ = ["run"]


def run() -> None:
    """Runs the command line. Ctrl-C ends the process without a word until it is loaded: there is nothing to undo."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main

    signal.signal(signal.SIGINT, handler)
    main(prog_name="agileir-export")


if __name__ == "__main__":
    run()
