"""The audit on engines that TensorRT-RTX really builds: each type is found where the ONNX file has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from agileir_export.engines.audit.kernels import PRODUCTS
from agileir_export.engines.audit.verdict import Audit, Kernel, float32_nodes, judge, product_nodes, quantised_nodes
from agileir_export.engines.profiles import Profile
from agileir_export.export import OnnxArtifact

from ..export import networks
from ..export.written import half_file
from .rtx_builds import kernels_of_build, needs_rtx

pytestmark = needs_rtx

TYPES = {
    "float32": (TensorProto.FLOAT, np.float32),
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}


def chain(path: Path, types: list[str], width: int = 32) -> Path:
    """Matrix products one after the other, ``product_0`` and so on, each in its type, and a convolution in the last."""
    nodes, constants, last = [], [], "input"
    random = np.random.default_rng(0)
    for number, name in enumerate(types):
        code, dtype = TYPES[name]
        constants.append(numpy_helper.from_array(random.random((width, width)).astype(dtype), f"w{number}"))
        nodes += [
            helper.make_node("Cast", [last], [f"x{number}"], to=code),
            helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"p{number}"], name=f"product_{number}"),
            helper.make_node("Erf" if name == "float32" else "Relu", [f"p{number}"], [f"y{number}"]),
        ]
        last = f"y{number}"
    code, dtype = TYPES[types[-1]]
    constants.append(numpy_helper.from_array(random.random((8, 3, 3, 3)).astype(dtype), "filter"))
    nodes += [
        helper.make_node("Conv", [last, "filter"], ["convolved"], name="convolution", pads=[1] * 4),
        helper.make_node("Cast", ["convolved"], ["output"], to=TensorProto.FLOAT),
    ]
    return save(path, nodes, constants, [1, 3, 16, width])


def quantised(path: Path, width: int = 32) -> Path:
    """``product_0`` between quantise and dequantise nodes, and ``product_1`` without."""
    random = np.random.default_rng(0)
    weights = [random.random((width, width)).astype(np.float32) for _ in range(2)]
    constants = [
        numpy_helper.from_array(weights[0], "w0"),
        numpy_helper.from_array(weights[1], "w1"),
        numpy_helper.from_array(np.float32(0.01), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    nodes = []
    for name in ("input", "w0"):
        nodes += [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_d"]),
        ]
    nodes += [
        helper.make_node("MatMul", ["input_d", "w0_d"], ["p0"], name="product_0"),
        helper.make_node("Erf", ["p0"], ["y0"]),
        helper.make_node("MatMul", ["y0", "w1"], ["output"], name="product_1"),
    ]
    return save(path, nodes, constants, [1, 3, 16, width])


def save(path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], shape: list[int]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def products(kernels: list[Kernel]) -> dict[str, str]:
    """Number type by ONNX node, of the kernels that multiply and accumulate."""
    return {node: kernel.precision for kernel in kernels if kernel.kind in PRODUCTS for node in kernel.origin}


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_an_engine_of_one_type_passes_for_this_type_only(precision: str, tmp_path: Path) -> None:
    path = chain(tmp_path / "model.onnx", [precision] * 2)
    kernels = kernels_of_build(path)
    found = products(kernels)
    assert {name: found[name] for name in ("product_0", "product_1", "convolution")} == dict.fromkeys(
        ("product_0", "product_1", "convolution"), precision
    )
    names = product_nodes(onnx.load(path))
    assert names == ["product_0", "product_1", "convolution"]
    for asked in TYPES:
        audit = judge(kernels, asked, products=names)
        assert audit.passed == (asked == precision), audit.problems
        assert not audit.unknown


def test_one_product_left_in_float_is_named(tmp_path: Path) -> None:
    """The types in the log are those of each product, not of the network, or of the first input."""
    path = chain(tmp_path / "model.onnx", ["float16", "float32", "float16"])
    kernels = kernels_of_build(path)
    found = products(kernels)
    assert [found[f"product_{number}"] for number in range(3)] == ["float16", "float32", "float16"]
    audit = judge(kernels, "float16", products=product_nodes(onnx.load(path)))
    assert not audit.passed
    assert len(audit.problems) == 1
    assert "1 of 3 gemm kernels compute in float32" in audit.problems[0]
    assert "product_1" in audit.problems[0]
    assert judge(kernels, "float16", by_design={"product_1": "a test wants it"}).passed


def test_int8_kernels_are_told_from_those_that_stayed_float(tmp_path: Path) -> None:
    path = quantised(tmp_path / "model.onnx")
    kernels = kernels_of_build(path)
    assert quantised_nodes(onnx.load(path)) == ["product_0"]
    found = products(kernels)
    assert (found["product_0"], found["product_1"]) == ("int8", "float32")
    assert judge(kernels, "int8").passed
    assert judge(kernels, "int8", expected_int8=["product_0"]).passed
    audit = judge(kernels, "int8", expected_int8=["product_0", "product_1"])
    assert audit.problems == ("1 of 2 quantised nodes do not run in int8: product_1 (float32)",)


def test_an_unquantised_engine_is_not_int8(tmp_path: Path) -> None:
    kernels = kernels_of_build(chain(tmp_path / "model.onnx", ["float16"]))
    assert judge(kernels, "int8").problems == ("no kernel computes in int8",)


def test_one_list_serves_all_compute_capabilities(tmp_path: Path) -> None:
    kernels = kernels_of_build(chain(tmp_path / "model.onnx", ["float16"]), gpus=("sm86", "sm89", "sm120"))
    assert {kernel.engine for kernel in kernels} == {0}
    assert judge(kernels, "float16").passed


WITHOUT_DETAILS = """
import sys
import tensorrt_rtx_bindings as trt
trt.ProfilingVerbosity.DETAILED = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
sys.modules[__name__] = trt
"""


def test_without_detailed_profiling_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text(WITHOUT_DETAILS)
    monkeypatch.syspath_prepend(tmp_path)  # the building process searches here, too
    audit = judge(kernels_of_build(chain(tmp_path / "model.onnx", ["float16"])), "float16")
    assert not audit.passed
    assert audit.shares == ()
    assert "lists no kernels: it was built without detailed profiling" in audit.problems[0]


def audited(artifact: OnnxArtifact) -> tuple[Audit, list[Kernel], list[str]]:
    """Builds a file for free sizes, and judges the engine by the file's own precision."""
    m = artifact.spec.pad_multiple
    kernels = kernels_of_build(artifact.path, Profile((1, m, m), (1, 2 * m, 3 * m), (2, 6 * m, 7 * m)))
    model = onnx.load(artifact.path)
    names = product_nodes(model)
    intended = float32_nodes(model, artifact.conversion.get("float32_nodes", ()))
    return judge(kernels, artifact.precision, products=names, by_design=intended), kernels, names


