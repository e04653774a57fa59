"""Plugins in Python under the real bindings: the life in a build, and launches that equal those of PyTorch's path.

Nothing runs on a GPU: the driver is a library that records (`recording_driver`), reached through the real binding.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agileir_export.errors import EnvironmentProblem, InputError
from agileir_export.plugins import DOMAIN, kernel_records, register_python_plugins
from agileir_export.plugins.bias_rows import rows_shape
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import BY_TORCH_NAME, CALLS
from agileir_export.plugins.kernel_records import LAYOUT, KernelRecord, read_record, records_in, write_record

from .lean_tensorrt import NEWEST

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

from agileir_export.plugins.dispatch import BIAS_TABLE, kernel_module

from .conftest import RTX, Run
from .pytorch_launches import assert_equal_launches, launched_by_pytorch, ordered, tensors_of

SMALLEST = ("AgileIR tiny", "SwinIR light", "SemanIR tiny denoising")
SMALL = {call.operator: call for call in reversed(CALLS) if call.label in SMALLEST}
"""The call of every operator whose kernel compiles fastest."""

IMAGE = (2, 2, 3)
"""Images, and windows down and across."""

# ---- a build ----


def shapes_of(call: Call) -> list[tuple[int, ...]]:
    window = call.attributes["window_size"]
    shapes = call.shapes(IMAGE[0], IMAGE[1] * window, IMAGE[2] * window)
    if BY_TORCH_NAME[call.operator].inputs[-1] == BIAS_TABLE:
        shapes[-1] = rows_shape(shapes[-1], window)
    return shapes


def types_of(call: Call, dtype: str) -> list[str]:
    return ["int32" if i in call.integer_inputs else dtype for i in range(len(shapes_of(call)))]


def build_order(call: Call, dtype: str) -> dict[str, Any]:
    shapes = shapes_of(call)
    free = [
        [-1] * (1 if i else 3) + list(shape[1 if i else 3 :]) if i in (0, *call.integer_inputs) else list(shape)
        for i, shape in enumerate(shapes)
    ]
    return {
        "do": "build",
        "operator": BY_TORCH_NAME[call.operator].name,
        "layer": f"the {call.label}",
        "attributes": dict(call.attributes),
        "types": types_of(call, dtype),
        "shapes": free,
        "largest": [list(shape) for shape in shapes],
    }


def orders(*dtypes: str) -> list[tuple[Call, str]]:
    return [(call, dtype) for call in SMALL.values() for dtype in dtypes]


@pytest.mark.parametrize(
    ("cases", "every_tactic"),
    [
        pytest.param(orders("float16"), False, id="quick"),
        pytest.param(orders("float32", "bfloat16", "float16"), True, id="all", marks=pytest.mark.slow),
    ],
)
def test_a_plugin_lives_and_launches_what_pytorch_launches(
    cases: list[tuple[Call, str]], every_tactic: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = run(*(build_order(*case) for case in cases), every_tactic=every_tactic)
    wanted, given = [], []
    for (call, dtype), life in zip(cases, built, strict=True):
        assert "error" not in life, life
        operator = BY_TORCH_NAME[call.operator]
        tensors = tensors_of(shapes_of(call), types_of(call, dtype))
        tactics = range(1, len(kernel_module(call.operator).TACTICS) + 1)
        launches = [
            launched_by_pytorch(call.operator, tensors, call.attributes, tactic, monkeypatch)
            for tactic in (tactics if every_tactic else [1])
        ]
        assert life["output_shape"] == list(launches[0]["output"].shape)
        assert life["output_type"] == str(launches[0]["output"].dtype)[6:]
        assert life["combinations"] == ["float32", "float16", "bfloat16"], (
            "one type of all, and integers where they are"
        )
        assert life["refused"] == [False, False], "another layout, another type of the output"
        assert life["workspace"] == max(launch["scratch"] for launch in launches)
        assert life["tactics"] == (list(tactics) if every_tactic else [])
        assert life["identity"] == [operator.name, "1", DOMAIN, 1]
        data = base64.b64decode(life["record"])
        record = read_record(data)
        assert (record.layer, record.inputs) == (f"the {call.label}", len(operator.inputs))
        assert record.attributes == call.attributes
        assert [kernel.tactic for kernel in record.kernels] == (list(tactics) if every_tactic else [1])
        for tactic, launch in enumerate(launches, 1):
            chosen = tactic if every_tactic else 0
            given.append(ordered(record, tensors, launch["output"], data, tactic=chosen))
            wanted.append(launch)
    for found, launch in zip(run(*given), wanted, strict=True):
        loading, launching = found["calls"]
        assert loading["call"] == "load" and launching["call"] == "launch"
        assert_equal_launches(launching, launch)


# ---- conduct ----


@pytest.fixture(scope="module")
def record() -> KernelRecord:
    """A layer of SwinIR's, as a build makes it."""
    from agileir_export.plugins.plugin_layers import Choices, Layer

    call = SMALL["shifted_window_attention"]
    attributes = dict(call.attributes)
    layer = Layer(KernelRecord("a layer", "ShiftedWindowAttention", attributes, 2), Choices())
    layer.compile(shapes_of(call), types_of(call, "float16"))
    return layer.record


