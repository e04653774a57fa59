"""What polygraphy calls of us, called by hand."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from polygraphy.exception import PolygraphyException

from agileir_export.errors import EnvironmentProblem, ImageError, OnnxFileError
from agileir_export.images.files import Image, read_image, write_image
from agileir_export.parity.polygraphy import FixedPeakPsnr, Pictures, WithPlugins, WithPythonPlugins
from agileir_export.plugins.engine_files import engine_form

from ..export import networks

Array = np.ndarray[Any, Any]


def result(**outputs: Array) -> OrderedDict[str, Array]:
    return OrderedDict(outputs)


def picture(*shape: int, scale: float = 1.0) -> Array:
    return networks.images(*shape) * np.float32(scale)


def test_the_peak_is_one_however_dark_the_picture() -> None:
    """An offset of 0.01 is 40 dB. polygraphy's own PSNR takes the largest value, 0.1, for the peak: 20 dB."""
    from polygraphy import comparator

    dark = picture(1, 3, 8, 8, scale=0.1)
    first, second = (comparator.IterationResult(result(output=image)) for image in (dark, dark + np.float32(0.01)))
    assert FixedPeakPsnr(39.99)(first, second) == {"output": True}
    assert FixedPeakPsnr(40.01)(first, second) == {"output": False}
    if hasattr(comparator, "PsnrCompareFunc"):  # since polygraphy 0.53
        assert not comparator.PsnrCompareFunc(psnr_threshold=25)(first, second)["output"]


def test_values_outside_of_a_picture_do_not_count() -> None:
    first, second = result(output=np.full((1, 3, 4, 4), 1.2)), result(output=np.full((1, 3, 4, 4), 1.7))
    assert FixedPeakPsnr(200)(first, second) == {"output": True}


def test_the_worst_image_of_a_batch_decides() -> None:
    first = picture(2, 3, 8, 8, scale=0.5)
    second = first.copy()
    second[1] += np.float32(0.1)
    assert FixedPeakPsnr(21)(result(output=first), result(output=second)) == {"output": False}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_fails_any_floor(bad: float) -> None:
    first = picture(1, 3, 4, 4)
    second = first.copy()
    second[0, 0, 0, 0] = bad
    assert FixedPeakPsnr(-1000)(result(output=first), result(output=second)) == {"output": False}
    assert FixedPeakPsnr(-1000)(result(output=second), result(output=second)) == {"output": False}


def test_outputs_that_cannot_be_compared_fail() -> None:
    judge = FixedPeakPsnr(10)
    first = result(output=picture(1, 3, 4, 4))
    assert judge(first, result(other=picture(1, 3, 4, 4))) == {"output": False}
    assert judge(first, result(output=picture(1, 3, 4, 5))) == {"output": False}
    assert judge(result(output=np.zeros(3)), result(output=np.zeros(3))) == {"output": False}


def test_pictures_are_padded_and_in_the_models_channels(folder: Path, tmp_path: Path) -> None:
    grey = networks.exported(folder, "semanir-unet")
    multiple = grey.spec.pad_multiple
    for name, rows in (("b.png", multiple + 1), ("a.png", multiple)):
        write_image(tmp_path / name, Image(networks.images(1, 3, rows, 5)[0]))
    pictures = Pictures(grey.path, [tmp_path])
    feeds = list(pictures)
    assert len(pictures) == len(feeds) == 2
    assert [set(feed) for feed in feeds] == [{"input"}] * 2
    shapes = [feed["input"].shape for feed in feeds]
    assert shapes == [(1, 1, multiple, multiple), (1, 1, 2 * multiple, multiple)], "in the order of their names"
    first = feeds[0]["input"]
    assert first.dtype == np.float32 and first.min() >= 0 and first.max() <= 1
    red, green, blue = read_image(tmp_path / "a.png").pixels
    np.testing.assert_allclose(first[0, 0, :, :5], 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-6)
    assert [feed["input"].tobytes() for feed in pictures] == [feed["input"].tobytes() for feed in feeds]


def test_pictures_are_cut_in_the_middle(folder: Path, tmp_path: Path) -> None:
    model = networks.exported(folder, "swinir-light")
    pixels = networks.images(1, 3, 12, 20)[0]
    write_image(tmp_path / "a.png", Image(pixels))
    (feed,) = Pictures(model.path, [tmp_path], size=(4, 8))
    np.testing.assert_allclose(feed["input"][0], pixels[:, 4:8, 6:14], atol=0.5 / 255 + 1e-6)


def test_the_packaged_samples_are_the_default(folder: Path) -> None:
    pictures = Pictures(networks.exported(folder, "swinir-light").path)
    assert [file.stem for file in pictures.files] == ["astronaut", "chelsea", "coffee", "rocket"]


def test_bad_pictures(folder: Path, tmp_path: Path) -> None:
    model = networks.exported(folder, "swinir-light").path
    with pytest.raises(OnnxFileError, match="does not exist"):
        Pictures(tmp_path / "none.onnx")
    with pytest.raises(ImageError, match="no image in it"):
        Pictures(model, [tmp_path])
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(PolygraphyException, match=r"Cannot read .*a\.png"):
        list(Pictures(model, [tmp_path]))


def test_plugins_are_registered_and_given_the_file_in_their_form(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import agileir_export.plugins

    pytest.importorskip("triton", reason="Triton is not installed")
    order: list[str] = []
    monkeypatch.setattr(agileir_export.plugins, "register_tensorrt", lambda: order.append("register"))
    path = networks.exported(folder, "swinir-light").path
    expected = engine_form(onnx.load(path), path.parent)
    loader = WithPlugins(str(path))
    made = Path(loader())
    assert order == ["register"] and made.name == path.name and made != path
    assert onnx.load(made) == expected
    given = WithPlugins(lambda *arguments: path.read_bytes())(1, 2)
    assert onnx.load_from_string(given) == expected


def test_without_plugins_the_run_goes_on_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import agileir_export.plugins

    def refuse() -> None:
        raise EnvironmentProblem("TensorRT 10.3 is too old for the plugins", why="It is.")

    monkeypatch.setattr(agileir_export.plugins, "register_tensorrt", refuse)
    assert WithPlugins("model.onnx")() == "model.onnx"
    assert "function bodies are used instead" in capsys.readouterr().out


def test_an_engine_that_needs_our_plugins_registers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import agileir_export.engines.targets
    import agileir_export.plugins

    order: list[object] = []
    monkeypatch.setattr(agileir_export.engines.targets, "load_target", lambda target: target.name)
    monkeypatch.setattr(agileir_export.plugins, "register_python_plugins", order.append)
    assert WithPythonPlugins(lambda: order.append("read") or b"a plan", "rtx")() == b"a plan"
    assert order == ["rtx", "read"]

    def refuse(trt: object) -> None:
        raise EnvironmentProblem("another kind of plugin is registered")

    monkeypatch.setattr(agileir_export.plugins, "register_python_plugins", refuse)
    with pytest.raises(PolygraphyException, match="another kind"):
        WithPythonPlugins(lambda: b"a plan", "rtx")()


def test_the_entry_point_loads_nothing_heavy() -> None:
    """polygraphy loads it in every run of every tool."""
    heavy = ("torch", "onnx", "onnxruntime", "onnxscript", "tensorrt", "tensorrt_rtx_bindings", "triton")
    program = (
        "import sys; from agileir_export.parity.polygraphy import argument_groups; argument_groups(); "
        f"print(*sorted(set({heavy!r}) & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
