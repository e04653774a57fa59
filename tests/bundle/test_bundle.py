"""Bundles: what is in the folder, what Triton would read, what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from agileir_export.bundle import write_bundle
from agileir_export.engines.artifact import EngineArtifact
from agileir_export.engines.profiles import Profile
from agileir_export.errors import InputError, OutputError
from agileir_export.export import OnnxArtifact, read_artifact
from agileir_export.parity.metrics import psnr
from agileir_export.parity.report import Measure, ParityReport, Rung

from ..engines.sidecars import describe
from ..export import networks

KIND = "swinir-light"
FREE = Profile((1, 64, 64), (2, 128, 256), (4, 512, 512))
TILE = Profile((1, 64, 64), (4, 64, 64), (8, 64, 64))


@pytest.fixture(scope="session")
def artifact(folder: Path) -> OnnxArtifact:
    return networks.exported(folder, KIND)


def engine(folder: Path, artifact: OnnxArtifact, name: str, **changes: Any) -> EngineArtifact:
    """A plan that nobody reads, with the sidecar that a build would write."""
    known = {"profiles": (FREE,), "provenance": artifact.provenance, "build": {"seconds": 1.0}, **changes}
    return describe(folder / name, known.pop("spec", artifact.spec), f"plan {name}".encode(), **known)


def configs(folder: Path) -> dict[str, Any]:
    """Every config.pbtxt of a bundle as Triton's own message; unknown fields and values are errors."""
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    return {
        path.parent.name: text_format.Parse(path.read_text(), model_config.ModelConfig())
        for path in folder.glob("triton/*/config.pbtxt")
    }


def report(artifact: OnnxArtifact, decibels: float = 130.0) -> ParityReport:
    return ParityReport(
        "x.onnx", artifact.spec, (Rung("ONNX | PyTorch", 100.0, (Measure("a", 8, 8, decibels, 0.1, 0),)),), {}
    )


def test_the_folder_holds_everything_and_says_what(artifact: OnnxArtifact, tmp_path: Path) -> None:
    plans = [engine(tmp_path, artifact, "a.plan"), engine(tmp_path, artifact, "b.plan", target="rtx", gpus=("sm89",))]
    written = write_bundle(tmp_path / "out", artifact, plans, report(artifact), page="<p>", name="small")
    assert written.triton == ("small", "small_onnx", "small_tensorrt_float16")
    found = sorted(p.relative_to(written.folder).as_posix() for p in written.folder.rglob("*") if p.is_file())
    assert found == sorted([*written.files, "manifest.json"])
    assert {
        f"onnx/{artifact.path.name}",
        "engines/a.plan",
        "engines/b.plan.json",
        "parity.json",
        "parity.html",
        "README.md",
        "triton/small/1/model.py",
        "triton/small_onnx/1/model.onnx",
        "triton/small_tensorrt_float16/1/model.plan",
        "triton/small_tensorrt_float16/1/model.plan.json",
    } <= {*found}
    for name, digest in written.files.items():
        assert hashlib.sha256((written.folder / name).read_bytes()).hexdigest() == digest
    manifest = json.loads((written.folder / "manifest.json").read_text())
    assert manifest["parity"] is True
    assert str(tmp_path) not in json.dumps(manifest), "a bundle names no folder of the machine it was made on"
    card = (written.folder / "README.md").read_text()
    assert "130.0 dB" in card and "Every rung holds" in card and "ONNX \\| PyTorch" in card
    assert "TensorRT-RTX" in card and "1x64x64..2x128x256..4x512x512" in card


def test_the_onnx_file_of_a_bundle_is_the_model(artifact: OnnxArtifact, tmp_path: Path) -> None:
    from agileir_export.engines import OnnxRuntimeRunner

    folder = write_bundle(tmp_path / "out", artifact).folder
    images = networks.images(1, artifact.spec.channels, 9, 13)
    for copy in (folder / "onnx" / artifact.path.name, next(folder.glob("triton/*/1/model.onnx"))):
        assert psnr(OnnxRuntimeRunner(copy).run(images), OnnxRuntimeRunner(artifact).run(images)) == float("inf")


def test_triton_reads_names_shapes_batching_and_warm_up(artifact: OnnxArtifact, tmp_path: Path) -> None:
    plans = [engine(tmp_path, artifact, "free.plan"), engine(tmp_path, artifact, "tile.plan", profiles=(TILE,))]
    read = configs(write_bundle(tmp_path / "out", artifact, plans, name="m", batch=6, instances=2).folder)
    assert set(read) == {"m", "m_onnx", "m_tensorrt_float16_1", "m_tensorrt_float16_2"}
    pictures = read.pop("m")
    assert (pictures.name, pictures.backend, pictures.instance_group[0].count) == ("m", "python", 1)
    assert [each.name for each in pictures.input] == ["picture"]
    assert [each.name for each in pictures.output] == ["restored", "about"]
    plans = "m_tensorrt_float16_1/1/model.plan,m_tensorrt_float16_2/1/model.plan"
    assert pictures.parameters["plans"].string_value == plans
    for name, config in read.items():
        assert config.name == name
        assert (config.input[0].name, config.output[0].name) == ("input", "output")
        assert config.input[0].data_type == config.output[0].data_type == 11, "TYPE_FP32"
        assert config.instance_group[0].count == 2
        assert config.dynamic_batching.preferred_batch_size == [config.max_batch_size]
        assert config.model_warmup[0].batch_size <= config.max_batch_size
        warm = config.model_warmup[0].inputs["input"]
        assert [side % artifact.spec.pad_multiple for side in warm.dims[1:]] == [0, 0]
    free, tile, plain = read["m_tensorrt_float16_1"], read["m_tensorrt_float16_2"], read["m_onnx"]
    assert [config.max_batch_size for config in (free, tile, plain)] == [4, 8, 6]
    assert list(free.input[0].dims) == list(free.output[0].dims) == [3, -1, -1]
    assert (list(tile.input[0].dims), list(tile.output[0].dims)) == ([3, 64, 64], [3, 128, 128])
    assert list(free.model_warmup[0].inputs["input"].dims) == [3, 128, 256]
    assert {config.platform for config in (free, tile)} == {"tensorrt_plan"}
    assert plain.platform == "onnxruntime_onnx"


