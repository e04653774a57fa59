"""Pictures through a Triton server's picture model: this process reads, sends, writes, and keeps the journal."""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import AgileIRError, EnvironmentProblem, ImageError, ImageTooLarge, InputError, InternalError, OutputError
from ..files import write_atomic
from ..images.files import file_bytes
from ..json_form import parse_json
from ..models.spec import ModelSpec
from ..progress import Progress, silent
from .files import Plan
from .folder import Restoration, restore_with
from .one_picture import Restored
from .pipeline import Desk, Failed, Work, as_typed, of_the_place
from .wire import ABOUT, FORMAT, PICTURE, RESTORED, CodedError, coded

__all__ = ["ServedPicture", "ServerAddress", "ServerClient", "ServerOptions", "restore_on_server"]

LOG = logging.getLogger(__name__)

TOKEN = "AGILEIR_EXPORT_TOKEN"
"""The variable of a token that is sent along (``authorization: Bearer``), for what stands before a server."""

FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0
"""Seconds before the second try, doubled every time up to the longest; a random half to all of that is waited."""

CONTACT = 10.0
"""Seconds in which a server must answer the first time: a wrong address is no server that is being started again."""

DIED_OF_IT = 4
"""Tries that fail inside a server that goes on answering, after which the picture is to blame."""

HOPELESS = ("INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")
"""Kinds of errors, of the server itself or of what stands before it, that come again with every try."""

OF_THE_PICTURE = {"input.image": ImageError, "limit.pixels": ImageTooLarge, "input.output": OutputError}
"""What an error of the server is here, by its code word."""


@dataclass(frozen=True)
class ServerAddress:
    """A picture model on a server.

    Attributes:
        host: Name or address, and port: ``127.0.0.1:8001``.
        model: Name of the model.
        secure: Whether TLS is spoken.
    """

    host: str
    model: str
    secure: bool = False

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """The address in ``grpc://host:port/model``, or ``grpcs://`` for TLS.

        Raises:
            InputError: It is none.
        """
        found = re.fullmatch(r"(grpcs?)://([^/\s]+:\d{1,5})/([A-Za-z0-9][A-Za-z0-9_.-]*)", text)
        if found is None:
            raise InputError(
                f"{text!r} is no server.", fix="Give grpc://host:port/model, as `agileir-export serve` prints it."
            )
        return cls(found[2], found[3], found[1] == "grpcs")

    def __str__(self) -> str:
        return f"{'grpcs' if self.secure else 'grpc'}://{self.host}/{self.model}"


@dataclass(frozen=True)
class ServerOptions:
    """How a server is asked.

    Attributes:
        at_once: Pictures that are under way.
        seconds: That an answer may take.
        patience: Seconds in which a server that does not answer, or sends pictures back, is tried again.
    """

    at_once: int = 8
    seconds: float = 300.0
    patience: float = 60.0


@dataclass(frozen=True)
class ServedPicture:
    """A restored picture.

    Attributes:
        data: Its file.
        about: What the server tells of it: ``format``, ``size_in``, ``size_out``, ``seconds``, ``lost``.
    """

    data: bytes
    about: dict[str, Any]


