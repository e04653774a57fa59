"""The verb ``trt``: engines of every family and precision, and what is refused."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from agileir_export import calib
from agileir_export.calib import Recipe, read_recipe
from agileir_export.engines.artifact import read_engine
from agileir_export.engines.audit.verdict import Audit
from agileir_export.engines.doctor import TargetVerdict
from agileir_export.engines.targets import TARGETS, Target
from agileir_export.errors import EnvironmentProblem
from agileir_export.export import read_artifact
from agileir_export.models import packaged_models
from agileir_export.plugins.kernel_records import LAYOUT

from ..engines.builds import described, offer_tensorrt, product
from ..engines.rtx_builds import needs_rtx
from ..export import networks
from ..export.written import half_file
from .command import PRESET, assert_refused, document, run, written

SMALL = ("--static", "8x8", "--gpu", "sm86", "--target", "rtx")
"""The quickest build: one size, one GPU."""

PRECISIONS = {"--fp16": "float16", "--bf16": "bfloat16", "--fp32": "float32"}
FAMILIES = {"agileir": "agileir", "semanir": "semanir", "swinir": "swinir-light"}


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="session")
def half(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exported = networks.exported(folder, "swinir-light")
    return half_file(exported, tmp_path_factory.mktemp("half") / "half.onnx", "float16").path


@pytest.fixture(scope="session")
def product_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One product in float16, which builds at once."""
    return described(product(tmp_path_factory.mktemp("product") / "product.onnx", "FLOAT16")).path


def products(told: dict[str, Any]) -> dict[str, set[str]]:
    """Number types of the products by kind, as the sidecar tells them."""
    kinds: dict[str, set[str]] = {}
    for share in told["audit"]["shares"]:
        if share["kind"] in ("gemm", "convolution", "attention"):
            kinds.setdefault(share["kind"], set()).add(share["precision"])
    return kinds


# ---- engines ----


@needs_rtx
@pytest.mark.parametrize(("option", "precision"), PRECISIONS.items())
@pytest.mark.parametrize(
    "family",
    [pytest.param("agileir", marks=pytest.mark.slow), pytest.param("semanir", marks=pytest.mark.slow), "swinir"],
)
def test_every_family_in_every_precision(family: str, option: str, precision: str, folder: Path) -> None:
    source = networks.exported(folder, FAMILIES[family]).path
    result = run("trt", source, option, *SMALL, "-o", "a.plan", "--json")
    assert result.exit_code == 0, result.stderr
    told = document(result)
    assert (told["precision"], told["gpus"], told["audit"]["passed"]) == (precision, ["sm86"], True)
    found = products(told)
    assert found["gemm"] | found["convolution"] <= {precision} | ({"float32"} if family == "semanir" else set())
    assert precision in found["gemm"] & found["convolution"]
    assert json.loads(Path("a.plan.json").read_text()) == {key: told[key] for key in told if key != "path"}
    assert read_engine("a.plan").spec.family == family
    assert written() == ["a.plan", "a.plan.json"]


@needs_rtx
def test_a_model_becomes_an_engine_and_its_onnx_file_is_kept() -> None:
    asked = ("trt", PRESET, "--random-weights", 0, "--fp16", *SMALL, "-o", "a.plan", "--keep-onnx", "a.onnx")
    result = run(*asked)
    assert result.exit_code == 0, result.stderr
    assert "100 %" in result.stdout
    assert "Wrote a.plan and a.plan.json" in result.stderr
    assert "verify a.plan" in result.stderr
    engine, kept = read_engine("a.plan"), read_artifact("a.onnx")
    assert engine.facts["sha256"] == kept.sha256
    assert (kept.precision, kept.fixed_sizes) == ("float16", {"batch": 1, "height": 8, "width": 8})
    assert engine.provenance["model"] == PRESET
    again = run(*asked)
    assert again.exit_code == 0
    assert "from the cache" in again.stderr


