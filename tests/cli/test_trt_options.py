"""The verb ``trt``: what depends on options alone is refused before a model is exported or a file is converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agileir_export import calib, export, models
from agileir_export.export import precision

from ..engines.rtx_builds import needs_rtx
from .command import PRESET, assert_refused, run, written

MODEL, FILE = (PRESET, "--random-weights", "0"), ("{onnx}",)
RTX, TENSORRT = ("--target", "rtx"), ("--target", "tensorrt")
FROM_64 = ("--min", "64x64", "--opt", "64x64", "--max")
RECIPE = ("--int8", "--recipe")

REFUSED = [
    (2, (*RTX, "--bf16"), "one precision, not --fp16 and --bf16"),
    (2, (*RTX, "--psnr-budget", "0.2"), "--psnr-budget is for calibrating"),
    (2, (*RTX, "--min", "64x64"), "needs --min, --opt and --max; given are 1 x --min, 0 x --opt, 0 x --max"),
    (2, (*RTX, *FROM_64, "64x64", *FROM_64[:4]), "given are 2 x --min, 2 x --opt, 1 x --max"),
    (2, (*RTX, *FROM_64, "32x64"), "no order in its rows: min 64, opt 64, max 32"),
    (2, (*RTX, *FROM_64, "64x32"), "no order in its columns: min 64, opt 64, max 32"),
    (2, (*RTX, *FROM_64, "64x64", "--min", "2x8x8", "--opt", "8x8", "--max", "8x8"), "no order in its batch: min 2"),
    (2, (*RTX, *FROM_64, "64"), "'64' is not a size"),
    (2, (*RTX, "--profile", "8k"), "'8k' is not a profile"),
    (2, (*RTX, "--static", "8x8", "--profile", "tiles"), "names the only size"),
    (2, (*RTX, "--static", "8x8", *FROM_64, "64x64"), "names the only size"),
    (2, (*RTX, "--optimization-level", "9"), r"level 9 is not in 0\.\.5"),
    (2, (*TENSORRT, "--optimization-level", "-1"), r"level -1 is not in 0\.\.5"),
    (2, (*RTX, "--workspace", "0"), "at least one byte"),
    (2, (*RTX, "--gpu", "sm86,sm89,sm86"), "named twice"),
    (2, (*TENSORRT, "--timing-cache", "gone/t"), "there is no folder gone"),
    (3, (*TENSORRT, "--gpu", "sm86"), "builds for the GPU of the machine, not for sm86"),
    (3, (*RTX, "--attention", "plugin", "--plugin-form", "quick"), "no plugins of the form 'quick'"),
    (2, (*RTX, "--attention", "decomposed", "--plugin-form", "python"), "--plugin-form is for plugins"),
    (2, (*RTX, "--fuse", "none", "--plugin-form", "python"), "--plugin-form is for plugins"),
    (2, (*RTX, "--fuse", "none", "--attention", "plugin"), "--fuse none and --attention plugin contradict each other"),
    (2, (*RTX, "--fuse", "blocks", "--attention", "decomposed"), "--fuse blocks and --attention decomposed contradict"),
    (2, (*RTX, "--fuse", "attention", "--attention", "decomposed"), "runs the attention operators as plugins"),
    (3, (*RTX, "--version-compatible"), "no version-compatible engines"),
    (3, (*RTX, "--hardware-compatible", "ampere-plus"), "no compatibility levels"),
    (3, (*RTX, "--timing-cache", "t"), "no timing cache"),
    (2, (*RTX, "--profile", "tiles", "--profile", "tiles"), r"1x64x64\.\.1x256x256\.\.4x512x512 is given twice"),
    (2, (*RTX, *FROM_64, "64x64", *FROM_64, "64x64"), "1x64x64 is given twice"),
]
"""With ``--fp16``."""

REFUSED_PRECISIONS = [
    (3, ("--bf16", "--gpu", "sm86,sm75"), r"sm75 cannot compute in bfloat16.*--fp16"),
    (3, ("--fp32", "--gpu", "sm75"), r"no float32 matrix products for Turing \(sm75\).*--fp16"),
    (3, ("--tf32", "--gpu", "sm75"), r"no float32 matrix products for Turing \(sm75\).*--fp16"),
    (2, (*RECIPE, "r.json", "--images", "photos"), "leaves nothing for --images"),
    (2, (*RECIPE, "none.json"), r"Cannot read the recipe none\.json"),
    (2, (*RECIPE, "{broken}"), "is not a recipe"),
    (2, ("--int8", "--psnr-budget", "-1"), "at least 0 dB and finite"),
    *((2, (*given, "--no-rescale"), "--no-rescale is for --fp16 only") for given in ((), ("--bf16",), ("--int8",))),
    (2, ("--int8", "--images", "none.png"), r"no file or folder none\.png"),
    (2, ("--int8", "--ground-truth", "none"), "no file or folder none"),
]

WORK = {export: ("export_onnx",), models: ("load_model",), precision: ("to_precision",), calib: ("calibrate",)}
"""What takes long, by the room it is in."""


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The work that was begun, by name."""
    names: list[str] = []
    for room, functions in WORK.items():
        for name in functions:
            real = getattr(room, name)

            def counted(*arguments: Any, real: Any = real, name: str = name, **keywords: Any) -> Any:
                names.append(name)
                return real(*arguments, **keywords)

            monkeypatch.setattr(room, name, counted)
    return names


ASKED = [
    *((code, (*s, "--fp16", *given), told) for s in (MODEL, FILE) for code, given, told in REFUSED),
    *((code, (*s, *RTX, *given), told) for s in (MODEL, FILE) for code, given, told in REFUSED_PRECISIONS),
    (3, (*MODEL, *RTX, "--gpu", "sm75"), "no float32 matrix products"),  # float32 unless told otherwise
]


@pytest.mark.parametrize(("code", "given", "message"), ASKED, ids=[" ".join(given) for _, given, _ in ASKED])
def test_options_that_cannot_be(
    code: int, given: tuple[str, ...], message: str, files: dict[str, Path], begun: list[str]
) -> None:
    arguments = ("trt", *(argument.format_map(files) for argument in given), "-o", "a.plan")
    assert_refused(code, message, *arguments)
    assert run(*arguments, "--dry-run").exit_code == code
    assert (begun, written()) == ([], [])


@needs_rtx
@pytest.mark.parametrize("source", [MODEL, FILE], ids=["model", "file"])
def test_a_gpu_that_the_target_does_not_know(source: tuple[str, ...], files: dict[str, Path], begun: list[str]) -> None:
    arguments = [argument.format_map(files) for argument in source]
    result = run("trt", *arguments, *RTX, "--fp16", "--gpu", "sm90", "-o", "a.plan")
    assert result.exit_code == 2
    assert "knows no GPU 'sm90'" in result.stderr
    assert (begun, written()) == ([], [])


def test_work_that_is_begun_is_seen(begun: list[str]) -> None:
    run("trt", *MODEL, *RTX, "--fp16", "--static", "8x8", "-o", "a.plan", "--dry-run")
    assert begun == ["load_model", "export_onnx", "to_precision"]
    begun.clear()
    run("trt", *MODEL, *RTX, *FROM_64, "66x64", "-o", "a.plan", "--dry-run")
    assert begun == ["load_model", "export_onnx"], "only the file tells what sides must be multiples of"
