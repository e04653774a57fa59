"""Pictures through a real Triton server: by our client and by a plain one; what is refused; what it must not do."""

from __future__ import annotations

import json
import re
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pillow

from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.errors import AgileIRError, EnvironmentProblem
from agileir_export.restore import plan_outputs, restore_pictures
from agileir_export.restore.server import ServerAddress, ServerClient, ServerOptions, restore_on_server

from ..cli.command import document, run
from .conftest import MOST_BYTES, MOST_PIXELS
from .pictures import bad, good
from .servers import ServeProcess

ROOT = Path(__file__).parents[2]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def ask(server: ServeProcess, data: bytes, **parameters: Any) -> Any:
    """A request of plain tritonclient."""
    import tritonclient.grpc as grpc

    picture = grpc.InferInput("picture", [1, len(data)], "UINT8")
    picture.set_data_from_numpy(np.frombuffer(data, np.uint8)[None])
    with grpc.InferenceServerClient(server.address) as client:
        return client.infer(server.model, [picture], parameters=parameters or None, client_timeout=60)


def error(server: ServeProcess, data: bytes, **parameters: Any) -> str:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as caught:
        ask(server, data, **parameters)
    return str(caught.value.message())


@pytest.fixture(scope="module")
def local(bundle: Path) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(bundle / "triton/small_onnx/1/model.onnx")


def test_a_folder_comes_back_as_restore_makes_it(
    server: ServeProcess, local: OnnxRuntimeRunner, tmp_path: Path
) -> None:
    spoilt = {"broken.png": b"no picture", "large.png": bad(MOST_PIXELS, MOST_BYTES)["large"][0]}
    folder = write(tmp_path / "in", {**good(16), **spoilt})
    result = run("restore", "--server", server.url, folder, "-o", tmp_path / "out", "--json")
    told = document(result)
    assert result.exit_code == 1, "two pictures fail, the rest is done"
    assert {Path(each["source"]).name for each in told["failed"]} == {*spoilt}
    assert {each["error"]["code"] for each in told["failed"]} == {"input.image"}
    assert told["runner"]["server"] == server.url
    for name in spoilt:
        (folder / name).unlink()
    restore_pictures(local, folder, tmp_path / "here")
    assert contents(tmp_path / "out") == contents(tmp_path / "here")
    assert len(contents(tmp_path / "out")) == 16


