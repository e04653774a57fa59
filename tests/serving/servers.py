"""A real Triton server, started as a user starts it: by the verb ``serve``, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agileir_export.errors import AgileIRError
from agileir_export.serving.finding import Installation, find_server

START = "from agileir_export.cli import main; main(prog_name='agileir-export')"
READY_SECONDS = 90


def installation() -> Installation:
    """The server of this machine; without one, the test skips and says why."""
    pytest.importorskip("tritonclient.grpc", reason="Triton's client is not installed")
    try:
        return find_server()
    except AgileIRError as error:
        pytest.skip(f"no Triton server for this Python: {error.what}")


def free_ports(count: int = 3) -> list[int]:
    """Ports that nobody uses."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class ServeProcess:
    """The verb ``serve``, until `end`."""

    def __init__(self, *arguments: object) -> None:
        installation()
        self.grpc, self.http, self.metrics = free_ports()
        ports = ["--grpc-port", self.grpc, "--http-port", self.http, "--metrics-port", self.metrics]
        command = [sys.executable, "-c", START, "serve", *map(str, (*arguments, *ports)), "--json", "-v"]
        self.log = Path(os.environ["PYTEST_LOGS"], f"serve-{self.grpc}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "TMPDIR": os.environ["PYTEST_LOGS"]},  # what `kill` leaves lies there
                start_new_session=True,
            )
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                break
        assert text, self.log.read_text()[-3000:]
        self.facts: dict[str, Any] = json.loads(text)
        self.url: str = self.facts["server"]
        self.model = self.url.rsplit("/", 1)[1]
        self.address = f"127.0.0.1:{self.grpc}"

    def stubs(self) -> list[int]:
        """The processes of its models."""
        return [pid for pid in descendants(self.process.pid) if "triton_python_backend_stub" in command_line(pid)]

    def servers(self) -> list[int]:
        """The server's process, and those of its models."""
        named = ("bin/tritonserver", "triton_python_backend_stub")
        return [pid for pid in descendants(self.process.pid) if any(name in command_line(pid) for name in named)]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends it with a signal; its exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends all that is left."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Processes below one (Linux)."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(folder.name))
    found, left = [], [pid]
    while left:
        below = parents.get(left.pop(), [])
        found += below
        left += below
    return found


def resident(pids: list[int]) -> int:
    """Bytes that processes hold, the memory that they share counted for each of them."""
    found = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        found += int(dict(line.split(":", 1) for line in status.splitlines() if ":" in line)["VmRSS"].split()[0]) * 1024
    return found


def wait_for(condition: Any, seconds: float) -> float:
    """Seconds until something holds.

    Raises:
        AssertionError: It does not in time.
    """
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it did not happen in time"
        time.sleep(0.05)
    return time.monotonic() - start