@needs_rtx
def test_an_engine_of_rtx_with_plugins(half: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    result = run("trt", half, *SMALL, "--attention", "plugin", "-o", "a.plan", "--json")
    assert result.exit_code == 0, result.stderr
    told, layers = document(result), sum(read_artifact(half).operators.values())
    assert told["plugins"] == {"form": "python", "kernels_for": ["sm_80"], "layout": LAYOUT, "layers": layers}
    assert "runs with agileir-export only. Other programs take" in " ".join(result.stderr.split())
    assert document(run("info", "a.plan", "--json"))["plugins"] == told["plugins"]
    plain = run("trt", half, *SMALL, "-o", "b.plan", "--json")
    assert document(plain)["plugins"] == {} and "agileir-export only" not in plain.stderr
    listed = run("cache", "explain", "a.plan", "b.plan").stdout
    assert "use_plugins" in listed and "plugin_form" in listed


@needs_rtx
def test_an_engine_of_rtx_with_half_blocks(half: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    result = run("trt", half, *SMALL, "--fuse", "blocks", "-o", "a.plan", "--json")
    assert result.exit_code == 0, result.stderr
    told = document(result)
    blocks = 2 * sum(read_artifact(half).operators.values())  # each with its attention inside, and what follows
    assert told["plugins"] == {"form": "python", "kernels_for": ["sm_80"], "layout": LAYOUT, "layers": blocks}
    assert told["build"]["half_blocks"] == blocks
    assert "No engine with half blocks has run on a GPU yet" in " ".join(result.stderr.split())
    assert (told["facts"]["fuse_blocks"], told["facts"]["use_plugins"]) == (True, True)
    kinds = {share["kind"]: share["count"] for share in told["audit"]["shares"]}
    assert kinds["plugin"] == blocks and told["audit"]["passed"]
    listed = run("info", "a.plan").stdout
    assert "plugins.kernels_for" in listed and "sm_80" in listed and "build.half_blocks" in listed
    again = run("trt", half, *SMALL, "--fuse", "blocks", "-o", "b.plan", "--json")
    assert "from the cache" in again.stderr and document(again)["build"]["half_blocks"] == blocks


@needs_rtx
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), (False, False)),
        (("--attention", "plugin"), (True, False)),
        (("--fuse", "attention"), (True, False)),
        (("--fuse", "attention", "--attention", "plugin"), (True, False)),
        (("--fuse", "blocks"), (True, True)),
        (("--fuse", "blocks", "--attention", "plugin", "--plugin-form", "python"), (True, True)),
        (("--fuse", "none"), (False, False)),
        (("--fuse", "none", "--attention", "decomposed"), (False, False)),
        (("--fuse", "blocks", "--gpu", "sm75,sm86"), (False, False)),
    ],
)
def test_what_is_fused(given: tuple[str, ...], expected: tuple[bool, bool], half: Path) -> None:
    result = run("trt", half, "--target", "rtx", "--static", "8x8", *given, "-o", "a.plan", "--dry-run", "--json")
    told = document(result)["request"]
    assert (told["use_plugins"], told["fuse_blocks"]) == expected
    assert ("no plugins for sm75" in " ".join(result.stderr.split())) == ("sm75,sm86" in given)


@needs_rtx
def test_turing_gets_no_plugins_and_that_is_said(half: Path) -> None:
    turing = ("--target", "rtx", "--gpu", "sm75,sm86", "--static", "8x8", "--attention", "plugin", "--dry-run")
    result = run("trt", half, *turing, "-o", "a.plan", "--json")
    assert result.exit_code == 0, result.stderr
    assert "no plugins for sm75" in " ".join(result.stderr.split())
    assert document(result)["request"]["use_plugins"] is False


@needs_rtx
def test_a_converted_file_keeps_its_precision(product_file: Path) -> None:
    sizes = ("--min", "8x8", "--opt", "8x12", "--max", "2x16x16", "--profile", "360p")
    given = (*sizes, "--target", "rtx", "--gpu", "sm86,sm89", "--no-cache")
    result = run("trt", product_file, *given, "-o", "a.plan", "--json")
    assert result.exit_code == 0, result.stderr
    told = document(result)
    assert (told["precision"], told["gpus"]) == ("float16", ["sm86", "sm89"])
    assert [profile["max"] for profile in told["profiles"]] == [[1, 360, 640], [2, 16, 16]]
    assert read_engine("a.plan").build["cached"] is False


@needs_rtx
def test_tf32_is_an_engine_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    single = described(product(tmp_path_factory.mktemp("single") / "single.onnx")).path
    facts = []
    for option in ("--tf32", "--fp32"):
        result = run("trt", single, option, *SMALL, "-o", "a.plan", "--json")
        assert result.exit_code == 0, result.stderr
        facts.append(document(result)["facts"])
    assert [fact["tf32"] for fact in facts] == [True, False]


@needs_rtx
@pytest.mark.slow
def test_a_float_file_is_calibrated(folder: Path) -> None:
    source = networks.exported(folder, "swinir-light").path
    result = run(
        "trt", source, "--int8", "--psnr-budget", "50", *SMALL, "-o", "a.plan", "--keep-onnx", "a.onnx", "--json"
    )
    assert result.exit_code == 0, result.stderr
    told = document(result)
    assert told["precision"] == read_artifact("a.onnx").precision == "int8"
    assert "int8" in products(told)["gemm"]


