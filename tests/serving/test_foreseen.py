"""What keeps a server from starting is said beforehand, by the verb and in its words."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from agileir_export.bundle import write_bundle
from agileir_export.bundle.picture_model import PictureModel, PictureSettings
from agileir_export.engines.cuda_driver import Device, Gpu
from agileir_export.engines.profiles import Profile
from agileir_export.errors import EnvironmentProblem, InputError, Unsupported
from agileir_export.export import OnnxArtifact
from agileir_export.serving import finding
from agileir_export.serving.finding import Installation, find_server
from agileir_export.serving.foreseen import check_backends, check_plans, check_ports, models_to_load, tensorrt_release
from agileir_export.serving.running import Address, RunningServer
from agileir_export.serving.workplace import ServedBundle, Workplace, read_bundle

from ..cli.command import run
from ..engines.sidecars import describe
from .servers import free_ports

GPU = Gpu((13, 0), (Device(0, "a GPU", (8, 6)),))
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def made_up(folder: Path, *backends: str) -> Installation:
    """The files by which a server is known."""
    (folder / "bin").mkdir(parents=True)
    for backend in backends:
        (folder / "backends" / backend).mkdir(parents=True)
        (folder / "backends" / backend / f"libtriton_{backend}.so").touch()
    program = folder / "bin" / "tritonserver"
    program.touch(0o755)
    return Installation(program, folder / "backends", folder / "backends/python" / finding.STUB)


@pytest.fixture
def with_plan(swinir: OnnxArtifact, tmp_path: Path) -> ServedBundle:
    facts = {"target_version": "10.15.1.29"}
    profile = Profile((1, 64, 64), (2, 128, 256), (4, 512, 512))
    known = {"provenance": swinir.provenance, "build": {"seconds": 1.0}, "facts": facts, "profiles": (profile,)}
    plan = describe(tmp_path / "a.plan", swinir.spec, b"plan", **known)
    return read_bundle(write_bundle(tmp_path / "bundle", swinir, [plan], name="m").folder)


def test_a_port_in_use(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("serve", bundle, "--grpc-port", port)
    assert result.exit_code == 4 and "Traceback" not in result.output
    assert f"Port {port} of 127.0.0.1 (gRPC) is in use" in result.stderr and "--grpc-port N" in result.stderr


def test_a_log_that_cannot_be(bundle: Path, tmp_path: Path) -> None:
    grpc, http, metrics = free_ports()
    ports = ("--grpc-port", grpc, "--http-port", http, "--metrics-port", metrics)
    result = run("serve", bundle, "--log", tmp_path / "none" / "x.log", *ports)
    assert result.exit_code in (2, 4)  # 4 where there is no server, which is said first
    assert "Cannot write the log" in result.stderr or "Python" in result.stderr or "no Triton" in result.stderr


def test_addresses_that_cannot_be() -> None:
    with pytest.raises(InputError, match="the same"):
        check_ports("127.0.0.1", {"gRPC": 5, "HTTP": 5})
    with pytest.raises(InputError, match="no address of this machine"):
        check_ports("192.0.2.1", {"gRPC": 45678})


def test_what_is_no_bundle(tmp_path: Path, bundle: Path) -> None:
    for source, text in (
        (tmp_path, "is no bundle"),
        (tmp_path / "x.plan", "a server wants it in a bundle"),
        ("no_such_model", "no_such_model"),
    ):
        result = run("serve", source, "--grpc-port", 45671, "--http-port", 45672, "--metrics-port", 45673)
        if "no Triton" not in result.stderr and "Python backend" not in result.stderr:  # said first where there is none
            assert result.exit_code == 2 and text in " ".join(result.stderr.split())
    with pytest.raises(InputError, match="not whole"):
        (tmp_path / "manifest.json").write_text(json.dumps({"triton": ["m", "m_onnx"]}))
        read_bundle(tmp_path)


def test_no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(finding, "CONTAINER", tmp_path / "none")
    monkeypatch.setattr(finding.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"no Triton Inference Server.*pip install") as caught:
        find_server()
    assert "nvidia-pytriton" in caught.value.why
    with pytest.raises(InputError, match="no program"):
        find_server(tmp_path / "tritonserver")


def test_a_server_for_another_python(tmp_path: Path) -> None:
    server = made_up(tmp_path, "python")
    server.stub.write_bytes(b"... libpython3.7.so.1.0 ...")
    with pytest.raises(EnvironmentProblem, match=rf"Python 3\.7, and this is Python {VERSION}"):
        find_server(server.program)
    server.stub.unlink()
    with pytest.raises(EnvironmentProblem, match="no Python backend"):
        find_server(server.program)
    (tmp_path / "python_backend_stubs/3.7").mkdir(parents=True)
    (tmp_path / "python_backend_stubs/3.7" / finding.STUB).touch()
    with pytest.raises(EnvironmentProblem, match=rf"Python 3\.7, and this is Python {VERSION}.*--no-deps"):
        find_server(server.program)


def test_a_python_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = made_up(tmp_path, "python")
    server.stub.write_bytes(b"stub")
    told = f"\tlibc.so.6 => /lib/libc.so.6\n\tlibpython{VERSION}.so.1.0 => not found\n"
    monkeypatch.setattr(finding.subprocess, "run", lambda *_, **__: type("Told", (), {"stdout": told}))
    with pytest.raises(EnvironmentProblem, match=rf"there is no libpython{VERSION}.*apt install"):
        find_server(server.program)


def test_a_backend_that_is_missing(tmp_path: Path, with_plan: ServedBundle) -> None:
    server = made_up(tmp_path / "server", "python", "onnxruntime")
    check_backends(server, with_plan, ["m_onnx"])
    with pytest.raises(Unsupported, match=r"needs the backend tensorrt, and .* has onnxruntime, python only"):
        check_backends(server, with_plan, ["m_tensorrt_float16"])


def test_a_plan_of_another_tensorrt(tmp_path: Path, with_plan: ServedBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    server = made_up(tmp_path / "server", "python", "tensorrt")
    library = tmp_path / "root/usr/lib/x86_64-linux-gnu"
    library.mkdir(parents=True)
    (library / "libnvinfer.so.10").touch()
    (library / "libnvinfer.so.10.13.3").touch()
    root, models = tmp_path / "root", ["m_tensorrt_float16"]
    assert tensorrt_release(server, root) == "10.13.3"
    with pytest.raises(Unsupported, match=r"built with TensorRT 10\.15\.1, and the server has 10\.13\.3"):
        check_plans(server, with_plan, models, "auto", root)
    check_plans(server, with_plan, [], "onnxruntime", root)  # nobody runs it
    (library / "libnvinfer.so.10.13.3").rename(library / "libnvinfer.so.10.15.1")
    check_plans(server, with_plan, models, "auto", root)
    versions = {"tensorrt-cu13": "10.14.0.5"}
    monkeypatch.setattr("agileir_export.serving.foreseen.installed_version", versions.get)
    with pytest.raises(Unsupported, match=r"10\.15\.1, and this Python has 10\.14\.0"):
        check_plans(server, with_plan, [], "plan", root)


def test_the_models_that_are_loaded(with_plan: ServedBundle) -> None:
    nothing = Gpu(why_not="none")
    assert models_to_load(with_plan, "auto", False, nothing) == []
    assert models_to_load(with_plan, "auto", False, GPU) == ["m_tensorrt_float16"]
    assert models_to_load(with_plan, "onnxruntime", False, GPU) == []
    assert models_to_load(with_plan, "tensors", False, nothing) == ["m_onnx"]
    assert models_to_load(with_plan, "plan", True, nothing) == ["m_onnx", "m_tensorrt_float16"]


def test_the_repository_that_is_served(with_plan: ServedBundle) -> None:
    place = Workplace({"tile": "64x48", "overlap": 8, "pixels": 1000, "seconds": 2.5}, 4, 16)
    place.write(with_plan)
    try:
        config = (place.repository / "m" / "config.pbtxt").read_text()
        assert "KIND_AUTO" in config and "max_batch_size: 4" in config and "max_queue_size: 16" in config
        assert "default_timeout_microseconds: 2500000" in config
        assert (place.repository / "m_onnx" / "1" / "model.onnx").is_file()
    finally:
        place.remove()
    assert not place.folder.exists()


def script(installed: Installation, text: str) -> Installation:
    """A server's program that only says something."""
    installed.program.write_text(f"#!/bin/sh\n{text}\n")
    installed.stub.touch()
    return installed


