"""What builders and runtimes say when they fail, and the errors that become of it."""

from __future__ import annotations

import re
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from agileir_export.engines.building import process as build_process
from agileir_export.engines.building.process import build_in_process
from agileir_export.engines.failures import Failure, explain_build, explain_crash, explain_load
from agileir_export.engines.profiles import Profile
from agileir_export.errors import (
    AgileIRError,
    EnvironmentProblem,
    InputError,
    InternalError,
    OnnxFileError,
    OutputError,
    Unsupported,
)

from .builds import ONE, offer_tensorrt, product, request, save
from .rtx_builds import needs_rtx

BEYOND = "rows = Constant<value_ints=[1, 3, -1]>() flat = Reshape(input, rows) k = Constant<value_ints=[4000]>() "


def refused(kind: type[AgileIRError], path: Path, what: str = "", fix: str = "", **changes: Any) -> AgileIRError:
    """The error of a build, of this kind alone, whose text and way out match."""
    with pytest.raises(AgileIRError) as caught:
        build_in_process(request(path, **changes))
    assert list(Path(tempfile.gettempdir()).glob("agileir-build-*")) == []
    assert type(caught.value) is kind
    assert re.search(what, caught.value.what) and fix in caught.value.fix
    return caught.value


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files of these builds only."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


# ---- TensorRT-RTX, for real ----

GRAPHS = {
    "NonZero": ("a = NonZero(input) output = Cast<to=1>(a)", "float[R, Q] output"),
    "Bar": ("output = other.Bar(input)", "float[N,3,H,W] output"),
    "ScatterElements": ('i = Cast<to=7>(input) output = ScatterElements<reduction="add">(input, i, input)', None),
    "Mul": ("a = Cast<to=10>(input) b = Constant<value_float=2.0>() output = Mul(a, b)", None),
    "QuantizeLinear": (
        "s = Constant<value_float=0.1>() z = Constant<value=int8 z {5}>() q = QuantizeLinear(input, s, z) "
        "output = DequantizeLinear(q, s, z)",
        None,
    ),
}
"""Graphs TensorRT-RTX cannot parse, by the operator it stops at."""


@needs_rtx
@pytest.mark.parametrize("operator", GRAPHS)
def test_an_operator_that_does_not_parse_is_named(operator: str, tmp_path: Path) -> None:
    body, made = GRAPHS[operator]
    path = save(tmp_path / "odd.onnx", body, **({"made": made} if made else {}))
    error = refused(Unsupported, path, operator)
    assert "odd.onnx" in error.what
    assert "driver" not in str(error)  # TensorRT-RTX mentions it in passing, without a GPU


@needs_rtx
def test_too_large_a_top_k(tmp_path: Path) -> None:
    path = save(tmp_path / "k.onnx", BEYOND + "output, i = TopK(flat, k)", ONE, "float[A, 3, 4000] output")
    refused(Unsupported, path, "3840", "--top-k", profiles=(Profile((1, 64, 64), (1, 128, 128), (1, 128, 128)),))


@needs_rtx
@pytest.mark.parametrize(("kind", "what"), [("FLOAT", "the_product"), ("BFLOAT16", "^sm75 cannot compute in bfloat16")])
def test_turing_multiplies_no_float32_and_knows_no_bfloat16(kind: str, what: str, tmp_path: Path) -> None:
    refused(Unsupported, product(tmp_path / "a.onnx", kind), what, "--fp16", gpus=("sm75", "sm86"))


@needs_rtx
def test_half_precision_builds_for_turing(tmp_path: Path) -> None:
    result = build_in_process(request(product(tmp_path / "half.onnx", "FLOAT16"), gpus=("sm75", "sm86")))
    assert len(result.plan) > 1000


@needs_rtx
def test_sizes_the_graph_does_not_take(tmp_path: Path) -> None:
    pairs = "c = Constant<value_ints=[0, 3, -1, 8]>() output = Reshape(input, c)"
    path = save(tmp_path / "pairs.onnx", pairs, made="float[N, 3, Q, 8] output")
    refused(InputError, path, "sizes of the profile", profiles=(Profile((1, 4, 4), (1, 5, 5), (1, 8, 8)),))


@needs_rtx
def test_a_static_file_takes_one_size(tmp_path: Path) -> None:
    path = save(tmp_path / "static.onnx", "output = Relu(input)", "float[1,3,8,8] input", "float[1,3,8,8] output")
    refused(InputError, path)