class ServerClient:
    """Asks a picture model; from any thread.

    Args:
        address: The model.
        options: How.

    Raises:
        EnvironmentProblem: tritonclient is not installed.
    """

    def __init__(self, address: ServerAddress, options: ServerOptions | None = None) -> None:
        try:
            import tritonclient.grpc as grpc
            from tritonclient.utils import InferenceServerException
        except ImportError as error:
            raise EnvironmentProblem(
                f"Triton's client is not installed here: {error}.", fix="pip install 'agileir-export[client]'"
            ) from error
        self.address, self.options = address, options or ServerOptions()
        self._grpc, self._failure = grpc, InferenceServerException
        self._client = grpc.InferenceServerClient(address.host, ssl=address.secure)
        token = os.environ.get(TOKEN)
        self._headers = {"authorization": f"Bearer {token}"} if token else None
        self._closed = threading.Event()

    def __enter__(self) -> ServerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what waits, and the connection."""
        self._closed.set()
        self._client.close()

    def about(self) -> dict[str, Any]:
        """The model: ``key``, ``spec``, ``runner``, ``limits``, ``formats``.

        Raises:
            EnvironmentProblem: The server does not answer, or has no such model.
        """
        answer = self._asked(b"\0", (ABOUT,), {}, min(CONTACT, self.options.patience))[ABOUT]
        try:
            told: dict[str, Any] = parse_json(answer)
            ModelSpec.from_json(told["spec"])
            _ = told["key"], told["runner"]
        except (ValueError, KeyError, TypeError) as error:
            raise EnvironmentProblem(
                f"{self.address} is no picture model of agileir-export.", fix="Name the model of a bundle: see serve."
            ) from error
        return told

    def restore(self, data: bytes, suffix: str) -> ServedPicture:
        """Sends a picture's file, and gets the restored one.

        A server that is not there, that is full, or whose process dies is asked again.

        Args:
            data: The file.
            suffix: Format of the restored file, without a dot.

        Raises:
            InputError: The server refuses the picture; `ImageError` where it cannot be read.
            EnvironmentProblem: The server does not answer, or not in time.
        """
        answer = self._asked(data, (RESTORED, ABOUT), {FORMAT: suffix}, self.options.patience)
        return ServedPicture(answer[RESTORED], parse_json(answer[ABOUT]))

    def _asked(
        self, data: bytes, wanted: tuple[str, ...], parameters: dict[str, str], patience: float
    ) -> dict[str, bytes]:
        """The tensors that are wanted, tried again as long as that makes sense."""
        picture = self._grpc.InferInput(PICTURE, [1, len(data)], "UINT8")
        picture.set_data_from_numpy(np.frombuffer(data, np.uint8)[None])
        outputs = [self._grpc.InferRequestedOutput(name) for name in wanted]
        end, pause, died = time.monotonic() + patience, FIRST_WAIT, 0
        while True:
            try:
                found = self._client.infer(
                    self.address.model,
                    [picture],
                    outputs=outputs,
                    headers=self._headers,
                    client_timeout=self.options.seconds,
                    parameters=parameters or None,
                )
                return {name: found.as_numpy(name).tobytes() for name in wanted}
            except self._failure as error:
                told = coded(str(error.message() or ""))
                if told is not None and told.code != "environment":
                    raise _typed(told) from None
                status = str(error.status() or "")
                died += "INTERNAL" in status
                if "DEADLINE_EXCEEDED" in status and self._is_live():
                    raise EnvironmentProblem(
                        f"The server did not answer within {self.options.seconds:g} seconds.",
                        fix="Give it longer (--server-seconds), or send fewer pictures at once.",
                    ) from error
                if self._closed.is_set() or any(word in status for word in HOPELESS):
                    raise self._refused(error) from error
                if died >= DIED_OF_IT and self._is_live():
                    raise EnvironmentProblem(
                        f"The server failed {died} times on this picture.",
                        why=f"It says: {error.message()}",
                        fix="Look into its log, or restore the picture here.",
                    ) from error
                if time.monotonic() + pause > end:
                    raise (self._refused(error) if told is None else _typed(told)) from error
                LOG.info("%s: asked again in %.1f s", _short(error), pause)
            self._closed.wait(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_WAIT)

    def _is_live(self) -> bool:
        try:
            return bool(self._client.is_model_ready(self.address.model, headers=self._headers, client_timeout=5))
        except self._failure:
            return False

    def _refused(self, error: Exception) -> EnvironmentProblem:
        return _NoAnswer(
            f"{self.address} does not answer: {_short(error)}",
            fix="Start it (`agileir-export serve`), and check host, port and the name of the model.",
        )


class _NoAnswer(EnvironmentProblem):
    """The server, not the picture, is to blame."""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _typed(told: CodedError) -> AgileIRError:
    """An error of the server as one of ours."""
    if told.code in OF_THE_PICTURE:
        return OF_THE_PICTURE[told.code](told.text)
    if told.code.startswith("input") or told.code == "limit.bytes":
        return InputError(told.text)
    if told.code == "internal":
        return InternalError(told.text)
    return EnvironmentProblem(told.text)


def restore_on_server(
    address: ServerAddress, plan: Plan, progress: Progress = silent, options: ServerOptions | None = None
) -> tuple[Restoration, dict[str, Any]]:
    """Has a plan carried out by a server; what it makes is, bit for bit, what its runner makes here.

    Args:
        address: The server and its picture model.
        plan: What to restore.
        progress: Told each picture.
        options: How the server is asked.

    Returns:
        What became of the pictures, and how the server describes its runner.

    Raises:
        EnvironmentProblem: The server does not answer.
        AgileIRError: See `restore_pictures`.
    """
    with ServerClient(address, options) as client:
        about = client.about()

        def work(desk: Desk) -> None:
            _send_all(client, desk)

        described = {**about["runner"], "server": str(address)}
        return restore_with(work, about["key"], ModelSpec.from_json(about["spec"]), plan, progress), described


def _send_all(client: ServerClient, desk: Desk) -> None:
    """Sends all that a desk gives, several at a time.

    Raises:
        AgileIRError: What ends the run.
    """
    ended = threading.Event()
    with ThreadPoolExecutor(client.options.at_once, "send") as pool:
        senders = [pool.submit(_send, client, desk, ended) for _ in range(client.options.at_once)]
        try:
            wait(senders, return_when=FIRST_EXCEPTION)
        except BaseException:  # interrupted: what is under way is given up
            client.close()
            raise
        finally:
            ended.set()
    for sender in senders:
        sender.result()


def _send(client: ServerClient, desk: Desk, ended: threading.Event) -> None:
    """Sends picture after picture."""
    while not ended.is_set() and (work := desk.take(wait=True)) is not None:
        try:
            desk.finished(_restored(client, desk, work))
        except BaseException:
            ended.set()
            raise


def _restored(client: ServerClient, desk: Desk, work: Work) -> Restored | Failed:
    """What became of a picture; what is not its fault is raised."""
    try:
        data = file_bytes(work.source)
        desk.started(work)
        start = time.perf_counter()
        answer = client.restore(data, work.output.suffix[1:].lower())
        seconds = time.perf_counter() - start
        write_atomic(work.output, answer.data, work.replace)
    except _NoAnswer:
        raise
    except Exception as error:
        if of_the_place(error, work.output):
            raise
        return Failed(work.source, work.output, _about(as_typed(error), work.source))
    if answer.about["lost"]:
        LOG.info(f"{work.output} is written without {'; '.join(answer.about['lost'])}: the format does not hold it.")
    before, after = answer.about["size_in"], answer.about["size_out"]
    return Restored(work.source, work.output, (before[0], before[1]), (after[0], after[1]), seconds)


def _about(error: AgileIRError, source: Path) -> AgileIRError:
    """An error that names its picture."""
    if str(source) in error.what:
        return error
    return type(error)(f"{source}: {error.what}", why=error.why, fix=error.fix)