def test_a_static_file_has_no_batching(tmp_path: Path, folder: Path) -> None:
    static = networks.exported(folder, KIND, static=(8, 12))
    config = configs(write_bundle(tmp_path / "out", static, name="fixed").folder)["fixed_onnx"]
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([1, 3, 8, 12], [1, 3, 16, 24])
    assert config.model_warmup[0].batch_size == 1


def test_plans_for_several_gpus_are_one_model(artifact: OnnxArtifact, tmp_path: Path) -> None:
    plans = [engine(tmp_path, artifact, f"{gpu}.plan", gpus=(gpu,)) for gpu in ("sm86", "sm120")]
    folder = write_bundle(tmp_path / "out", artifact, plans, name="m").folder
    config = configs(folder)["m_tensorrt_float16"]
    assert dict(config.cc_model_filenames) == {"8.6": "model_sm86.plan", "12.0": "model_sm120.plan"}
    assert config.default_model_filename == ""
    for gpu in ("sm86", "sm120"):
        copied = folder / "triton" / "m_tensorrt_float16" / "1" / f"model_{gpu}.plan"
        assert copied.read_bytes() == f"plan {gpu}.plan".encode()
    again = engine(tmp_path, artifact, "again.plan", gpus=("sm86",))
    with pytest.raises(InputError, match=r"compute capability 8\.6"):
        write_bundle(tmp_path / "other", artifact, [*plans, again], name="m")
    assert not (tmp_path / "other").exists()


def test_a_plan_of_several_profiles_uses_them_all(artifact: OnnxArtifact, tmp_path: Path) -> None:
    plans = [engine(tmp_path, artifact, "two.plan", profiles=(TILE, FREE))]
    config = configs(write_bundle(tmp_path / "out", artifact, plans, name="m").folder)["m_tensorrt_float16"]
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert config.max_batch_size == 8
    assert list(config.input[0].dims) == [3, -1, -1]


def test_what_is_refused_leaves_nothing(artifact: OnnxArtifact, tmp_path: Path) -> None:
    stranger = engine(tmp_path, artifact, "s.plan", provenance={"weights_sha256": "0" * 64})
    with pytest.raises(InputError, match=f"other weights than {artifact.path.name}"):
        write_bundle(tmp_path / "out", artifact, [stranger])
    (tmp_path / "below").mkdir()
    twins = [engine(tmp_path, artifact, "t.plan"), engine(tmp_path / "below", artifact, "t.plan")]
    with pytest.raises(InputError, match=r"named t\.plan"):
        write_bundle(tmp_path / "out", artifact, twins)
    with pytest.raises(InputError, match="under Triton"):
        write_bundle(tmp_path / "out", artifact, name="a/b")
    with pytest.raises(OutputError, match="no folder"):
        write_bundle(tmp_path / "missing" / "out", artifact)
    gone = engine(tmp_path, artifact, "gone.plan")
    gone.path.unlink()
    with pytest.raises(OutputError, match="No such file"):
        write_bundle(tmp_path / "out", artifact, [gone])
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".agileir-*"))


def test_only_a_bundle_is_replaced(artifact: OnnxArtifact, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="exists already"):
        write_bundle(tmp_path / "mine", artifact)
    with pytest.raises(OutputError, match="not a bundle"):
        write_bundle(tmp_path / "mine", artifact, overwrite=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    write_bundle(tmp_path / "out", artifact, name="first")
    write_bundle(tmp_path / "out", artifact, name="second", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out" / "triton").iterdir()) == ["second", "second_onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_a_missed_parity_is_told(artifact: OnnxArtifact, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "out", artifact, report=report(artifact, 20.0)).folder
    assert "A rung is missed" in (folder / "README.md").read_text()
    assert json.loads((folder / "manifest.json").read_text())["parity"] is False


def test_a_custom_model_is_named_after_its_file(artifact: OnnxArtifact, tmp_path: Path) -> None:
    copy = tmp_path / "night.onnx"
    shutil.copyfile(artifact.path, copy)
    named = read_artifact(copy)
    assert named.spec.name == "custom"
    assert write_bundle(tmp_path / "out", named).triton == ("night", "night_onnx")


def test_a_plan_that_needs_this_package_is_not_for_triton(artifact: OnnxArtifact, tmp_path: Path) -> None:
    """And the card says so, with the layout of its kernels."""
    carried = {"form": "python", "layout": 1, "layers": 4}
    plans = [
        engine(tmp_path, artifact, "own.plan", plugins={"form": "quick"}),
        engine(tmp_path, artifact, "python.plan", plugins=carried, profiles=(TILE,)),
        engine(tmp_path, artifact, "rtx.plan", plugins=carried, target="rtx", gpus=("sm89",)),
    ]
    written = write_bundle(tmp_path / "out", artifact, plans, name="small")
    assert written.triton == ("small", "small_onnx", "small_tensorrt_float16")
    card = " ".join((written.folder / "README.md").read_text().split())
    assert "`python.plan` (layout 1), `rtx.plan` (layout 1)" in card and "--attention decomposed" in card
    manifest = json.loads((written.folder / "manifest.json").read_text())
    assert [told["plugins"] for told in manifest["engines"]] == [{"form": "quick"}, carried, carried]
