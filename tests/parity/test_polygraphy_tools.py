"""polygraphy's other tools on our files, and the commands of docs/polygraphy.md as they are written there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.export import OnnxArtifact, read_artifact
from agileir_export.parity.metrics import psnr
from agileir_export.parity.polygraphy import plan_comparison

from ..engines.rtx_builds import needs_rtx
from ..export import networks
from . import polygraphy_tool

PAGE = polygraphy_tool.ROOT / "docs" / "polygraphy.md"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's shape inference, where it gives up, leaves its model in the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return polygraphy_tool.install(tmp_path_factory.mktemp("installed"))


@pytest.fixture(params=networks.ONE_A_FAMILY)
def artifact(request: pytest.FixtureRequest, folder: Path) -> OnnxArtifact:
    return networks.exported(folder, request.param)


def tool(*arguments: object) -> int:
    """Runs polygraphy in this process; its exit code."""
    from polygraphy.tools._main import main

    return main([str(argument) for argument in arguments])


def test_inspect_shows_our_operators(artifact: OnnxArtifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("inspect", "model", artifact.path, "--show", "layers", "attrs") == 0
    said = capsys.readouterr().out
    assert f"{artifact.nodes} Node(s)" in said
    for name, count in artifact.operators.items():
        assert said.count(f"[Op: {name}]") == count


def test_sanitize_keeps_the_network(artifact: OnnxArtifact, tmp_path: Path) -> None:
    path = tmp_path / "sanitized.onnx"
    assert tool("surgeon", "sanitize", artifact.path, "-o", path) == 0
    cleaned = read_artifact(path)
    assert (cleaned.spec, cleaned.operators) == (artifact.spec, artifact.operators)
    images = networks.images(1, artifact.spec.channels, 9, 13)
    outputs = [OnnxRuntimeRunner(file).run(images) for file in (artifact, cleaned)]
    assert psnr(*outputs) >= 80  # the same arithmetic; a near-tie of a dictionary may fall differently


def test_lint_finds_nothing(artifact: OnnxArtifact) -> None:
    """At a size that is whole windows: lint runs the network, by default on one pixel."""
    side = 2 * artifact.spec.pad_multiple
    shape = f"input:[1,{artifact.spec.channels},{side},{side}]"
    assert tool("check", "lint", artifact.path, "--input-shapes", shape) == 0


def test_lint_can_find_something(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(networks.exported(folder, "swinir-light").path)
    model.graph.node[0].op_type = "Cnov"
    onnx.save(model, tmp_path / "broken.onnx")
    assert tool("check", "lint", tmp_path / "broken.onnx", "--input-shapes", "input:[1,3,8,8]") == 1


def convert(installed: Path, artifact: OnnxArtifact, place: Path) -> Path:
    """Builds a TensorRT-RTX engine with polygraphy, in a process of its own."""
    sides = [count * artifact.spec.pad_multiple for count in (1, 2, 6)]
    shapes = [
        f"--trt-{name}-shapes input:[1,{artifact.spec.channels},{side},{side}]"
        for name, side in zip(("min", "opt", "max"), sides, strict=True)
    ]
    plan = place / "model.plan"
    command = (
        f"polygraphy convert {artifact.path} --convert-to trt --strongly-typed --compute-capabilities 8.6 8.9 "
        f"{' '.join(shapes)} -o {plan}"
    )
    answer = polygraphy_tool.shell(installed, command, place, POLYGRAPHY_USE_TENSORRT_RTX="1")
    assert answer.returncode == 0, answer.stdout
    return plan


@needs_rtx
def test_convert_builds_for_tensorrt_rtx(installed: Path, folder: Path, tmp_path: Path) -> None:
    assert convert(installed, networks.exported(folder, "swinir-light"), tmp_path).stat().st_size > 10_000


@needs_rtx
@pytest.mark.slow
def test_convert_builds_every_family(installed: Path, artifact: OnnxArtifact, tmp_path: Path) -> None:
    assert convert(installed, artifact, tmp_path).stat().st_size > 10_000


@needs_rtx
@pytest.mark.slow
def test_a_run_builds_for_tensorrt_rtx_without_tf32(installed: Path, folder: Path, tmp_path: Path) -> None:
    """Without a GPU the run ends after the build, with polygraphy's message."""
    script = plan_comparison(networks.exported(folder, "swinir-light").path, "rtx", size=(16, 16)).script()
    said = polygraphy_tool.shell(installed, script, tmp_path).stdout
    assert "Finished engine building" in said, said
    flags = [line for line in said.splitlines() if line.strip().startswith("Flags ")]
    assert flags and not [line for line in flags if "TF32" in line], said


@needs_rtx
@pytest.mark.slow
def test_the_commands_of_the_page_do_what_it_says(installed: Path, tmp_path: Path) -> None:
    """Every shell block of the page, in order, in one folder with pictures in `photos`; files it names appear."""
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    (tmp_path / "photos").mkdir()
    from agileir_export.images.files import sample_images

    name, path = sample_images()[0]
    (tmp_path / "photos" / f"{name}.png").write_bytes(path.read_bytes())
    for block in blocks:
        answer = polygraphy_tool.shell(installed, block, tmp_path)
        assert answer.returncode == 0, f"{block}\n{answer.stdout}"
    assert np.all([(tmp_path / name).is_file() for name in re.findall(r"-o (\S+)", page)])