@needs_rtx
def test_what_is_no_onnx(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    refused(OnnxFileError, tmp_path / "text.onnx")


@needs_rtx
def test_a_crash_of_the_builder_is_told(tmp_path: Path) -> None:
    """TensorRT-RTX 1.7 crashes on an Attention node whose query, key and value are one tensor."""
    body = (
        "s = Constant<value_ints=[3, 8, 64]>() r = Reshape(input, s) h = Cast<to=10>(r) "
        "a = Attention<q_num_heads=4, kv_num_heads=4>(h, h, h) output = Cast<to=1>(a)"
    )
    path = save(tmp_path / "crash.onnx", body, "float[1, 3, 8, 64] input", "float[3, 8, 64] output", 23)
    sizes = Profile((1, 8, 64), (1, 8, 64), (1, 8, 64))
    error = refused(InternalError, path, "SIG", "No file was written", profiles=(sizes,))
    assert "crash.onnx" in error.what
    assert "last log lines" in error.why


@needs_rtx
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("file", ["plan", "log.jsonl"])
def test_a_full_disk(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(tempfile.TemporaryDirectory[str]):
        def __enter__(self) -> str:
            folder = super().__enter__()
            Path(folder, file).symlink_to("/dev/full")
            return folder

    monkeypatch.setattr(build_process.tempfile, "TemporaryDirectory", Full)
    refused(OutputError, product(tmp_path / "single.onnx"), "disk is full")


def test_a_defect_of_the_building_process_is_not_put_down_to_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_tensorrt(tmp_path / "modules", monkeypatch)
    (tmp_path / "modules" / "tensorrt.py").write_text("__version__ = '10.16.1.11'\n")
    what, fix = "^AttributeError: module 'tensorrt' has no attribute 'ILogger'$", "defect of agileir-export"
    error = refused(InternalError, product(tmp_path / "a.onnx"), what, fix, target="tensorrt", gpus=())
    assert re.search(r"logger\.py, line \d+", error.why)


# ---- messages as seen elsewhere: with other networks, with TensorRT, in its issue tracker ----

WORKSPACE = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([tactic.cpp:1676: enumerate_tactics] Tactic Selection: no "
    "tactics to implement the operation within workspace limit. Consider increase the allowed workspace size if "
    "applicable.; [tactic.cpp:264: run] Error during tactic selection."
)
DRIVER = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Cuda Runtime (In generateForCurrent at "
    "/_src/runtime/core/cudaDeviceProfile.cpp:221 (cudaError 35: CUDA driver version is insufficient for CUDA runtime "
    "version))"
)
DISORDER = (
    "IOptimizationProfile::isValid: Error Code 4: API Usage Error (Invalid optimization profiles for input tensors "
    "input, please ensure that the optimization profiles satisfy MIN<=OPT<=MAX. In isValid at /_src/x.cpp:367)"
)
LEAN = (
    "IBuilder::buildSerializedNetwork: Error Code 6: API Usage Error (Unable to load library: libnvinfer_lean.so.1: "
    "libnvinfer_lean.so.1: cannot open shared object file: No such file or directory In Impl at /_src/x.cpp:305)"
)


@pytest.mark.parametrize(
    ("message", "kind", "word"),
    [
        (WORKSPACE, InputError, "--workspace"),
        (DRIVER, EnvironmentProblem, "driver"),
        (DISORDER, InputError, "sizes of the profile"),
        (LEAN, EnvironmentProblem, r"libnvinfer_lean\.so\.1"),
        ("Unexpected exception std::bad_alloc", EnvironmentProblem, "Memory ran out"),
        ("Out of memory error while finding fastest tactic for node_MatMul_3", EnvironmentProblem, "Memory ran out"),
        ("write: No space left on device", OutputError, "full"),
        ("File too large", OutputError, "full"),
        ("Disk quota exceeded", OutputError, "full"),
        ("Something entirely new. In f at /_src/g.cpp:1", Unsupported, "Something entirely new"),
    ],
)
def test_messages_of_builders(message: str, kind: type[AgileIRError], word: str) -> None:
    error = explain_build(Failure((message,), "a.onnx"), "TensorRT")
    assert type(error) is kind
    assert re.search(word, str(error))
    assert "a.onnx" in error.what
    assert "/_src/" not in str(error)


LOADS = [
    (
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
        "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 237, Serialized Engine "
        "Version: 239)",
        Unsupported,
        "another version",
    ),
    (
        "6: The engine plan file is not compatible with this version of TensorRT, expecting library version 8.0.0 got "
        "8.0.1, please rebuild.",
        Unsupported,
        "another version",
    ),
    (
        "6: The engine plan file is generated on an incompatible device, expecting compute 9.0 got compute 8.9, please "
        "rebuild.",
        Unsupported,
        "another GPU",
    ),
    (
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion header.magicTag == "
        "kEXPECTED_MAGIC_TAG failed.Trying to load an engine created with incompatible serialization version",
        InputError,
        "no plan of TensorRT",
    ),
    ("Error Code 2: OutOfMemory (Requested size was 123 bytes.)", EnvironmentProblem, "Memory ran out"),
    (DRIVER, EnvironmentProblem, "driver"),
    ("Anything else", Unsupported, "does not load"),
]


@pytest.mark.parametrize(("message", "kind", "word"), LOADS, ids=[word for *_, word in LOADS])
def test_messages_of_runtimes(message: str, kind: type[AgileIRError], word: str) -> None:
    error = explain_load([message], "a.plan", "TensorRT", "TensorRT 10.16 for sm86", "TensorRT 11.4 on sm89")
    assert type(error) is kind
    assert word in error.what
    assert "a.plan" in error.what
    assert "TensorRT 10.16 for sm86" in error.why
    assert "TensorRT 11.4 on sm89" in error.why


def test_a_crash_while_parsing_names_the_node() -> None:
    lines = ["Parsing node: node_Conv_1 [Conv]", "Searching for input: x", "Parsing node: node_MatMul_7 [MatMul]"]
    error = explain_crash(-signal.SIGABRT, "a.onnx", "TensorRT", "parsing", lines)
    assert type(error) is InternalError
    assert "node_MatMul_7 (MatMul)" in error.what
    assert "SIGABRT" in error.what


def test_the_systems_kill_means_memory() -> None:
    error = explain_crash(-signal.SIGKILL, "a.onnx", "TensorRT", "optimising", [])
    assert type(error) is EnvironmentProblem
    assert "memory" in error.why