def test_a_server_that_ends_before_it_is_ready(tmp_path: Path, with_plan: ServedBundle) -> None:
    text = "echo 'I1 fine'; echo 'E1128 x.cc: failed to load m: no memory'; echo '| table |'; exit 3"
    server = script(made_up(tmp_path / "server", "python"), text)
    place = Workplace({}, 1, 1)
    running = RunningServer(server, with_plan, place, Address("127.0.0.1", *free_ports()))
    with pytest.raises(EnvironmentProblem, match=r"ended with status 3 before it was ready.*failed to load m: no mem"):
        running.start(30)
    running.close()
    assert not place.folder.exists()


def test_a_server_that_is_never_ready(tmp_path: Path, with_plan: ServedBundle) -> None:
    server = script(made_up(tmp_path / "server", "python"), "exec sleep 60")
    running = RunningServer(server, with_plan, Workplace({}, 1, 1), Address("127.0.0.1", *free_ports()))
    with pytest.raises(EnvironmentProblem, match=r"not ready after 0\.5 seconds"):
        running.start(0.5)
    running.close()


def test_a_server_that_dies_again_and_again_is_given_up(tmp_path: Path, with_plan: ServedBundle) -> None:
    server = script(made_up(tmp_path / "server", "python"), "exit 9")
    running = RunningServer(server, with_plan, Workplace({}, 1, 1), Address("127.0.0.1", *free_ports()))
    with pytest.raises(EnvironmentProblem, match="ended with status 9, for the 6th time"):
        running._launch()
        for _ in range(100):
            running.watch(0.05)
    running.close()


