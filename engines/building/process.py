"""Building in a process of its own: started, watched, and never left behind."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import errors
from ...errors import InternalError
from ...progress import Progress, silent
from ..failures import Failure, explain_build, explain_crash
from .child import MODEL
from .parser_library import parser_environment
from .request import BuildRequest

__all__ = ["BuildResult", "build_in_process"]

LAST_LINES = 5
"""Log lines of a crashed build that are shown."""


@dataclass(frozen=True)
class BuildResult:
    """What a building process left.

    Attributes:
        plan: The engine.
        layers: Layers of the parsed network.
        messages: All messages of the builder, as (severity, text).
        inspection: The engine inspector's JSON; None where the target has none.
        timing_cache: The timing cache after the build; None where none was asked for.
        seconds: Wall time of the building process.
        peak_memory_bytes: Most memory it held; None where the system does not tell.
        plugins: By the name of every plugin's node in the parsed network those of the file's nodes that it stands for,
            beside an operator's own; the latter are those of half blocks.
    """

    plan: bytes
    layers: int
    messages: tuple[tuple[str, str], ...]
    inspection: str | None
    timing_cache: bytes | None
    seconds: float
    peak_memory_bytes: int | None
    plugins: Mapping[str, Sequence[str]] = field(default_factory=dict)


def build_in_process(request: BuildRequest, model: bytes | None = None, progress: Progress = silent) -> BuildResult:
    """Builds an engine in a child process and waits for it. Whatever happens, Ctrl-C included, the child ends with it.

    Args:
        request: What to build.
        model: The ONNX model; None where it lies in the file that the request names.
        progress: Told every phase as it begins.

    Raises:
        AgileIRError: What the builder refused, translated; InternalError where its process crashed.
    """
    with tempfile.TemporaryDirectory(prefix="agileir-build-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        phase, outcome = "", None
        if request.onnx is None and model is not None:
            (folder / MODEL).write_bytes(model)
        with _child(request, folder) as child:
            assert child.stdout is not None
            for line in child.stdout:
                answer = json.loads(line)
                if isinstance(answer, str):
                    phase = answer
                    progress(phase)
                else:
                    outcome = answer
            status = child.wait()
        return _collect(request, folder, status, phase, outcome)


@contextlib.contextmanager
def _child(request: BuildRequest, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, in a session of its own, so that Ctrl-C reaches the parent only, which then ends it."""
    # The same search path as here, as multiprocessing gives its children.
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__package__}.child import main; main()"
    with (folder / "stderr").open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=parser_environment(request.target_entry, folder),
            text=True,
            start_new_session=True,
        )
    try:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit status tells
            child.stdin.write(json.dumps({"folder": str(folder), "request": request.to_json()}) + "\n")
            child.stdin.flush()
        yield child
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _collect(
    request: BuildRequest, folder: Path, status: int, phase: str, outcome: dict[str, Any] | None
) -> BuildResult:
    title = request.target_entry.title
    if outcome is None:
        last = deque((text for _, text in _messages(folder / "log.jsonl")), LAST_LINES)
        spoken = (folder / "stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise explain_crash(status, request.subject, title, phase, [*last, *spoken[-LAST_LINES:]])
    if "failure" in outcome:
        failure = outcome["failure"]
        raise explain_build(Failure(**{**failure, "messages": tuple(failure["messages"])}), title)
    if "error" in outcome:
        told = outcome["error"]
        raise getattr(errors, told["type"], InternalError)(told["what"], why=told["why"], fix=told["fix"])
    timing_cache = folder / "timing_cache"
    return BuildResult(
        plan=(folder / "plan").read_bytes(),
        messages=tuple(_messages(folder / "log.jsonl")),
        timing_cache=timing_cache.read_bytes() if timing_cache.exists() else None,
        **outcome["result"],
    )


def _messages(log: Path) -> Iterator[tuple[str, str]]:
    """Messages of a log, as far as it goes."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):  # the last line of a crash
            severity, message = json.loads(line)
            yield severity, message
