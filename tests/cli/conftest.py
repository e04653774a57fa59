"""Files to name on a command line, an empty current folder, and a preset small enough to export in a second."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from agileir_export.images.files import Image, write_image
from agileir_export.models import FAMILIES

from ..export import networks
from ..small_samples import cut_samples, use_samples
from .command import KIND, PRESET, run


@pytest.fixture(scope="session")
def files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files to name: checkpoints, an exported file, pictures, and what is none of these."""
    exported = networks.exported(folder, KIND)
    here = tmp_path_factory.mktemp("files")
    found = {"onnx": exported.path, "samples": here / "samples"}
    checkpoints = {"swinir": networks.shared(KIND), "semanir": networks.shared("semanir")}
    checkpoints["mixed"] = networks.shared("agileir-mixed")
    released = checkpoints["released"] = networks.build("agileir")
    for name, parameter in released.named_parameters():
        if name.endswith("proj.1.bn.weight"):  # the scale that the released code never trains
            torch.nn.init.zeros_(parameter)
    for name, model in checkpoints.items():
        found[name] = here / f"{name}.pth"
        torch.save(model.state_dict(), found[name])
    found["text"] = here / "text.pth"
    found["broken"] = here / "broken.onnx"
    for name in ("text", "broken"):
        found[name].write_text("no network")
    found["foreign"] = here / "foreign.onnx"
    onnx.save(
        onnx.parser.parse_model('<ir_version: 9, opset_import: ["": 20]> g (float x) => (float y) {y = Abs(x)}'),
        found["foreign"],
    )
    found["picture"] = here / "picture.png"
    write_image(found["picture"], Image(networks.images(1, 3, 5, 7)[0]))
    found["samples"].mkdir()
    return found


@pytest.fixture(autouse=True)
def surroundings(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, small samples, and a small preset."""
    monkeypatch.chdir(tmp_path)
    use_samples(monkeypatch, cut_samples(files["samples"]))
    shape = {key: value for key, value in networks.SHAPES[KIND].items() if key != "family"}
    monkeypatch.setitem(FAMILIES["swinir"].presets, PRESET, shape)  # type: ignore[index]


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of engines."""
    folder = tmp_path_factory.mktemp("engines")
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(folder))
    return folder


@pytest.fixture
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file that knows its origin: the preset with random weights."""
    path = tmp_path_factory.getbasetemp() / "trial.onnx"
    if not path.exists():
        assert run("onnx", PRESET, "--random-weights", 3, "-o", path, "--no-verify").exit_code == 0
    return path
