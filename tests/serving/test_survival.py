"""A real server under load, with bad pictures, killed processes, a new bundle and its own end."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agileir_export.bundle import write_bundle
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.engines.opening import open_runner
from agileir_export.errors import AgileIRError
from agileir_export.images import sample_images
from agileir_export.restore import restore_pictures
from agileir_export.restore.server import ServerAddress, ServerClient, ServerOptions

from ..cli.command import document, run
from ..export import networks
from .conftest import MOST_BYTES, MOST_PIXELS
from .pictures import bad, good
from .servers import ServeProcess, free_ports, installation, resident, wait_for

pytestmark = pytest.mark.slow

LIMITS = ("--max-pixels", MOST_PIXELS, "--max-bytes", MOST_BYTES, "--runtime", "onnxruntime")
CLIENTS, PICTURES = 32, 500
ROOT = Path(__file__).parents[2]


@pytest.fixture
def serve() -> Iterator[Callable[..., ServeProcess]]:
    """Starts servers, and leaves none."""
    installation()
    started: list[ServeProcess] = []

    def start(*arguments: object) -> ServeProcess:
        started.append(ServeProcess(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def restored_here(bundle: Path, files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """What `restore` makes of pictures."""
    (folder / "in").mkdir()
    for name, data in files.items():
        (folder / "in" / name).write_bytes(data)
    restore_pictures(OnnxRuntimeRunner(bundle / "triton/small_onnx/1/model.onnx"), folder / "in", folder / "here")
    return {name: (folder / "here" / name).read_bytes() for name in files}


def test_the_page_from_its_first_command(
    serve: Callable[..., ServeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packaged model, bundled, served as it comes, asked by both clients."""
    monkeypatch.chdir(tmp_path)
    assert run("bundle", "agileir_tiny_x2", "-o", "b", "--no-verify").exit_code == 0
    shutil.copyfile(sample_images()[0][1], "photo.png")
    server = serve("b", "--max-pixels", 2**18)
    assert run("restore", "--server", server.url, "photo.png", "-o", "ours.png").exit_code == 0
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "tritonclient" in block)
    exec(program.replace("127.0.0.1:8001", server.address), {})
    runtime = server.facts["about"]["runner"]["target"]  # the quicker one; a test itself makes no choice
    restore_pictures(open_runner("b/onnx/agileir_tiny_x2.onnx", runtime=runtime), "photo.png", "here.png")
    assert len({Path(name).read_bytes() for name in ("ours.png", "restored.png", "here.png")}) == 1


def test_32_clients_500_pictures_a_tenth_of_them_bad(
    serve: Callable[..., ServeProcess], bundle: Path, tmp_path: Path
) -> None:
    files, spoilt = good(32), bad(MOST_PIXELS, MOST_BYTES)
    expected = restored_here(bundle, files, tmp_path)
    server = serve(bundle, *LIMITS)
    (stub,) = server.stubs()
    assert len(server.servers()) == 2
    choose = random.Random(0)
    kinds = [choose.choice([*spoilt]) if number % 10 == 9 else "" for number in range(PICTURES)]
    wrong: list[str] = []
    seen: Counter[str] = Counter()
    memory: list[int] = []
    local = threading.local()

    def send(number: int) -> None:
        if not hasattr(local, "client"):
            local.client = ServerClient(ServerAddress.parse(server.url))
        kind, name = kinds[number], f"{number % 32}{Path([*files][number % 32]).suffix}"
        try:
            data = spoilt[kind][0] if kind else files[name]
            answer = local.client.restore(data, Path(name).suffix[1:])
            if kind or answer.data != expected[name]:
                wrong.append(f"{number} {kind}: other bytes")
        except AgileIRError as error:
            if not kind or error.exit_code != 2:
                wrong.append(f"{number} {kind}: {error}")
            seen[f"{kind}: {error.what}"] += 1

    with ThreadPoolExecutor(CLIENTS) as clients:
        for start in range(0, PICTURES, 50):
            list(clients.map(send, range(start, start + 50)))
            memory.append(resident(server.servers()))
    assert not wrong, wrong
    assert sum(seen.values()) == PICTURES // 10
    assert {text.split(":")[0] for text in seen} == {*kinds} - {""}
    assert server.stubs() == [stub], "nothing died"
    assert memory[-1] < 1.1 * memory[0], [f"{each / 2**20:.1f} MiB" for each in memory]


