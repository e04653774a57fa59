"""A Triton server that is started, watched, started again where it or the model's process died, and ended in peace."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import re
import secrets
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from .. import errors
from ..errors import AgileIRError, EnvironmentProblem, InputError, InternalError
from ..json_form import JsonForm
from ..progress import Progress, silent
from .alive import FOLDER, has_gone, told
from .finding import Installation
from .workplace import ServedBundle, Workplace

__all__ = ["Address", "RunningServer"]

LOG = logging.getLogger(__name__)

RESTRICTED = "shared-memory,model-repository,trace,logging"
"""What clients may not use: requests that name memory or files of this machine, or change what is served."""

HEADER = "agileir-admin"
POLL = 0.2
DEATHS, WITHIN = 5, 60.0
"""Deaths within so many seconds that end it all: it would die for ever."""

PATIENCE = 5.0
"""Seconds beyond those for draining after which a server is killed."""

KEPT = 400
"""Lines of the server's log that are kept for when it fails."""

HARMLESS = re.compile(r"NVML|DCGM|CudaDriverHelper|CUDA memory pool|pinned system memory|Collecting CPU metrics")
"""What the server says on a machine without a GPU."""


@dataclass(frozen=True)
class Address(JsonForm):
    """Where a server listens.

    Attributes:
        host: Address of this machine.
        grpc: Port for gRPC.
        http: Port for HTTP.
        metrics: Port for its metrics (HTTP).
    """

    host: str = "127.0.0.1"
    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002

    @property
    def reached(self) -> str:
        """The address by which this machine reaches it."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host


class RunningServer:
    """A server of one bundle.

    Args:
        installation: The program.
        bundle: What is served.
        workplace: Where it works from; written here, and removed by `close`.
        address: Where it listens.
        drain: Seconds that pictures in work have at the end.
        tell: Is given every line of the server's log.
    """

    def __init__(
        self,
        installation: Installation,
        bundle: ServedBundle,
        workplace: Workplace,
        address: Address,
        drain: float = 30.0,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.bundle, self.address, self._workplace, self._tell = bundle, address, workplace, tell
        self._installation, self._drain = installation, drain
        self._secret = secrets.token_hex(16)
        self._log: deque[str] = deque(maxlen=KEPT)
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._process: subprocess.Popen[str] | None = None
        workplace.write(bundle)
        backends, program = workplace.backends(installation), workplace.program(installation)
        restricted = f"{RESTRICTED}:{HEADER}={self._secret}"
        self._command = [
            str(program),
            f"--model-repository={workplace.repository}",
            f"--backend-directory={backends}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in (bundle.name, *workplace.served)),
            "--disable-auto-complete-config",  # it would start every model twice
            *(f"--{kind}-address={address.host}" for kind in ("grpc", "http", "metrics")),
            f"--grpc-port={address.grpc}",
            f"--http-port={address.http}",
            f"--metrics-port={address.metrics}",
            f"--grpc-restricted-protocol={restricted}",
            f"--http-restricted-api={restricted}",
            f"--exit-timeout-secs={max(round(drain), 1)}",
        ]

    def start(self, seconds: float, progress: Progress = silent) -> dict[str, Any]:
        """Starts it, and waits until it is ready.

        Args:
            seconds: To wait at most.
            progress: Told what it waits for.

        Returns:
            What the picture model says of itself (`PictureService.about`).

        Raises:
            EnvironmentProblem: It does not become ready.
            AgileIRError: What the picture model could not do, as it says itself.
        """
        self._launch()
        try:
            return self._wait_until_ready(time.monotonic() + seconds, seconds, progress)
        except BaseException:
            self._kill()
            raise

    def watch(self, seconds: float = POLL) -> None:
        """Looks after it once, and waits a moment: to be called again and again.

        A server that died, or whose picture model's process did, is started again.

        Args:
            seconds: To wait.

        Raises:
            EnvironmentProblem: It dies again and again.
        """
        assert self._process is not None
        died = self._process.poll() is not None
        if died or has_gone(self._workplace.sign):
            what = f"The server ended with status {self._process.returncode}" if died else "The model's process died"
            now = time.monotonic()
            if len(self._deaths) == DEATHS and now - self._deaths[0] < WITHIN:
                raise EnvironmentProblem(
                    f"{what}, for the {DEATHS + 1}th time within {WITHIN:g} seconds.",
                    why=self._last_words(),
                    fix="A status of -9 often means that the machine ran out of memory: give --memory or --max-pixels.",
                )
            self._deaths.append(now)
            LOG.warning("%s: it is started again", what)
            self._kill()
            self._workplace.write(self.bundle)  # with a new sign of life
            self._launch()
        time.sleep(seconds)

    def is_ready(self) -> bool:
        """Whether it answers requests for the picture model."""
        try:
            return self._ask("GET", f"/v2/models/{self.bundle.name}/ready") == 200
        except (OSError, http.client.HTTPException):
            return False

    def reload(self, bundle: ServedBundle, seconds: float) -> None:
        """Loads what the bundle is now; the old model answers until the new one does.

        Args:
            bundle: As read again.
            seconds: To wait at most.

        Raises:
            InputError: It is another model now, or lacks one that is served.
            EnvironmentProblem: The server refuses.
        """
        if bundle.name != self.bundle.name or not {*self._workplace.served} <= {*bundle.tensors}:
            raise InputError(
                f"{bundle.folder} has the model {bundle.name} now, and {self.bundle.name} is served.",
                fix="Start another server for it.",
            )
        self._workplace.write(bundle)
        self.bundle = bundle
        for name in (bundle.name, *self._workplace.served):
            try:
                status = self._ask("POST", f"/v2/repository/models/{name}/load", seconds)
            except (OSError, http.client.HTTPException) as error:
                raise EnvironmentProblem(f"{name} was not loaded again: {error}.") from error
            if status != 200:
                raise EnvironmentProblem(f"{name} was not loaded again (HTTP {status}).", why=self._last_words())

    def close(self) -> None:
        """Ends it: what is in work is done first, within the time to drain."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._drain + PATIENCE)
        self._kill()
        self._workplace.remove()

    def _launch(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**self._installation.environment(), FOLDER: str(self._workplace.folder)},
            cwd=self._workplace.folder,
            start_new_session=True,  # Ctrl-C reaches this process only, which then drains
        )
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            if HARMLESS.search(line):
                continue
            self._log.append(line.rstrip())
            self._tell(line.rstrip())

    def _kill(self) -> None:
        """Ends the server's processes at once, those of its models with it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _wait_until_ready(self, end: float, seconds: float, progress: Progress) -> dict[str, Any]:
        assert self._process is not None
        progress("waiting until the server is ready")
        while time.monotonic() < end:
            about = told(self._workplace.sign)
            if about is not None and "error" in about:
                raise _error(about["error"])
            if about is not None and self.is_ready():
                return about
            if self._process.poll() is not None or has_gone(self._workplace.sign):
                time.sleep(POLL)  # for its last lines
                raise EnvironmentProblem(
                    f"The server ended with status {self._process.poll()} before it was ready."
                    if self._process.poll() is not None
                    else "The picture model's process died before it was ready.",
                    why=self._last_words(),
                    fix="With --verbose the whole log of the server is shown.",
                )
            time.sleep(POLL)
        raise EnvironmentProblem(
            f"The server was not ready after {seconds:g} seconds.",
            why=self._last_words(),
            fix="Give it longer: --start-seconds N. The first start of a model measures its memory and its seams.",
        )

    def _last_words(self) -> str:
        """The last error of the log, else its last line."""
        lines = list(self._log)
        failed = [line for line in lines if re.match(r"E\d{4} |error:|.*(failed|Error)", line)]
        return (failed or lines or [""])[-1][:600]

    def _ask(self, method: str, path: str, seconds: float = 5.0) -> int:
        """The status of an answer over HTTP."""
        connection = http.client.HTTPConnection(self.address.reached, self.address.http, timeout=seconds)
        with contextlib.closing(connection):
            body = b"{}" if method == "POST" else None
            connection.request(method, path, body, {HEADER: self._secret})
            return connection.getresponse().status


def _error(told: dict[str, Any]) -> AgileIRError:
    """An error as its JSON object tells it, of the class that has its code."""
    kinds = (getattr(errors, name) for name in errors.__all__)
    classes = [kind for kind in kinds if isinstance(kind, type) and getattr(kind, "code", "") == told["code"]]
    kind: type[AgileIRError] = (classes or [InternalError])[0]
    return kind(told["what"], why=told["why"], fix=told["fix"])
