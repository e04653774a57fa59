"""The random checkpoints of spandrel's architectures: recognised as what they are, and pictures come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..scripts import load_script

spandrel = pytest.importorskip("spandrel")

SCRIPT = load_script(Path(__file__).resolve().parents[2] / "tools" / "spandrel_networks.py")
QUICK = ("Compact", "ESRGAN", "HAT", "SPAN")
IDS = [pytest.param(each, marks=[] if each in QUICK else [pytest.mark.slow]) for each in sorted(SCRIPT.NETWORKS)]


@pytest.mark.parametrize("architecture", IDS)
def test_a_checkpoint_is_recognised_and_makes_pictures(architecture: str) -> None:
    state = SCRIPT.make_state(architecture)
    descriptor = spandrel.ModelLoader().load_from_state_dict(dict(state))
    assert descriptor.architecture.id == architecture
    image = SCRIPT.picture(descriptor, seed=1)
    output = SCRIPT.run(descriptor, image)
    assert output.shape == (1, descriptor.output_channels, *(descriptor.scale * side for side in image.shape[2:]))
    assert output.isfinite().all()
    assert 0.01 < (output - output.mean((2, 3), keepdim=True)).std() < 10
    assert (output - SCRIPT.run(descriptor, SCRIPT.picture(descriptor, seed=2))).std() > 0.01
    descriptor.model.load_state_dict(SCRIPT.make_state(architecture, seed=1))
    assert (output - SCRIPT.run(descriptor, image)).std() > 0.01


def test_the_table_has_every_architecture_of_the_main_registry() -> None:
    registry = spandrel.MAIN_REGISTRY.architectures()
    assert sorted(SCRIPT.NETWORKS) == sorted(support.architecture.id for support in registry)


def test_a_file_is_what_its_seed_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("a.safetensors", "b.pth"):
        assert SCRIPT.main(["SPAN", "-o", str(tmp_path / file), "--seed", "3"]) == 0
        loaded = spandrel.ModelLoader().load_from_file(tmp_path / file)
        assert loaded.architecture.id == "SPAN" and file in capsys.readouterr().out
        expected = SCRIPT.make_state("SPAN", seed=3)
        assert all(value.equal(expected[name]) for name, value in loaded.model.state_dict().items())


def test_what_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="No published network of SAFMNBCIE"):
        SCRIPT.make_state("SAFMNBCIE", real=True)
    with pytest.raises(SystemExit):
        SCRIPT.main(["SPAN", "-o", str(tmp_path / "a.onnx")])
    assert "neither" in capsys.readouterr().err