@pytest.mark.parametrize("victim", ["model", "server"])
def test_killed_in_the_middle(serve: Callable[..., ServeProcess], bundle: Path, tmp_path: Path, victim: str) -> None:
    files = good(200)
    expected = restored_here(bundle, files, tmp_path)
    server = serve(bundle, *LIMITS)
    (stub,) = server.stubs()
    results: list[Any] = []
    command = ("restore", "--server", server.url, tmp_path / "in", "-o", tmp_path / "out", "--at-once", 8, "--json")
    client = threading.Thread(target=lambda: results.append(run(*command)))
    client.start()
    wait_for(lambda: len([*(tmp_path / "out").glob("[0-9]*")]) > 20 if (tmp_path / "out").is_dir() else False, 60)
    assert len([*(tmp_path / "out").glob("[0-9]*")]) < 150, "it was to be killed in the middle"
    os.kill(stub if victim == "model" else (set(server.servers()) - {stub}).pop(), signal.SIGKILL)
    killed = time.monotonic()
    with ServerClient(ServerAddress.parse(server.url), ServerOptions(patience=30)) as another:
        answer = another.restore(files["0.png"], "png")
    whole_again = time.monotonic() - killed
    client.join()
    assert answer.data == expected["0.png"]
    assert whole_again < 10, f"{whole_again:.1f} s"
    assert results[0].exit_code == 0, results[0].stderr
    assert document(results[0])["failed"] == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("[0-9]*")} == expected
    assert server.stubs() != [stub]
    assert server.end() == 0


def test_sigterm_finishes_what_is_in_work(serve: Callable[..., ServeProcess], bundle: Path, tmp_path: Path) -> None:
    files = good(64, side=90)
    expected = restored_here(bundle, files, tmp_path)
    server = serve(bundle, *LIMITS, "--at-once", 64)
    address = ServerAddress.parse(server.url)
    before, after = [], []

    def send(name: str) -> None:
        with ServerClient(address, ServerOptions(patience=0)) as client:
            before.append(name)
            after.append((name, client.restore(files[name], Path(name).suffix[1:]).data))

    with ThreadPoolExecutor(len(files)) as clients:
        sent = [clients.submit(send, name) for name in files]
        wait_for(lambda: len(before) == len(files) and after, 60)
        assert len(after) < len(files) // 2, "they were to be in work"
        assert server.end(signal.SIGTERM) == 0
        errors = list(filter(None, (each.exception() for each in sent)))
    # a busy machine may send one only when the server has stopped to take any, which is not in its work
    assert all("stopped accepting new inference requests" in str(error) for error in errors), errors
    assert len(after) + len(errors) == len(files) and len(errors) < len(files) // 4
    assert dict(after) == {name: expected[name] for name, _ in after}
    assert not server.stubs()


def test_ctrl_c_ends_it_and_leaves_nothing(serve: Callable[..., ServeProcess], bundle: Path, tmp_path: Path) -> None:
    server = serve(bundle, *LIMITS, "--log", tmp_path / "server.log")
    place = Path(f"/proc/{server.stubs()[0]}/cwd").resolve()
    assert place.name.startswith("agileir-serve-")
    assert server.end(signal.SIGINT) == 0
    assert not place.exists()
    log = (tmp_path / "server.log").read_text()
    assert "successfully loaded 'small'" in log and "successfully unloaded 'small'" in log


def test_a_bundle_that_is_written_again_is_loaded(
    serve: Callable[..., ServeProcess], bundle: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    server = serve(tmp_path / "bundle", *LIMITS)
    address = ServerAddress.parse(server.url)
    wrong: list[BaseException] = []
    stop = threading.Event()

    def ask() -> None:
        with ServerClient(address, ServerOptions(patience=0)) as client:
            while not stop.is_set():
                try:
                    client.restore(good(1)["0.png"], "png")
                except AgileIRError as error:
                    wrong.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    with ServerClient(address) as client:
        old = client.about()
        write_bundle(tmp_path / "bundle", networks.exported(folder, "agileir"), name="small", overwrite=True)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: client.about()["key"] != old["key"], 30)
        assert client.about()["spec"]["family"] == "agileir"
    write_bundle(tmp_path / "bundle", networks.exported(folder, "agileir"), name="other", overwrite=True)
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "has the model other now" in server.log.read_text(), 30)
    stop.set()
    asking.join()
    assert not wrong, "the old model answers until the new one does"


def test_what_the_model_cannot_do_is_said_in_its_own_words(bundle: Path) -> None:
    installation()
    grpc, http, metrics = free_ports()
    ports = ("--grpc-port", grpc, "--http-port", http, "--metrics-port", metrics)
    result = run("serve", bundle, "--tile", 16, "--overlap", 64, *LIMITS, *ports)
    assert result.exit_code == 2 and "cannot overlap by 64" in result.stderr
    assert "Traceback" not in result.output


def test_check_compares_with_restore(bundle: Path) -> None:
    installation()
    grpc, http, metrics = free_ports()
    ports = ("--grpc-port", grpc, "--http-port", http, "--metrics-port", metrics)
    result = run("serve", bundle, "--check", "--runtime", "onnxruntime", *ports, "--json")
    assert result.exit_code == 0, result.stderr
    assert document(result)["check"]["equal"] is True
    rows = (ROOT / "docs" / "json.md").read_text().splitlines()
    (row,) = [line for line in rows if line.startswith("| `serve --check` ")]
    assert set(re.findall(r"`(\w+)`", row.split(" | ", 1)[1])) == set(document(result))
