"""The path through the builder as TensorRT sees it, on a stand-in: TensorRT itself needs a GPU to build."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.engines.building.builder import PHASES, Built, build
from agileir_export.engines.building.engine import build_engine
from agileir_export.engines.building.request import BuildRequest
from agileir_export.engines.failures import BuildFailed
from agileir_export.engines.profiles import Profile
from agileir_export.engines.tensorrt.logger import make_logger
from agileir_export.errors import AuditMissed, EnvironmentProblem
from agileir_export.export.artifact import OnnxArtifact

from ..export import networks
from ..export.written import half_file
from . import fake_builder
from .builds import offer_tensorrt, request

SOUND = Path("sound.onnx")


@pytest.fixture(autouse=True)
def recorded() -> None:
    fake_builder.calls.clear()


def made(asked: BuildRequest, progress: Callable[[str], None] = lambda phase: None) -> Built:
    messages: list[tuple[str, str]] = []
    logger = make_logger(fake_builder, lambda severity, text: messages.append((severity, text)))
    model = asked.onnx.read_bytes() if asked.onnx is not None and asked.onnx.exists() else b""
    return build(fake_builder, logger, asked, model, progress, lambda: tuple(text for _, text in messages))


def asked(**changes: Any) -> BuildRequest:
    """A request that leaves the file to the parser."""
    return request(changes.pop("path", SOUND), target="tensorrt", gpus=(), **{"use_plugins": True, **changes})


def test_networks_are_strongly_typed_with_kernels_inside_the_plan() -> None:
    built = made(asked())
    assert ("create_network", 1 << 1 | 1 << 3) in fake_builder.calls
    assert ("profiling_verbosity", "DETAILED") in fake_builder.calls
    assert ("set_preview_feature", "RUNTIME_ACTIVATION_RESIZE_10_10", True) in fake_builder.calls
    assert (built.plan, built.layers, built.timing_cache) == (b"a plan", 7, None)
    assert built.inspection is not None
    assert ("get_engine_information", "JSON") in fake_builder.calls


@pytest.mark.parametrize(("tf32", "call"), [(True, "set_flag"), (False, "clear_flag")])
def test_tf32_is_always_said(tf32: bool, call: str) -> None:
    made(asked(tf32=tf32))
    assert [name for name, *rest in fake_builder.calls if rest == ["TF32"]] == [call]


def test_nothing_is_set_that_was_not_asked_for() -> None:
    made(asked())
    names = {name for name, *_ in fake_builder.calls}
    unwanted = {"builder_optimization_level", "hardware_compatibility_level", "set_memory_pool_limit"}
    assert names.isdisjoint({*unwanted, "set_timing_cache", "num_compute_capabilities", "set_flag"})


def test_every_option_reaches_the_builder(tmp_path: Path) -> None:
    (tmp_path / "timings").write_bytes(b"known")
    sizes = (Profile((1, 8, 8), (1, 16, 24), (2, 32, 32)), Profile((1, 64, 64), (1, 64, 64), (1, 64, 64)))
    built = made(
        asked(
            profiles=sizes,
            optimization_level=4,
            workspace_bytes=1 << 30,
            version_compatible=True,
            hardware_compatible="ampere-plus",
            timing_cache=tmp_path / "timings",
        )
    )
    expected = [
        ("set_flag", "VERSION_COMPATIBLE"),
        ("hardware_compatibility_level", "AMPERE_PLUS"),
        ("builder_optimization_level", 4),
        ("set_memory_pool_limit", "WORKSPACE", 1 << 30),
        ("set_timing_cache", b"known", False),
        ("set_shape", "input", (1, 3, 8, 8), (1, 3, 16, 24), (2, 3, 32, 32)),
        ("set_shape", "input", (1, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 64)),
        ("deserialize_cuda_engine", b"a plan", True),
    ]
    assert [call for call in expected if call not in fake_builder.calls] == []
    assert built.timing_cache == b"known and more"


def test_a_timing_cache_of_another_gpu_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "timings").write_bytes(b"of another GPU")
    assert made(asked(timing_cache=tmp_path / "timings")).timing_cache == b" and more"


def test_the_phases_come_in_order() -> None:
    phases: list[str] = []
    made(asked(), phases.append)
    assert tuple(phases) == PHASES


@pytest.mark.parametrize(
    ("use_plugins", "calls"), [(True, [("parse", ["ShiftedWindowAttention"])]), (False, [("parse", [])])]
)
def test_operators_without_plugins_are_written_out(
    use_plugins: bool, calls: list[Any], folder: Path, tmp_path: Path
) -> None:
    sound = tmp_path / "sound.onnx"
    shutil.copy(networks.exported(folder, "swinir-light").path, sound)
    assert onnx.load(sound).functions
    made(asked(path=sound, use_plugins=use_plugins))
    assert [call for call in fake_builder.calls if call[0] == "parse"] == calls


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be written out."""
    monkeypatch.setattr(
        "agileir_export.engines.building.builder.inline_operators", lambda model: pytest.fail("inlined")
    )