def test_the_journal_goes_on_where_a_run_ended(server: ServeProcess, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", good(4))
    command = ("restore", "--server", server.url, folder, "-o", tmp_path / "out", "--json")
    assert len(document(run(*command))["files"]) == 4
    (tmp_path / "out" / "2.tif").unlink()
    again = document(run(*command, "--resume"))
    assert [Path(each["source"]).name for each in again["files"]] == ["2.tif"]
    assert {each["reason"] for each in again["skipped"]} == {"done before"}


def test_the_ten_lines_of_the_page(server: ServeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "tritonclient" in block)
    assert len(program.strip().splitlines()) <= 10
    assert "127.0.0.1:8001" in program and "agileir_tiny_x2" in program
    monkeypatch.chdir(tmp_path)
    data = good(1)["0.png"]
    Path("photo.png").write_bytes(data)
    exec(program.replace("127.0.0.1:8001", server.address).replace("agileir_tiny_x2", server.model), {})
    before, after = (pillow.open(BytesIO(Path(name).read_bytes())).size for name in ("photo.png", "restored.png"))
    assert after == (2 * before[0], 2 * before[1])
    assert Path("restored.png").read_bytes() == ask(server, data).as_numpy("restored").tobytes()


@pytest.mark.parametrize("kind", bad(MOST_PIXELS, MOST_BYTES))
def test_a_bad_picture_has_an_error_of_its_own(server: ServeProcess, kind: str) -> None:
    data, code = bad(MOST_PIXELS, MOST_BYTES)[kind]
    text = error(server, data)
    assert text.startswith(f"{code}: ")
    assert "Traceback" not in text and "/" not in text.replace("no file", ""), "nothing of the server's inside"
    with ServerClient(ServerAddress.parse(server.url)) as client, pytest.raises(AgileIRError) as caught:
        client.restore(data, "png")
    assert caught.value.what in text and caught.value.exit_code == 2


def test_format_and_quality(server: ServeProcess) -> None:
    data = good(1)["0.png"]
    small, fine = (ask(server, data, format="jpg", quality=q).as_numpy("restored").tobytes() for q in (20, 95))
    assert len(small) < len(fine) and small[:3] == fine[:3] == b"\xff\xd8\xff"
    assert fine == ask(server, data, format="JPG").as_numpy("restored").tobytes(), "95 is what restore takes"
    about = json.loads(ask(server, data, format="webp", quality=50).as_numpy("about").tobytes())
    assert (about["format"], about["size_out"]) == ("webp", [2 * side for side in about["size_in"]])


@pytest.mark.parametrize(
    "parameters",
    [
        {"file": "/etc/passwd"},
        {"format": "exe"},
        {"format": "../png"},
        {"format": "png", "quality": 90},
        {"format": "jpg", "quality": 0},
        {"format": "jpg", "quality": "best"},
    ],
    ids=str,
)
def test_parameters_that_are_refused(server: ServeProcess, parameters: dict[str, Any]) -> None:
    assert error(server, good(1)["0.png"], **parameters).startswith("input.parameter: ")


def test_nobody_names_memory_or_files_or_changes_what_is_served(server: ServeProcess) -> None:
    import tritonclient.grpc as grpc
    from tritonclient.utils import InferenceServerException

    with grpc.InferenceServerClient(server.address) as client:
        calls = [
            lambda: client.register_system_shared_memory("x", "/x", 16),
            lambda: client.load_model(server.model),
            lambda: client.unload_model(server.model),
            lambda: client.update_trace_settings(settings={"trace_file": "x"}),
            lambda: client.update_log_settings({"log_file": "x"}),
        ]
        for call in calls:
            with pytest.raises(InferenceServerException, match="restricted"):
                call()
    for path in (f"repository/models/{server.model}/load", "systemsharedmemory/region/x/register", "trace/setting"):
        request = urllib.request.Request(f"http://127.0.0.1:{server.http}/v2/{path}", b"{}")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request)


def test_it_listens_on_this_machine_only(server: ServeProcess) -> None:
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()]
    addresses = [line[1] for line in lines if line[3] == "0A"]
    here = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and the same as IPv6 writes it
    for port in (server.grpc, server.http, server.metrics):
        found = {address.split(":")[0] for address in addresses if address.endswith(f":{port:04X}")}
        assert found and found <= here


def test_what_the_model_says_of_itself(server: ServeProcess) -> None:
    rows = [line for line in (ROOT / "docs" / "json.md").read_text().splitlines() if line.startswith("| `serve` ")]
    assert set(re.findall(r"`(\w+)`", rows[0].split(" | ", 1)[1])) == set(server.facts)
    with ServerClient(ServerAddress.parse(server.url)) as client:
        about = client.about()
    assert about["limits"] == {"pixels": MOST_PIXELS, "bytes": MOST_BYTES, "seconds": 300.0}
    assert about["spec"]["scale"] == 2 and about["runner"]["target"] == "onnxruntime"
    assert {**about, "went_together": 0} == {**server.facts["about"], "went_together": 0}
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics").read().decode()
    assert f'nv_inference_request_success{{model="{server.model}"' in metrics


def test_a_model_that_is_not_there(server: ServeProcess, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(good(1)["0.png"])
    plan = plan_outputs([tmp_path / "in.png"], tmp_path / "out.png")
    with pytest.raises(EnvironmentProblem, match="unknown model"):
        restore_on_server(ServerAddress(server.address, "other"), plan)


def test_a_folder_that_goes_away_ends_the_run(server: ServeProcess, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, data in good(8).items():
        (tmp_path / "in" / name).write_bytes(data)
    plan = plan_outputs([tmp_path / "in"], tmp_path / "out")

    def remove(step: str, done: int = 0, total: int = 0, /) -> None:
        for file in (tmp_path / "out").glob("*"):
            file.unlink()
        for file in (tmp_path / "out").glob(".*"):
            file.unlink()
        (tmp_path / "out").rmdir()

    with pytest.raises(AgileIRError, match="ends the run"):
        restore_on_server(ServerAddress.parse(server.url), plan, remove, ServerOptions(at_once=1))
