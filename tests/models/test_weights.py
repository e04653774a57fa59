"""The packaged weights: their files, what loads from them, what they reach against ground truth."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from agileir_export.models import load_model, packaged_models

from ..scripts import load_script

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "models" / "weights"

# name: folder of data, least dB (border crop = scale, 8 bit; RGB PSNR for the denoiser)
FLOORS = {
    "agileir_tiny_x2": ("test/Set5", 37.0),
    "agileir_tiny_x4": ("test/Set5", 30.7),
    "semanir_tiny_x2": ("test/Set5", 36.8),
    "semanir_tiny_dn25": ("real/CBSD68", 29.5),
}


def test_all_are_there():
    assert set(packaged_models()) == set(FLOORS)


@pytest.mark.parametrize("name", FLOORS)
def test_file_is_small_float32_and_documented(name):
    file = WEIGHTS / f"{name}.safetensors"
    assert file.stat().st_size < 1.5e6
    with safe_open(file, "pt") as tensors:
        about = json.loads(tensors.metadata()["agileir"])
        values = [tensors.get_tensor(key) for key in tensors.keys()]  # noqa: SIM118
    assert about["preset"] == name and about["license"] == "Apache-2.0"
    assert all(v.dtype == torch.float32 for v in values if v.is_floating_point())
    card = (WEIGHTS / f"{name}.md").read_text()
    for word in ("Apache-2.0", "seed", "python tools/train.py", "dB"):
        assert word in card
    assert not re.search(r"/(work|tmp|home|root)/", card + json.dumps(about))


@pytest.mark.parametrize("name", FLOORS)
def test_loads_as_a_small_model_of_its_name(name):
    model = load_model(name)
    assert 100_000 <= sum(p.numel() for p in model.parameters()) <= 300_000
    assert model.spec.name == name


@pytest.mark.parametrize("name", FLOORS)
def test_is_recognised_from_the_file_alone(name):
    by_name, by_file = load_model(name), load_model(WEIGHTS / f"{name}.safetensors")
    assert by_file.spec == by_name.spec


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOORS)
def test_reaches_its_floor(name, data_dir):
    folder, floor = FLOORS[name]
    if not (data_dir / folder).is_dir():
        pytest.skip(f"there is no {folder}")
    command = [sys.executable, "tools/evaluate.py", name, "--data", str(data_dir / folder)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    mean = float(re.search(r"^mean +([0-9.]+) dB", answer.stdout, re.M).group(1))
    assert mean >= floor


def test_evaluation_says_what_is_wrong(tmp_path, capsys):
    evaluate = load_script(ROOT / "tools" / "evaluate.py")
    name = next(iter(packaged_models()))
    assert evaluate.main([name, "--data", str(tmp_path)]) == 2
    assert evaluate.main(["no_such_model", "--data", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "There is no folder" in errors and "no_such_model" in errors