def settings(**parameters: str) -> PictureSettings:
    return PictureSettings.of_config({"parameters": {k: {"string_value": v} for k, v in parameters.items()}})


def test_settings_survive_the_configuration() -> None:
    chosen = PictureSettings(
        "m_onnx/1/model.onnx", ("a/1/x.plan", "b/1/y.plan"), "openvino", "", "64x48", 8, 55.5, 2**30
    )
    assert settings(**chosen.parameters()) == chosen
    assert chosen.tile_choice == (64, 48) and settings(onnx="x", tile="32").tile_choice == (32, 32)
    plain = PictureSettings("x")
    assert plain.parameters() == {"onnx": "x"} and settings(onnx="x", overlap=" ", memory="") == plain
    assert "KIND_CPU" in PictureModel("m", plain).config()


@pytest.mark.parametrize(
    "parameters",
    [
        {"onnx": "x", "tiles": "3"},
        {"onnx": "x", "tile": "3by4"},
        {"onnx": "x", "bytes": "many"},
        {"runtime": "auto"},
        {"onnx": "x", "runtime": "jax"},
    ],
    ids=str,
)
def test_settings_that_are_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"config\.pbtxt"):
        settings(**parameters)


def test_options_that_are_for_the_server(tmp_path: Path) -> None:
    url = "grpc://127.0.0.1:9/m"
    for more in (("--tile", 64), ("--runtime", "onnxruntime"), ("--weights", "x.pth"), ("--ray",), ("--crf", 3)):
        result = run("restore", "--server", url, tmp_path, "-o", tmp_path / "out", *more)
        assert result.exit_code == 2 and f"{more[0]}: that is for the server to say" in result.stderr
    result = run("restore", "x.onnx", tmp_path, "-o", "out", "--at-once", 3)
    assert result.exit_code == 2 and "no --server is given" in result.stderr
    result = run("restore", "x.onnx", "-o", "out")
    assert result.exit_code == 2 and "Missing argument 'IMAGES...'" in result.stderr