@needs_rtx
def test_a_recipe_is_read_once(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is applied is what was looked at, and what the cache goes by."""
    strange = Recipe("another", "0" * 64, "mse", None, 1, "0" * 64, 0.1, False, (), {}, ())
    Path("r.json").write_text(strange.text())
    read: list[Path] = []
    monkeypatch.setattr(calib, "read_recipe", lambda path: read.append(path) or read_recipe(path))
    result = run("trt", files["onnx"], *HERE, "--int8", "--recipe", "r.json", "--no-cache")
    assert result.exit_code == 2
    assert "made for other weights of another" in " ".join(result.stderr.split())
    assert read == [Path("r.json")]


@needs_rtx
def test_an_engine_that_cannot_be_written_leaves_no_onnx_file(
    product_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        if mode == "xb" and path.parent.name == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *arguments, **keywords)

    Path("full").mkdir()
    monkeypatch.setattr(Path, "open", full)
    result = run("trt", product_file, *SMALL, "-o", "full/a.plan", "--keep-onnx", "a.onnx")
    assert result.exit_code == 2
    assert re.search(r"Cannot write full/a\.plan.*No space left", " ".join(result.stderr.split()))
    assert (written(), list(Path("full").iterdir())) == (["full"], [])


def test_a_timing_cache_that_nothing_was_timed_for(half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_tensorrt(tmp_path / "modules", monkeypatch)
    shutil.copy(half, "sound.onnx")  # the stand-in refuses others
    how = ("--target", "tensorrt", "--attention", "decomposed", "--static", "8x8", "--timing-cache", "t")
    asked = ("trt", "sound.onnx", *how, "-o", "a.plan")
    first = run(*asked)
    assert first.exit_code == 0, first.stderr
    assert "not updated" not in first.stderr
    Path("t").unlink()
    second = run(*asked)
    assert second.exit_code == 0, second.stderr
    assert "from the cache" in second.stderr
    assert "t was not updated: no kernel was timed" in second.stderr
    assert not Path("t").exists()


@needs_rtx
def test_an_audit_that_fails(product_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Audit("float16", (), problems=("2 of 9 gemm kernels compute in float32, not in float16: here, there",))
    monkeypatch.setattr("agileir_export.engines.building.engine.judge", lambda *_, **__: failed)
    result = run("trt", product_file, *SMALL, "-o", "a.plan")
    assert result.exit_code == 1
    assert "2 of 9 gemm kernels compute in float32" in result.stderr
    assert written() == []
    kept = run("trt", product_file, *SMALL, "-o", "a.plan", "--keep-failed", "--json")
    assert kept.exit_code == 1
    assert "a.plan was written for a look at it" in kept.stderr
    assert document(kept)["audit"]["passed"] is False
    assert read_engine("a.plan").audit["problems"] == list(failed.problems)


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("option", PRECISIONS)
@pytest.mark.parametrize("model", packaged_models())
def test_packaged_models_with_free_sizes(model: str, option: str) -> None:
    gpus = "sm86,sm89,sm120" if option == "--fp16" else "sm86"
    result = run("trt", model, option, "--target", "rtx", "--gpu", gpus, "-o", "a.plan", "--json")
    assert result.exit_code == 0, result.stderr
    told = document(result)
    assert told["audit"]["passed"]
    assert (told["profiles"][0]["min"], told["profiles"][0]["max"]) == ([1, 64, 64], [1, 512, 512])


# ---- what is shown before ----


def test_a_dry_run_builds_nothing(half: Path, own_cache: Path) -> None:
    result = run("trt", half, "--target", "rtx", "-o", "a.plan", "--dry-run")
    works = TARGETS["rtx"].verdict().works
    assert result.exit_code == (0 if works else 4)
    for word in ("TensorRT-RTX", "float16", "1x64x64..1x256x256..1x512x512", "sm86, sm89, sm120", "function bodies"):
        assert word in result.stdout
    assert written() == []
    assert list(own_cache.iterdir()) == []


def test_a_dry_run_says_what_is_missing(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = TargetVerdict("tensorrt build", works=False, why_not="tensorrt is away", fix="pip install it")
    monkeypatch.setattr(Target, "verdict", lambda self, plugins=False: missing)
    result = run("trt", half, "--target", "tensorrt", "-o", "a.plan", "--dry-run", "--json")
    assert result.exit_code == 4
    told = document(result)
    assert (told["can_be_built_here"], told["why_not"], told["fix"]) == (False, "tensorrt is away", "pip install it")
    assert told["request"]["precision"] == "float16"
    assert "TensorRT cannot build here: tensorrt is away" in result.stderr
    assert "pip install it" in result.stderr


def test_a_machine_that_can_build_nothing(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Target:
        raise EnvironmentProblem("No engine can be built on this machine.")

    monkeypatch.setattr("agileir_export.engines.targets.choose_target", nothing)
    result = run("trt", half, "-o", "a.plan")
    assert (result.exit_code, written()) == (4, [])


# ---- what is refused ----

HERE = ("--target", "rtx", "-o", "a.plan")

REFUSED = [
    (2, ("none.onnx", *HERE), r"none\.onnx: the file does not exist"),
    (2, ("{broken}", *HERE), "not an ONNX file"),
    (2, ("{foreign}", *HERE), "not one of ours"),
    (2, ("{onnx}", *HERE, "--top-k", "3"), "decided at export"),
    (2, ("{onnx}", *HERE, "--model-attention", "bypassed"), "decided at export"),
    (2, ("{onnx}", "--target", "rtx", "-o", "a.bin"), r"a\.bin does not end in \.plan"),
    (2, ("{onnx}", "--target", "rtx", "-o", "gone/a.plan"), "there is no folder gone"),
    (2, ("{onnx}", *HERE, "--keep-onnx", "gone/a.onnx"), "there is no folder gone"),
    (2, ("{onnx}", *HERE, "--keep-onnx", "a.bin"), r"a\.bin does not end in \.onnx"),
    (2, ("{onnx}", *HERE, "--keep-onnx", "{onnx}"), "would replace what is read"),
    (2, ("{onnx}", *HERE, "--min", "64x64", "--opt", "64x64", "--max", "66x64"), "66 rows, which is no multiple of 4"),
]

REFUSED_BY_RTX = [  # the target is looked at before a source is exported or calibrated
    (2, ("swinir_trail_x2", *HERE), "No model preset is named"),
    (2, ("{text}", *HERE), "cannot be read as a checkpoint"),
    (2, (PRESET, *HERE), "no trained weights"),
    *((2, ("{half}", *HERE, f"--{precision}"), "in float16 already") for precision in ("bf16", "fp32", "tf32", "int8")),
    (2, ("{half}", *HERE, "--fp16", "--no-rescale"), r"half\.onnx is in float16 already.*Leave --no-rescale out"),
    (2, ("{onnx}", *HERE, "--gpu", "sm90"), "knows no GPU 'sm90'"),
    (3, ("{onnx}", *HERE, "--static", "8x8", "--gpu", "sm75"), r"no float32 matrix products.*--fp16"),
]


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        *(pytest.param(*case, id=" ".join(case[1])) for case in REFUSED),
        *(pytest.param(*case, id=" ".join(case[1]), marks=needs_rtx) for case in REFUSED_BY_RTX),
    ],
)
def test_what_is_refused(
    code: int, arguments: tuple[str, ...], message: str, files: dict[str, Path], half: Path
) -> None:
    named = {**files, "half": half}
    assert_refused(code, message, "trt", *(argument.format_map(named) for argument in arguments))


@needs_rtx
def test_an_error_does_not_name_a_folder_that_is_gone(folder: Path) -> None:
    """SemanIR chooses its keys in float32, which Turing's products are not."""
    source = networks.exported(folder, "semanir").path
    result = run("trt", source, *HERE, "--fp16", "--static", "8x8", "--gpu", "sm75")
    assert result.exit_code == 3
    assert "no float32 matrix products" in result.stderr
    assert "(float16)" in result.stderr and "/agileir-" not in result.stderr


@pytest.mark.parametrize("amount", ["4", "4MiB", "0.5 GB", "512kib", "1.25GiB", "7B"])
def test_amounts_of_memory(amount: str, half: Path) -> None:
    result = run("trt", half, *HERE, "--workspace", amount, "--dry-run", "--json")
    bytes_ = {"4": 4, "4MiB": 4 << 20, "0.5 GB": 500_000_000, "512kib": 512 << 10, "1.25GiB": 5 << 28, "7B": 7}
    assert document(result)["request"]["workspace_bytes"] == bytes_[amount]


@pytest.mark.parametrize("amount", ["GiB", "-1", "4 apples", "4TiB", "1e3", "٤"])
def test_amounts_that_are_none(amount: str, half: Path) -> None:
    result = run("trt", half, *HERE, "--workspace", amount)
    assert result.exit_code == 2
    assert "is not an amount of memory" in result.stderr


def test_a_read_only_folder(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("locked").mkdir()
    monkeypatch.setattr("agileir_export.images.files.os.access", lambda path, mode: Path(path).name != "locked")
    result = run("trt", half, "--target", "rtx", "-o", "locked/a.plan")
    assert result.exit_code == 2
    assert "read-only" in result.stderr