def test_a_file_without_operators_is_left_to_the_parser(as_it_is: None, folder: Path, tmp_path: Path) -> None:
    sound = tmp_path / "sound.onnx"
    shutil.copy(networks.exported(folder, "swinir-light", decomposed=True).path, sound)
    made(asked(path=sound, use_plugins=False))
    assert ("parse", []) in fake_builder.calls


def test_a_file_whose_bodies_are_of_another_opset_is_left_to_the_parser(
    as_it_is: None, folder: Path, tmp_path: Path
) -> None:
    """Which takes it, while ONNX's inliner leaves such bodies where they are."""
    model = onnx.load(networks.exported(folder, "swinir-light").path)
    for entry in model.opset_import:
        entry.version += not entry.domain
    onnx.save(model, tmp_path / "sound.onnx")
    made(asked(path=tmp_path / "sound.onnx", use_plugins=False))
    assert ("parse", ["ShiftedWindowAttention"]) in fake_builder.calls


def test_a_parser_error_carries_its_node() -> None:
    with pytest.raises(BuildFailed) as caught:
        made(asked(path=Path("odd.onnx")))
    failure = caught.value.failure
    assert (failure.node, failure.operator, failure.code) == ("node_Odd_3", "Odd", "UNSUPPORTED_NODE")


# ---- the whole way, with a module named tensorrt ----


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the stand-in as TensorRT and a GPU."""
    offer_tensorrt(tmp_path / "modules", monkeypatch)


@pytest.fixture
def half(tmp_path: Path, folder: Path) -> OnnxArtifact:
    exported = networks.exported(folder, "swinir-light")
    return half_file(exported, tmp_path / "sound.onnx", "float16")


def ask_for(artifact: OnnxArtifact, **changes: Any) -> BuildRequest:
    facts = {"sha256": artifact.sha256, "precision": artifact.precision, "use_plugins": False}
    return asked(path=artifact.path, **{**facts, **changes})


@pytest.mark.usefixtures("here")
def test_an_engine_of_tensorrt_is_built_audited_and_described(half: OnnxArtifact, tmp_path: Path) -> None:
    timings = tmp_path / "timings"
    engine = build_engine(half, tmp_path / "a.plan", ask_for(half, timing_cache=timings))
    assert engine.path.read_bytes() == b"a plan"
    assert timings.read_bytes() == b" and more"
    assert engine.gpus == ("sm89",)
    facts = engine.facts
    assert (facts["gpu"], facts["driver"], facts["target_version"]) == ("Test GPU", "CUDA 13.0", "10.16.1.11")
    assert engine.audit["passed"]
    assert engine.audit["shares"][0] == {"kind": "gemm", "precision": "float16", "count": 2, "share": 1.0}


@pytest.mark.usefixtures("here")
def test_an_engine_in_another_precision_is_refused(tmp_path: Path, folder: Path) -> None:
    single = networks.exported(folder, "swinir-light")
    sound = tmp_path / "sound.onnx"
    shutil.copy(single.path, sound)
    asking = asked(path=sound, sha256=single.sha256, use_plugins=False)
    with pytest.raises(AuditMissed, match=r"asked for in float32.*float16"):
        build_engine(single, tmp_path / "a.plan", asking)
    assert not list(tmp_path.glob("a.plan*"))


def test_without_tensorrt_it_is_said_what_is_missing(half: OnnxArtifact, tmp_path: Path) -> None:
    if ask_for(half).target_entry.verdict().works:
        pytest.skip("TensorRT can build here")
    with pytest.raises(EnvironmentProblem, match="TensorRT cannot build here"):
        build_engine(half, tmp_path / "a.plan", ask_for(half))
    assert not list(tmp_path.glob("a.plan*"))