def slow_but(chosen: str, values: tuple[str, ...]) -> list[Any]:
    return [pytest.param(value, marks=() if value == chosen else pytest.mark.slow) for value in values]


@pytest.mark.parametrize("kind", slow_but("swinir-light", networks.ONE_A_FAMILY))
def test_every_product_of_a_family_is_accounted_for(kind: str, folder: Path) -> None:
    audit, kernels, names = audited(networks.exported(folder, kind))
    assert audit.passed, audit.problems
    assert not audit.unknown, "every product must be in some kernel's origin"
    calls = {name.partition(" | ")[2] for name in names} - {""}
    seen = {node.partition(" | ")[2] for k in kernels if k.kind == "attention" for node in k.origin} - {""}
    assert calls == seen, "every call of an operator has attention kernels"
    counts = {share.kind: share.count for share in audit.shares}
    assert counts["gemm"] >= 4
    assert counts["convolution"] >= 3
    refused = judge(kernels, "float16", products=names)
    assert not refused.passed
    assert any("attention kernels compute in float32" in problem for problem in refused.problems)
    kept = {entry.reason for entry in refused.kept if entry.kind == "attention"}
    assert bool(kept) == (kind == "semanir"), "only the semantic dictionary computes in float32 by design"


def assert_half(artifact: OnnxArtifact, precision: str, path: Path) -> None:
    """Converted, the file builds into an engine that is in half precision but for what the conversion tells of."""
    converted = half_file(artifact, path, precision)
    audit, kernels, names = audited(converted)
    assert audit.passed, audit.problems
    assert not audit.unknown
    for share in audit.shares:
        if share.kind in PRODUCTS and share.precision != precision:
            kept = [entry for entry in audit.kept if (entry.kind, entry.precision) == (share.kind, share.precision)]
            assert sum(entry.count for entry in kept) == share.count, "all of them are named with a reason"
    if any(kernel.kind == "convolution" and kernel.precision == "float32" for kernel in kernels):
        assert not judge(kernels, precision, products=names).passed, "without the conversion's record it is an error"


@pytest.mark.parametrize("precision", slow_but("float16", ("float16", "bfloat16")))
@pytest.mark.parametrize("kind", slow_but("semanir", (*networks.ONE_A_FAMILY, "semanir-unet")))
def test_converted_families_are_in_half_precision(kind: str, precision: str, folder: Path, tmp_path: Path) -> None:
    assert_half(networks.exported(folder, kind), precision, tmp_path / "half.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["agileir", "semanir"])
def test_inlined_operators_are_in_half_precision(kind: str, precision: str, folder: Path, tmp_path: Path) -> None:
    assert_half(networks.exported(folder, kind, decomposed=True), precision, tmp_path / "half.onnx")
