"""``polygraphy run`` with our options, and the scripts it makes of them. polygraphy is run in this process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.images.files import Image, write_image

from ..engines.sidecars import describe
from ..export import networks
from . import polygraphy_tool

Polygraphy = Callable[..., tuple[int, str]]
"""Runs the tool; its exit code and what it says."""


@pytest.fixture
def polygraphy(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Polygraphy:
    monkeypatch.syspath_prepend(str(polygraphy_tool.install(tmp_path_factory.mktemp("installed"))))

    def run(*arguments: object) -> tuple[int, str]:
        from polygraphy.tools._main import main

        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, "".join(capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def pictures(samples: list[tuple[str, Path]]) -> Path:
    """A folder with two small colour pictures, 24x36."""
    return samples[0][1].parent


@pytest.fixture(scope="session")
def model(swinir: OnnxArtifact) -> OnnxArtifact:
    return swinir


def tampered(artifact: OnnxArtifact, path: Path, offset: float) -> Path:
    """A copy whose output is brighter by `offset`, evenly: its PSNR is known beforehand."""
    changed = onnx.load(artifact.path)
    output = changed.graph.output[0].name
    for node in changed.graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
    changed.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([offset]), "offset"))
    changed.graph.node.append(onnx.helper.make_node("Add", ["before", "offset"], [output]))
    onnx.save(changed, path)
    return path


def write_foreign(path: Path) -> Path:
    """A file that is none of ours."""
    text = '<ir_version: 9, opset_import: ["": 20]> g (float x) => (float y) {y = Abs(x)}'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_a_network_runs_on_pictures_and_agrees_with_itself(
    polygraphy: Polygraphy, model: OnnxArtifact, pictures: Path
) -> None:
    ours = ("--onnxrt", "--onnxrt", "--agileir-images", pictures, "--agileir-psnr", 100)
    status, said = polygraphy("run", model.path, *ours)
    assert status == 0, said
    assert said.count("PSNR (peak 1.0): inf dB, at least 100 dB") == 2
    assert said.count("input [1, 3, 24, 36]") == 2


def test_the_floor_decides_the_exit_code(
    polygraphy: Polygraphy, model: OnnxArtifact, pictures: Path, tmp_path: Path
) -> None:
    """An even offset of 0.01 is 40 dB below the peak, whatever the pictures show."""
    other, outputs = tampered(model, tmp_path / "other.onnx", 0.01), tmp_path / "outputs"
    given = ("--onnxrt", "--agileir-images", pictures)
    assert polygraphy("run", model.path, *given, "--save-outputs", outputs)[0] == 0
    verdicts = {}
    for floor in (39.5, 40.5):
        status, said = polygraphy(
            "run", other, *given, "--load-outputs", outputs, "--agileir-psnr", floor, "--agileir-size", "24x36"
        )
        verdicts[floor] = status
        found = [float(value) for value in re.findall(r"PSNR \(peak 1\.0\): ([\d.]+) dB", said)]
        assert len(found) == 2
        assert found == pytest.approx([40.0, 40.0], abs=0.3)  # clamping takes a little of the offset away
    assert verdicts == {39.5: 0, 40.5: 1}


def test_other_comparisons_are_made_beside_ours(polygraphy: Polygraphy, model: OnnxArtifact, pictures: Path) -> None:
    from polygraphy import comparator

    if not hasattr(comparator, "L2CompareFunc"):
        pytest.skip("this polygraphy makes one comparison a run")
    ours = ("--onnxrt", "--onnxrt", "--agileir-images", pictures, "--agileir-psnr", 100)
    status, said = polygraphy("run", model.path, *ours, "--compare", "l2", "--l2-threshold", "-1")
    assert status == 1, "the impossible L2 threshold must count"
    assert "PSNR (peak 1.0): inf dB" in said


def script(polygraphy: Polygraphy, path: Path, *arguments: object) -> str:
    """The script that polygraphy makes instead of running."""
    target = path / "script.py"
    status, said = polygraphy("run", *arguments, "--gen-script", target)
    assert status == 0, said
    return target.read_text()


def test_a_run_without_our_options_is_left_alone(polygraphy: Polygraphy, tmp_path: Path) -> None:
    foreign = write_foreign(tmp_path / "foreign.onnx")
    made = script(polygraphy, tmp_path, foreign, "--onnxrt", "--trt")
    assert "agileir" not in made.split("import", 1)[1]
    assert "SimpleCompareFunc" not in made and "Pictures" not in made
    status, said = polygraphy("run", foreign, "--onnxrt", "--onnxrt")
    assert status == 0, said


def test_tensorrt_reads_our_file_with_our_plugins(
    polygraphy: Polygraphy, model: OnnxArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = script(polygraphy, tmp_path, model.path, "--onnxrt", "--trt")
    assert made.count("WithPlugins(") == 1
    assert f"WithPlugins({str(model.path)!r})" in made
    assert "NetworkFromOnnxPath(with_plugins" in made
    compile(made, "script.py", "exec")
    assert "WithPlugins" not in script(polygraphy, tmp_path, model.path, "--trt", "--agileir-no-plugins")


def test_an_engine_with_plugins_in_python_registers_them(
    polygraphy: Polygraphy, model: OnnxArtifact, tmp_path: Path
) -> None:
    """By its sidecar; engines of others, and ours without such plugins, are left alone."""
    for name, plugins in (("python", {"form": "python", "layout": 1, "layers": 1}), ("quick", {"form": "quick"})):
        describe(tmp_path / f"{name}.plan", model.spec, b"a plan", target="rtx", plugins=plugins)
    (tmp_path / "foreign.plan").write_bytes(b"a plan")
    made = {
        name: script(polygraphy, tmp_path, tmp_path / f"{name}.plan", "--model-type", "engine", "--trt")
        for name in ("python", "quick", "foreign")
    }
    assert "WithPythonPlugins(load_engine_bytes, 'rtx')" in made["python"]
    assert "EngineFromBytes(with_python_plugins" in made["python"]
    compile(made["python"], "script.py", "exec")
    assert "WithPythonPlugins" not in made["quick"] + made["foreign"]


def test_tensorrt_rtx_reads_our_file_without_plugins_and_tf32(
    polygraphy: Polygraphy, model: OnnxArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import polygraphy.config as settings

    monkeypatch.setattr(settings, "USE_TENSORRT_RTX", True)
    monkeypatch.setattr("agileir_export.parity.polygraphy.arguments._name_rtx_bindings", lambda: None)
    made = script(polygraphy, tmp_path, model.path, "--trt")
    assert "WithPlugins" not in made
    assert "EngineBytesFromNetwork(parse_network_from_onnx, config=without_tf32)" in made
    assert "WithoutTf32" not in script(polygraphy, tmp_path, model.path, "--trt", "--tf32")
    foreign = write_foreign(tmp_path / "foreign.onnx")
    assert "WithoutTf32" not in script(polygraphy, tmp_path, foreign, "--trt")


def test_a_saved_script_runs_by_itself(
    polygraphy: Polygraphy, model: OnnxArtifact, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = ("--onnxrt", "--onnxrt", "--agileir-images", pictures, "--agileir-psnr", 90)
    made = script(polygraphy, tmp_path, model.path, *ours)
    assert "FixedPeakPsnr(90.0)" in made
    exec(compile(made, "script.py", "exec"), {})
    assert capsys.readouterr().out.count("PASSED | Output: 'output' | PSNR") == 2


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "no such folder": (("--agileir-images", "nowhere"), "There is no file or folder nowhere"),
    "size without pictures": (("--agileir-size", "8x8"), "which is not given"),
    "no size": (("--agileir-images", "--agileir-size", "big"), "is not a size"),
    "two sources": (("--agileir-images", "--data-loader-script", "loader.py"), "cannot be combined"),
    "two kinds of inputs": (("--agileir-images", "--load-inputs", "inputs"), "--load-inputs cannot be combined"),
    "two judges": (("--agileir-psnr", "40", "--compare-func-script", "judge.py"), "cannot be combined"),
    "nothing to compare": (("--agileir-psnr", "40"), "nothing to compare"),
    "no number": (("--agileir-psnr", "nan"), "cannot be reached"),
    "two floors": (("--agileir-psnr", "100", "--agileir-psnr", "50"), "given as 100.0 and 50.0"),
    "two sizes": (("--agileir-images", "--agileir-size", "8x8", "--agileir-size", "4x4"), "given as 8x8 and 4x4"),
    "random pictures": (
        ("--agileir-images", "--seed", "1", "--val-range", "[0,1]", "--iterations", "2"),
        "--seed, --val-range, --iterations cannot be combined with --agileir-images, which are the inputs",
    ),
    "another backend": (("--agileir-images", "--data-loader-backend-module", "torch"), "--data-loader-backend-module"),
    "two yardsticks": (
        ("--onnxrt", "--agileir-psnr", "40", "--atol", "1e-3", "--rtol", "1e-3", "--check-error-stat", "mean"),
        "--rtol, --atol, --check-error-stat cannot be combined with --agileir-psnr, which stands in",
    ),
    "heat without a stove": (("--onnxrt", "--agileir-psnr", "40", "--save-heatmaps", "heat"), "--save-heatmaps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_before_anything_runs(
    name: str, polygraphy: Polygraphy, model: OnnxArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("loader.py", "judge.py"):
        Path(file).write_text("")
    arguments, message = REFUSED[name]
    status, said = polygraphy("run", model.path, "--onnxrt", *arguments)
    assert status == 1
    assert message in said
    assert "Activating" not in said and "Traceback" not in said


def test_pictures_may_be_named_one_by_one_and_options_repeated(
    polygraphy: Polygraphy, model: OnnxArtifact, samples: list[tuple[str, Path]], tmp_path: Path
) -> None:
    (_, first), (_, second), *_ = samples
    given = ("--agileir-images", first, "--agileir-images", second)
    repeated = ("--agileir-psnr", 90, "--agileir-psnr", 90.0, "--agileir-size", "8x8", "--agileir-size", "8x8")
    made = script(polygraphy, tmp_path, model.path, "--onnxrt", "--onnxrt", *given, *repeated)
    assert f"[{str(first)!r}, {str(second)!r}], size=(8, 8))" in made
    assert "FixedPeakPsnr(90.0)" in made


def test_a_file_of_someone_else_takes_no_pictures(polygraphy: Polygraphy, model: OnnxArtifact, tmp_path: Path) -> None:
    stripped = onnx.load(model.path)
    del stripped.metadata_props[:]
    onnx.save(stripped, tmp_path / "stripped.onnx")
    status, said = polygraphy("run", tmp_path / "stripped.onnx", "--onnxrt", "--agileir-images")
    assert status == 1
    assert "not one of ours" in said and "Traceback" not in said


def test_a_file_of_one_size_takes_pictures_of_that_size(polygraphy: Polygraphy, folder: Path, tmp_path: Path) -> None:
    static = export_onnx(networks.shared("swinir-jpeg"), tmp_path / "static.onnx", static=(14, 21))
    small, large = tmp_path / "small", tmp_path / "large"
    for place, shape in ((small, (3, 7, 9)), (large, (3, 30, 40))):
        place.mkdir()
        write_image(place / "picture.png", Image(networks.images(1, *shape)[0]))
    status, said = polygraphy("run", static.path, "--onnxrt", "--agileir-images", large)
    assert status == 0 and "input [1, 1, 14, 21]" in said, said
    status, said = polygraphy("run", static.path, "--onnxrt", "--agileir-images", small)
    assert status == 1 and "was exported for 14x21 pixels" in said and "Traceback" not in said, said
