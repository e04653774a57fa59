"""Our client where things go wrong: at whose fault, after how many tries, in whose words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.errors import EnvironmentProblem, ImageError, InputError, InternalError, OutputError
from agileir_export.restore.server import ServerAddress, ServerClient, ServerOptions

from ..cli.command import run
from .pictures import good
from .servers import free_ports

grpc = pytest.importorskip("tritonclient.grpc")
ADDRESS = ServerAddress("127.0.0.1:1", "m")


def failure(message: str, kind: str) -> Exception:
    from tritonclient.utils import InferenceServerException

    error: Exception = InferenceServerException(message, f"StatusCode.{kind}")
    return error


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ServerClient, list[int]]]:
    """A client whose requests end as it is told, one after another; and the number of tries."""

    def made(*ends: Exception | None, live: bool = True, **options: Any) -> tuple[ServerClient, list[int]]:
        tries: list[int] = []

        class Answer:
            def as_numpy(self, name: str) -> Any:
                return np.frombuffer(b'{"lost": []}', np.uint8)

        def infer(*_: Any, **__: Any) -> Answer:
            tries.append(1)
            end = ends[min(len(tries), len(ends)) - 1]
            if end is not None:
                raise end
            return Answer()

        monkeypatch.setattr("agileir_export.restore.server.FIRST_WAIT", 0.01)
        made = ServerClient(ADDRESS, ServerOptions(**{"patience": 0.5, **options}))
        monkeypatch.setattr(made._client, "infer", infer)
        monkeypatch.setattr(made._client, "is_model_ready", lambda *_, **__: live)
        return made, tries

    return made


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("grpc://127.0.0.1:8001/m", ServerAddress("127.0.0.1:8001", "m")),
        ("grpcs://restore.example:443/a.b-c_2", ServerAddress("restore.example:443", "a.b-c_2", True)),
    ],
)
def test_addresses(text: str, address: ServerAddress) -> None:
    assert ServerAddress.parse(text) == address and str(address) == text


@pytest.mark.parametrize("text", ["127.0.0.1:8001/m", "http://h:1/m", "grpc://h/m", "grpc://h:1", "grpc://h:1/a/b", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InputError, match="is no server"):
        ServerAddress.parse(text)


def test_what_passes_is_tried_again(client: Callable[..., Any]) -> None:
    died = failure("Stub process 'x' is not healthy.", "INTERNAL")
    full = failure("Exceeds maximum queue size", "UNAVAILABLE")
    memory = failure("environment: There is no memory.", "UNAVAILABLE")
    asked, tries = client(died, full, memory, died, None)
    assert asked.restore(b"x", "png").about == {"lost": []}
    assert len(tries) == 5


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("input.image", ImageError),
        ("limit.pixels", ImageError),
        ("limit.bytes", InputError),
        ("input.parameter", InputError),
        ("input.output", OutputError),
        ("limit.time", EnvironmentProblem),
        ("internal", InternalError),
    ],
)
def test_what_the_model_says_is_not_asked_again(client: Callable[..., Any], code: str, kind: type) -> None:
    asked, tries = client(failure(f"{code}: so it is", "INTERNAL"))
    with pytest.raises(kind, match="so it is"):
        asked.restore(b"x", "png")
    assert len(tries) == 1


@pytest.mark.parametrize("kind", ["NOT_FOUND", "UNAUTHENTICATED", "INVALID_ARGUMENT"])
def test_what_comes_again_with_every_try_ends_the_run(client: Callable[..., Any], kind: str) -> None:
    asked, tries = client(failure("Request for unknown model", kind))
    with pytest.raises(EnvironmentProblem, match=r"grpc://127\.0\.0\.1:1/m does not answer: .*unknown model"):
        asked.restore(b"x", "png")
    assert len(tries) == 1


def test_a_picture_that_the_model_dies_of(client: Callable[..., Any]) -> None:
    asked, tries = client(failure("Stub process 'x' is not healthy.", "INTERNAL"), patience=20)
    with pytest.raises(EnvironmentProblem, match="failed 4 times on this picture"):
        asked.restore(b"x", "png")
    assert len(tries) == 4


def test_time_and_memory_are_the_picture_s(client: Callable[..., Any]) -> None:
    asked, tries = client(failure("Deadline Exceeded", "DEADLINE_EXCEEDED"), seconds=7)
    with pytest.raises(EnvironmentProblem, match="did not answer within 7 seconds"):
        asked.restore(b"x", "png")
    assert len(tries) == 1
    asked, tries = client(failure("environment: There is no memory.", "UNAVAILABLE"))
    with pytest.raises(EnvironmentProblem, match="no memory") as caught:
        asked.restore(b"x", "png")
    assert len(tries) > 3 and type(caught.value) is EnvironmentProblem


def test_a_model_that_is_not_ours(client: Callable[..., Any]) -> None:
    asked, _ = client(None)  # its JSON has no spec
    with pytest.raises(EnvironmentProblem, match="no picture model of agileir-export"):
        asked.about()


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agileir_export.restore.server.CONTACT", 0.5)
    (tmp_path / "in.png").write_bytes(good(1)["0.png"])
    url = f"grpc://127.0.0.1:{free_ports(1)[0]}/m"
    result = run("restore", "--server", url, tmp_path / "in.png", "-o", tmp_path / "out.png")
    assert result.exit_code == 4 and f"{url} does not answer" in result.stderr
    assert not (tmp_path / "out.png").exists()
