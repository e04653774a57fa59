"""The ready command: what it says, and what its script does when a shell runs it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agileir_export.engines.profiles import Profile
from agileir_export.errors import AgileIRError, InputError, Unsupported
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.export.floors import DICTIONARY_FLOORS, FLOORS
from agileir_export.images.files import Image, write_image
from agileir_export.models import load_model
from agileir_export.parity.polygraphy import Comparison, plan_comparison

from ..engines.sidecars import describe
from ..export import networks
from ..export.written import half_file
from . import polygraphy_tool


@pytest.fixture(scope="session")
def model(swinir: OnnxArtifact) -> OnnxArtifact:
    return swinir


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with a space and a quote in its name, of two pictures of different sizes: 9x18 and 14x11."""
    place = tmp_path_factory.mktemp("photos") / "mum's photos"
    place.mkdir()
    for name, rows, columns in (("a.png", 9, 18), ("b.png", 14, 11)):
        write_image(place / name, Image(networks.images(1, 3, rows, columns)[0]))
    return place


def options(command: tuple[str, ...]) -> dict[str, list[str]]:
    """Values by option of a command line; what stands before the first option is under the empty name."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in command:
        if word.startswith("--"):
            name = word
            found[name] = []
        else:
            found[name].append(word)
    return found


def test_tensorrt_on_the_same_file(model: OnnxArtifact, photos: Path) -> None:
    comparison = plan_comparison(model.path, "trt", images=[photos])
    (command,) = comparison.commands
    assert options(command) == {
        "": ["polygraphy", "run", str(model.path)],
        "--onnxrt": [],
        "--trt": [],
        "--strongly-typed": [],
        "--trt-min-shapes": ["input:[1,3,12,12]"],
        "--trt-opt-shapes": ["input:[1,3,16,20]"],
        "--trt-max-shapes": ["input:[1,3,16,20]"],
        "--agileir-images": [str(photos)],
        "--agileir-psnr": ["100"],
    }
    assert comparison.floor == FLOORS["float32"] and comparison.environment == {}
    assert shlex.split(comparison.script().splitlines()[-1]) == list(command)


def test_tensorrt_rtx_on_another_file(model: OnnxArtifact, folder: Path, photos: Path) -> None:
    other = networks.exported(folder, "swinir-light", decomposed=True)
    comparison = plan_comparison(model.path, "rtx", against=other.path, images=[photos], size=(8, 8), floor=61.5)
    first, second = map(options, comparison.commands)
    assert comparison.environment == {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    assert first[""][2] == str(model.path) and second[""][2] == str(other.path)
    assert first["--save-outputs"] == second["--load-outputs"]
    assert first["--agileir-images"] == second["--agileir-images"] and second["--agileir-size"] == ["8x8"]
    assert second["--trt-max-shapes"] == ["input:[1,3,8,8]"]
    assert "--trt" not in first and second["--agileir-psnr"] == ["61.5"]
    variables = [
        line.startswith("POLYGRAPHY_") for line in comparison.script().splitlines() if "polygraphy run" in line
    ]
    assert variables == [False, True], "ONNX Runtime's own run needs no TensorRT"


def test_a_file_of_one_size_needs_no_profile(tmp_path: Path, photos: Path) -> None:
    static = export_onnx(networks.shared("swinir-light"), tmp_path / "static.onnx", static=(8, 8))
    (command,) = plan_comparison(static.path, "trt", images=[photos]).commands
    found = options(command)
    assert found["--agileir-size"] == ["8x8"]
    assert not [name for name in found if "shapes" in name]


def engine(model: OnnxArtifact, path: Path, target: str = "rtx") -> Path:
    """A plan that no runtime would take, with the sidecar of an engine for small and for middling pictures."""
    profiles = (Profile((1, 4, 4), (1, 8, 8), (1, 8, 8)), Profile((1, 12, 12), (1, 16, 16), (2, 32, 32)))
    return describe(path, model.spec, b"plan", target=target, profiles=profiles).path


def test_a_built_engine(model: OnnxArtifact, tmp_path: Path, photos: Path) -> None:
    """The engine runs on the inputs of the first run: it cannot say itself what pictures it takes."""
    plan = engine(model, tmp_path / "engine.plan")
    comparison = plan_comparison(model.path, against=plan, images=[photos])
    first, second = map(options, comparison.commands)
    assert first["--save-inputs"] == second["--load-inputs"] and first["--save-outputs"] == second["--load-outputs"]
    assert second[""] == ["polygraphy", "run", str(plan)] and second["--model-type"] == ["engine"]
    assert second["--optimization-profile"] == ["1"], "the first is for smaller pictures"
    assert second["--agileir-psnr"] == ["60"] and "--agileir-images" not in second
    assert comparison.environment == {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    assert plan_comparison(model.path, against=engine(model, plan, "tensorrt"), images=[photos]).environment == {}


def test_an_engine_that_does_not_take_the_pictures(model: OnnxArtifact, tmp_path: Path, photos: Path) -> None:
    plan = engine(model, tmp_path / "engine.plan")
    with pytest.raises(InputError, match=r"8x12, 8x20 when padded, the profiles 1x4x4\.\.1x8x8; 1x12x12"):
        plan_comparison(model.path, against=plan, images=[photos], size=(8, 40))
    with pytest.raises(InputError, match="is an engine of rtx"):
        plan_comparison(model.path, "trt", against=plan, images=[photos])


def test_a_file_without_the_usual_suffix_is_named_onnx(model: OnnxArtifact, tmp_path: Path, photos: Path) -> None:
    odd = tmp_path / "model.bin"
    odd.write_bytes(model.path.read_bytes())
    (command,) = plan_comparison(odd, "trt", images=[photos]).commands
    assert options(command)["--model-type"] == ["onnx"]


def test_a_model_that_chooses_its_keys_gets_the_ladders_lower_floor(folder: Path, photos: Path) -> None:
    semantic = networks.exported(folder, "semanir")
    assert plan_comparison(semantic.path, "trt", images=[photos]).floor == DICTIONARY_FLOORS["float32"]


def test_what_cannot_be_compared(model: OnnxArtifact, folder: Path, tmp_path: Path, photos: Path) -> None:
    other = networks.exported(folder, "semanir").path
    static = export_onnx(networks.shared("swinir-light"), tmp_path / "static.onnx", static=(16, 16)).path
    cases: list[tuple[str, dict[str, Any], str]] = [
        (str(model.path), {}, "nothing to compare"),
        (str(model.path), {"against": other}, "different networks: scale is 2 and 3"),
        (str(model.path), {"target": "trt", "floor": float("nan")}, "NaN"),
        (str(model.path), {"against": static, "images": [photos]}, "was exported for 16x16 pixels"),
        (str(tmp_path / "none.onnx"), {"target": "trt"}, "does not exist"),
        (str(model.path), {"target": "trt", "images": [tmp_path / "none"]}, "no file or folder"),
    ]
    for source, keywords, message in cases:
        with pytest.raises(AgileIRError, match=message) as caught:
            plan_comparison(source, **keywords)
        assert isinstance(caught.value, InputError)


def test_bfloat16_is_for_tensorrt(model: OnnxArtifact, tmp_path: Path, photos: Path) -> None:
    """ONNX Runtime refuses such a file, in polygraphy with a traceback."""
    path = half_file(model, tmp_path / "bfloat16.onnx", "bfloat16").path
    assert plan_comparison(model.path, "trt", against=path, images=[photos]).floor == FLOORS["bfloat16"]
    for source, against in ((path, None), (model.path, path), (path, model.path)):
        with pytest.raises(Unsupported, match="under ONNX Runtime"):
            plan_comparison(source, None if against else "trt", against=against, images=[photos])


def test_a_script_quotes_what_a_shell_would_take_apart() -> None:
    odd = "a b'c$d\"e;f"
    script = Comparison(1.0, (("polygraphy", "run", odd),), {"NAME": odd}).script()
    assert shlex.split(script.splitlines()[-1]) == [f"NAME={odd}", "polygraphy", "run", odd]


def test_a_script_runs_anywhere_and_tells_nobody(
    model: OnnxArtifact, samples: list[tuple[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are named from the root, whatever the folder it was made in; polygraphy is that of this environment."""
    assert model.path is not None
    monkeypatch.chdir(model.path.parent)
    relative = Path(os.path.relpath(samples[0][1]))
    comparison = plan_comparison(model.path.name, "trt", images=[relative])
    (command,) = comparison.commands
    assert options(command)[""][2] == str(model.path.absolute())
    assert options(command)["--agileir-images"] == [str(Path.cwd() / relative)]
    lines = comparison.script().splitlines()
    assert "export ORT_DISABLE_TELEMETRY=1" in lines
    shell = subprocess.run(
        ["sh", "-c", "\n".join(lines[:-1]) + "\ncommand -v polygraphy"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert Path(shell.stdout.strip()).parent == Path(sys.executable).parent


def half_against_float(
    model: OnnxArtifact, images: list[Path], place: Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Converts a file, and runs the script that compares both under ONNX Runtime, in a shell."""
    half = half_file(model, place / "half.onnx", "float16")
    comparison = plan_comparison(model.path, against=half.path, images=images, **options)
    temporary = place / "temporary"
    temporary.mkdir(exist_ok=True)
    installed = place / "installed"
    if not installed.exists():
        polygraphy_tool.install(installed)
    answer = polygraphy_tool.shell(installed, comparison.script(), place, TMPDIR=str(temporary))
    assert not [path for path in temporary.iterdir() if path.name.startswith("tmp.")], "the outputs are removed"
    return answer


def test_half_against_float_on_pictures(model: OnnxArtifact, samples: list[tuple[str, Path]], tmp_path: Path) -> None:
    answer = half_against_float(model, [path for _, path in samples], tmp_path)
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.count("PASSED | Output: 'output' | PSNR (peak 1.0)") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["agileir_tiny_x2", "agileir_tiny_x4", "semanir_tiny_dn25"])
def test_half_against_float_of_a_trained_model(name: str, data_dir: Path, tmp_path: Path) -> None:
    """The floor of half precision is met on photographs, that of single precision is not."""
    model = export_onnx(load_model(name), tmp_path / "model.onnx")
    photographs = sorted((data_dir / "real" / "Kodak24").glob("*.png"))[:2]
    assert photographs
    answer = half_against_float(model, photographs, tmp_path, size=(96, 128))
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.count("PASSED | Output: 'output' | PSNR (peak 1.0)") == len(photographs)
    missed = half_against_float(model, photographs, tmp_path, floor=FLOORS["float32"], size=(96, 128))
    assert missed.returncode == 1
    assert missed.stdout.count("FAILED | Output: 'output' | PSNR (peak 1.0)") == len(photographs)