def executing(record: KernelRecord, data: bytes | None = None, **more: Any) -> dict[str, Any]:
    call = SMALL["shifted_window_attention"]
    tensors = tensors_of(shapes_of(call), types_of(call, "float16"))
    return ordered(record, tensors, tensors[0], write_record(record) if data is None else data, **more)


BOTH = pytest.mark.parametrize("which", [RTX, pytest.param(NEWEST, marks=pytest.mark.slow)], indirect=True)


@BOTH
def test_a_kernel_is_loaded_once_for_every_context(run: Run, record: KernelRecord) -> None:
    twin = replace(record, layer="another layer with the same kernel")
    orders = [executing(each, contexts=[7, 8, 7], times=2) for each in (record, twin)]
    first, second = (answer["calls"] for answer in run(*orders))
    loads = [call["context"] for call in first if call["call"] == "load"]
    assert loads == [7, 8]
    assert [call["context"] for call in first if call["call"] == "launch"] == [7, 7, 8, 8, 7, 7]
    assert [call["call"] for call in second] == ["launch"] * 6, "what one layer loaded serves all that are equal"


@BOTH
def test_what_is_loaded_is_what_the_plan_carries(run: Run, record: KernelRecord) -> None:
    """A GPU's own text before the common one; more shared memory than 48 KB is asked for."""
    (common,) = record.kernels
    large = replace(common, target=90, shared_bytes=60 * 1024, ptx=common.ptx + "// for Hopper\n")
    both = replace(record, kernels=(common, large))
    for capability, kernel in (("89", common), ("90", large), ("120", common)):
        (found,) = run(executing(both), STAND_IN_CAPABILITY=capability)
        calls = {call["call"]: call for call in found["calls"]}
        assert calls["load"]["bytes"] == len(kernel.ptx)
        assert calls["launch"]["shared"] == kernel.shared_bytes
        opted_in = calls.get("attribute", {"value": 0})
        assert opted_in["value"] == (kernel.shared_bytes if kernel is large else 0)
        assert opted_in.get("attribute", 8) == 8, "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"


@BOTH
def test_an_empty_batch_launches_nothing(run: Run, record: KernelRecord) -> None:
    order = executing(record)
    order["shapes"][0][0] = 0
    (found,) = run(order)
    assert [call["call"] for call in found["calls"]] == ["load"]


def relaid(record: KernelRecord, layout: int) -> bytes:
    data = write_record(record)
    magic, _, length = kernel_records.HEADER.unpack_from(data)
    return kernel_records.HEADER.pack(magic, layout, length) + data[kernel_records.HEADER.size :]


def with_body(record: KernelRecord, change: Callable[[dict[str, Any]], object]) -> bytes:
    data = write_record(record)
    told = json.loads(zlib.decompress(data[kernel_records.HEADER.size :]))
    change(told)
    body = zlib.compress(json.dumps(told).encode())
    return kernel_records.HEADER.pack(kernel_records.MAGIC, LAYOUT, len(body)) + body


def flipped(data: bytes) -> bytes:
    return data[:200] + bytes([data[200] ^ 0x40]) + data[201:]


