"""The verb ``serve``."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, ParityMissed
from ..files import appended
from .completion import complete_model
from .options import OutputType, TileType, Verb, common_options, memory_size, model_options, path_option
from .terminal import Terminal

if TYPE_CHECKING:
    from ..models import LoadOptions
    from ..restore.tiled_runner import Tile
    from ..serving.running import RunningServer
    from ..serving.workplace import ServedBundle

__all__ = ["serve"]

RUNTIMES = ("auto", "onnxruntime", "openvino", "plan", "tensors")
"""`bundle.picture_model.RUNTIMES`, written out so that help loads nothing."""

WORTH_TELLING = re.compile(r"E\d{4} |agileir-export: ")
"""Lines of the server's log that are shown in any case: errors, and what the model says."""

PORT = click.IntRange(1, 65535)


@click.command(cls=Verb, short_help="Serve a model by Triton Inference Server.")
@click.argument("source", metavar="BUNDLE_OR_MODEL", shell_complete=complete_model)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--grpc-port", type=PORT, default=8001, show_default=True, help="For gRPC.")
@click.option("--http-port", type=PORT, default=8000, show_default=True, help="For HTTP.")
@click.option("--metrics-port", type=PORT, default=8002, show_default=True, help="For the metrics.")
@click.option("--check", is_flag=True, help="Send one picture, compare with `restore` here, and end.")
@click.option("--tensor-models", is_flag=True, help="Serve the bundle's models for tensors, too.")
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="auto: on a GPU the plans' tensor model, else the ONNX file by the quicker runtime.",
)
@click.option(
    "--tile", type=TileType(), default="auto", show_default=True, metavar="auto|off|N|HxW", help="See restore."
)
@click.option("--overlap", type=click.IntRange(min=0), metavar="N", help="Pixels that tiles share. Default: measured.")
@click.option("--memory", callback=memory_size, metavar="BYTES", help="Most that the model's process may hold.")
@click.option(
    "--max-pixels", type=click.IntRange(min=1), metavar="N", help="Of a picture. Default: what fits the memory."
)
@click.option(
    "--max-bytes",
    callback=memory_size,
    default="256MiB",
    show_default=True,
    metavar="BYTES",
    help="Of a picture's file.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0.1),
    default=300.0,
    show_default=True,
    help="For a picture to wait, and again to be restored.",
)
@click.option("--at-once", type=click.IntRange(1, 256), default=8, show_default=True, help="Pictures in work at once.")
@click.option("--queue", type=click.IntRange(min=1), default=64, show_default=True, help="Pictures that may wait.")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=1),
    default=30.0,
    show_default=True,
    help="For pictures in work at the end.",
)
@click.option(
    "--start-seconds", type=click.FloatRange(min=1), default=300.0, show_default=True, help="Until it must be ready."
)
@click.option("--log", type=OutputType(), metavar="FILE", help="Append the log of the server.")
@path_option("--tritonserver", metavar="FILE", help="The server's program, where it is not found.")
@model_options
@common_options
@click.pass_obj
def serve(
    terminal: Terminal,
    source: str,
    host: str,
    grpc_port: int,
    http_port: int,
    metrics_port: int,
    check: bool,
    tensor_models: bool,
    runtime: str,
    tile: Tile,
    overlap: int | None,
    memory: int | None,
    max_pixels: int | None,
    max_bytes: int,
    max_seconds: float,
    at_once: int,
    queue: int,
    drain_seconds: float,
    start_seconds: float,
    log: Path | None,
    tritonserver: Path | None,
    options: LoadOptions,
) -> None:
    """Start Triton Inference Server with a model that takes pictures, on this machine only unless told otherwise.

    Pictures are restored as `restore` does it. `restore --server grpc://HOST:PORT/MODEL` is a client; docs/serving.md
    has ten lines of another.

    The server has no password and no encryption: see docs/serving.md for what to put before it.

    Ctrl-C and SIGTERM end it when what is in work is done; SIGHUP loads a bundle that was written again.
    """
    from ..serving.finding import find_server
    from ..serving.foreseen import check_backends, check_plans, check_ports, models_to_load
    from ..serving.running import Address, RunningServer
    from ..serving.workplace import Workplace

    address = Address(host, grpc_port, http_port, metrics_port)
    check_ports(host, {"gRPC": grpc_port, "HTTP": http_port, "metrics": metrics_port})
    server = find_server(tritonserver)
    with appended(log) as stream, _bundle(terminal, source, options) as bundle:
        served = models_to_load(bundle, runtime, tensor_models)
        check_backends(server, bundle, served)
        check_plans(server, bundle, served, runtime)
        settings = {
            "runtime": runtime,
            "tile": "x".join(map(str, tile)) if isinstance(tile, tuple) else str(tile),
            "overlap": overlap,
            "memory": memory,
            "pixels": max_pixels or 0,
            "bytes": max_bytes,
            "seconds": max_seconds,
        }
        place = Workplace(settings, at_once, queue, served)

        def tell(line: str) -> None:
            if stream is not None:
                print(line, file=stream, flush=True)
            if terminal.verbosity > 0 or WORTH_TELLING.match(line):
                terminal.note(line)

        running = RunningServer(server, bundle, place, address, drain_seconds, tell)
        try:
            with terminal.working("Starting") as progress:
                about = running.start(start_seconds, progress)
            where = f"{address.reached}:{grpc_port}"
            facts = {"server": f"grpc://{where}/{bundle.name}", **address.to_json(), "about": about}
            if check:
                _check(terminal, facts, bundle, runtime, tile, overlap)
                return
            _watch(terminal, running, facts, source, start_seconds)
        finally:
            with terminal.working("Ending: pictures in work are finished"):
                running.close()