@BOTH
def test_broken_fields_are_typed_errors(run: Run, record: KernelRecord) -> None:
    broken = {
        f"version {LAYOUT + 1}, and this package knows versions up to {LAYOUT}": (
            relaid(record, LAYOUT + 1),
            "Unsupported",
        ),
        "bytes are missing": (write_record(record)[:-1], "InputError"),
        "it begins with": (b"x" * 100, "InputError"),
        "unpack_from requires": (b"x", "InputError"),
        "while decompressing": (flipped(write_record(record)), "InputError"),
        "threads is '128'": (with_body(record, lambda r: r["kernels"][0].update(threads="128")), "InputError"),
        "threads is -1": (with_body(record, lambda r: r["kernels"][0].update(threads=-1)), "InputError"),
        "threads is True": (with_body(record, lambda r: r["kernels"][0].update(threads=True)), "InputError"),
        "CarriedKernel has the fields": (with_body(record, lambda r: r["kernels"][0].pop("programs")), "InputError"),
        "KernelRecord has the fields": (with_body(record, lambda r: r.update(more=1)), "InputError"),
        "its kernels are of KeySemanticAttention": (
            with_body(record, lambda r: r.update(operator="KeySemanticAttention")),
            "InputError",
        ),
        "given 2 inputs, and its kernel takes 3": (with_body(record, lambda r: r.update(inputs=3)), "InternalError"),
        "compute capability 8.9": (with_body(record, lambda r: r.update(kernels=[])), "Unsupported"),
        "find the entry gone": (with_body(record, lambda r: r["kernels"][0].update(entry="gone")), "InternalError"),
    }
    answers = run(*(executing(record, data) for data, _ in broken.values()))
    for (words, (_, kind)), told in zip(broken.items(), answers, strict=True):
        assert (told.get("error"), words in told.get("says", "")) == (kind, True), (words, told)


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        ("cuInit 100", "EnvironmentProblem", "The NVIDIA driver does not start"),
        ("cuLaunchKernel 700", "InternalError", "an illegal memory access was encountered (700)"),
        ("cuLaunchKernel 2", "EnvironmentProblem", "Restore smaller tiles"),
        ("cuModuleLoadDataEx 218", "InternalError", "ptxas fatal: a line of the stand-in"),
        ("cuModuleLoadDataEx 222", "Unsupported", "Update the driver"),
        ("cuFuncSetAttribute 1", "InternalError", "61440 bytes of shared memory"),
    ],
)
@pytest.mark.parametrize("which", [RTX], indirect=True)
def test_a_kernel_that_fails_is_a_typed_error(
    failure: str, kind: str, words: str, run: Run, record: KernelRecord
) -> None:
    large = replace(record, kernels=tuple(replace(kernel, shared_bytes=60 * 1024) for kernel in record.kernels))
    (told,) = run(executing(large), STAND_IN_FAILURE=failure)
    assert (told.get("error"), words in told.get("says", "")) == (kind, True), told


@pytest.mark.parametrize("which", [RTX], indirect=True)
def test_what_no_kernel_is_for_is_a_typed_error(run: Run, record: KernelRecord) -> None:
    (turing,) = run(executing(record), STAND_IN_CAPABILITY="75")
    assert turing["error"] == "Unsupported" and "of compute capability 7.5" in turing["says"]
    uneven = executing(record)
    uneven["shapes"][0][1] += 1
    nowhere = executing(record, contexts=[0])
    answers = run(uneven, nowhere)
    assert [told["error"] for told in answers] == ["InputError", "InternalError"]
    assert "must fill them" in answers[0]["says"] and "No CUDA context is current" in answers[1]["says"]


@pytest.mark.slow
@pytest.mark.parametrize("which", [RTX], indirect=True)
def test_a_failure_in_a_build_is_kept_and_does_not_get_out(run: Run) -> None:
    """On an exception in `configure_plugin` TensorRT-RTX ends the process."""
    order = build_order(SMALL["shifted_window_attention"], "float16")
    order["shapes"][1] = [1, 2, 3]
    (told,) = run(order)
    assert told["error"] == "Unsupported" and "bias_table must be" in told["says"]


def test_a_record_is_found_in_a_plan_in_either_form(record: KernelRecord) -> None:
    data, twin = write_record(record), replace(record, layer="another")
    plan = b"before" + data + b"between" + kernel_records.name_of(write_record(twin)).encode() + b"after" + data
    assert [each.layer for each in records_in(plan)] == ["a layer", "another", "a layer"]
    assert kernel_records.named(kernel_records.name_of(data)) == data
    assert kernel_records.named("window_size") is None


def test_records_of_the_first_layout_are_read(record: KernelRecord) -> None:
    """Every window had its own programs then; a record of today has to say so."""
    data = with_body(record, lambda told: told["kernels"][0].pop("unit"))
    with pytest.raises(InputError, match="CarriedKernel has the fields"):
        read_record(data)
    magic, _, length = kernel_records.HEADER.unpack_from(data)
    first = kernel_records.HEADER.pack(magic, 1, length) + data[kernel_records.HEADER.size :]
    assert read_record(first) == record


def test_a_header_is_read_on_every_machine() -> None:
    assert kernel_records.HEADER.size == struct.calcsize("<16sII") == 24


def test_plugins_are_not_registered_where_they_cannot_live() -> None:
    """Beside others of the same names, and with bindings that end the process."""
    taken = SimpleNamespace(get_creator=lambda name, version, space: object())
    theirs = type("IPluginV3", (), {"__module__": "theirs"})
    module = SimpleNamespace(__name__="some_tensorrt", get_plugin_registry=lambda: taken, IPluginV3=theirs)
    with pytest.raises(EnvironmentProblem, match="registered with some_tensorrt already"):
        register_python_plugins(module)
    with pytest.raises(EnvironmentProblem, match=r"TensorRT 10\.3\.0 is too old .* TensorRT 10\.4 or newer"):
        register_python_plugins(SimpleNamespace(__name__="tensorrt", __version__="10.3.0"))