@contextmanager
def _bundle(terminal: Terminal, source: str, options: LoadOptions) -> Iterator[ServedBundle]:
    """The bundle that is named, or one of the model that is, which goes when the block ends."""
    from ..bundle import write_bundle
    from ..conversion import convert
    from ..engines.artifact import is_engine
    from ..engines.opening import refuse_model_options
    from ..serving.workplace import read_bundle

    if Path(source).is_dir():
        refuse_model_options(source, options)
        yield read_bundle(Path(source))
        return
    if is_engine(source):
        raise InputError(
            f"{source} is an engine: a server wants it in a bundle.",
            fix="agileir-export bundle MODEL --engine PLAN -o FOLDER",
        )
    with TemporaryDirectory(prefix="agileir-bundle-") as folder:
        with terminal.working(f"Exporting {source}") as progress:
            artifact = convert(source, None, options, keep=True, progress=progress)
        yield read_bundle(write_bundle(Path(folder, "bundle"), artifact).folder)


def _check(
    terminal: Terminal, facts: dict[str, Any], bundle: ServedBundle, runtime: str, tile: Tile, overlap: int | None
) -> None:
    """Compares server and `restore`.

    Raises:
        ParityMissed: They differ.
    """
    from ..restore.server import ServerAddress
    from ..serving.trial import try_server

    local = runtime if runtime in ("onnxruntime", "openvino") else "auto"
    with terminal.working("Comparing with restore"):
        address = ServerAddress.parse(str(facts["server"]))
        trial = try_server(address, bundle.folder / "triton" / bundle.onnx, local, tile, overlap)
    terminal.result({**facts, "check": trial.to_json()})
    if not trial.equal:
        raise ParityMissed(
            f"{trial.picture} comes back from the server with other bytes than `restore` makes of it.",
            fix="Runtimes differ in the last bits: a plan on a GPU, and the ONNX file that is restored with here.",
        )
    terminal.note(
        f"{trial.picture}: the server's bytes are those of restore ({trial.seconds:.2f} s; restore "
        f"{trial.local_seconds:.2f} s)."
    )


def _watch(terminal: Terminal, running: RunningServer, facts: dict[str, Any], source: str, seconds: float) -> None:
    """Says where the server is, and looks after it until Ctrl-C or SIGTERM; SIGHUP loads the bundle again."""
    from ..errors import AgileIRError
    from ..serving.workplace import read_bundle

    again = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, lambda *_: again.set())
    at = running.address
    try:
        terminal.note(
            f"Ready: {facts['server']} (HTTP {at.reached}:{at.http}, metrics {at.reached}:{at.metrics}/metrics). "
            "Ctrl-C ends it."
        )
        terminal.result(facts)
        sys.stdout.flush()
        while True:
            running.watch()
            if again.is_set():
                again.clear()
                try:
                    running.reload(read_bundle(Path(source)) if Path(source).is_dir() else running.bundle, seconds)
                    terminal.note("Loaded again.")
                except AgileIRError as error:  # what is served stays
                    terminal.note(f"error: {error}")
    except KeyboardInterrupt:
        return
