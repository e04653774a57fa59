"""The kernels compiled ahead of time, without a GPU, and assembled for every supported architecture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agileir_export.errors import EnvironmentProblem, InternalError
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import CALLS

from ..scripts import load_script
from .variants import COARSER, STRAIGHT

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from agileir_export.plugins.dispatch import kernel_module
from agileir_export.plugins.launch import MAX_SHARED_BYTES, Launch
from agileir_export.plugins.ptx import ENTRY as VISIBLE_ENTRY
from agileir_export.plugins.ptx import argument_types, without_hidden

kernel_table = load_script(Path(__file__).resolve().parents[2] / "tools" / "kernel_table.py")

DTYPES = ("float16", "bfloat16", "float32")
# One call of every operator, the smallest; all others are slow.
QUICK = {
    ("AgileIR tiny", "float16"),
    ("SwinIR light", "bfloat16"),
    ("SemanIR tiny denoising", "float16"),
    ("SemanIR tiny denoising", "float32"),
}
SLOW = pytest.mark.slow


def entry_parameters(ptx: str) -> tuple[str, ...]:
    """Types of the entry's parameters in order, such as ``("u64", "u32", "u64")``."""
    (match,) = VISIBLE_ENTRY.finditer(ptx)
    return tuple(re.findall(r"\.param\s+\.(\w+)", match["list"]))


SPILLED_AT_MOST = 0 if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9) else 16
"""Bytes a thread: the kernels were fitted to the newest compiler; older ones spill a little here and there."""

HOPPER = 90

OPT_IN_BYTES = 99 * 1024
"""Shared memory that a block can have, with an opt-in, on the GPU since Ampere that has least (CUDA guide)."""


def cases(*calls: Call) -> list[object]:
    return [
        pytest.param(
            call,
            dtype,
            id=f"{call.operator}-{call.label}-{dtype}".replace(" ", "_"),
            marks=() if (call.label, dtype) in QUICK else SLOW,
        )
        for call in calls
        for dtype in DTYPES
    ]


@pytest.fixture(scope="module")
def ptxas() -> str:
    try:
        return kernel_table.find_ptxas()
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))


@pytest.mark.parametrize(("call", "dtype"), cases(*CALLS, *STRAIGHT, *COARSER))
def test_kernel_assembles_everywhere_without_spills(call: Call, dtype: str, ptxas: str) -> None:
    compiled = kernel_table.compile_call(call, dtype)
    assert compiled.shared_bytes <= MAX_SHARED_BYTES
    inputs = len(call.shapes(1, call.attributes["window_size"], call.attributes["window_size"]))
    scratch = kernel_module(call.operator).SCRATCH
    assert entry_parameters(compiled.ptx) == ("u64",) * inputs + ("u32", "u32", "u64") + ("u64",) * scratch
    assert ".target sm_80\n" in compiled.ptx and "\0" not in compiled.ptx
    for architecture in kernel_table.ARCHITECTURES:
        resources = kernel_table.assemble(compiled.ptx, architecture, ptxas)
        print(f"sm_{architecture}: {resources}, {compiled.shared_bytes} bytes of dynamic shared memory")
        assert resources.spilled <= SPILLED_AT_MOST, f"sm_{architecture}"
        assert resources.shared + compiled.shared_bytes <= MAX_SHARED_BYTES


def test_a_group_waits_for_the_whole_output_of_the_group_before() -> None:
    """Which the interpreter, one program after another, cannot miss: all warps meet after the stores of a group."""
    ptx = kernel_table.compile_call(next(call for call in CALLS if call.label == "AgileIR tiny"), "float16").ptx
    assert ptx.rindex("bar.sync") > ptx.rindex("st.global")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "call",
    (*CALLS, *STRAIGHT, *COARSER),
    ids=lambda call: f"{call.operator}-{call.label}".replace(" ", "_"),
)
def test_every_tactic_can_be_launched_without_an_opt_in_and_spills_nothing(call: Call, dtype: str, ptxas: str) -> None:
    for tactic in range(1, len(kernel_module(call.operator).TACTICS) + 1):
        hopper = kernel_table.compile_call(call, dtype, tactic, HOPPER)  # engines of a Hopper GPU carry this text
        assert ".target sm_90a\n" in hopper.ptx and hopper.shared_bytes <= MAX_SHARED_BYTES
        compiled = kernel_table.compile_call(call, dtype, tactic)
        assert compiled.shared_bytes <= MAX_SHARED_BYTES
        for architecture in (80, 90, 120):
            resources = kernel_table.assemble(compiled.ptx, architecture, ptxas)
            print(f"tactic {tactic}, sm_{architecture}: {resources}")
            assert resources.spilled <= SPILLED_AT_MOST, f"tactic {tactic}, sm_{architecture}"


@pytest.mark.parametrize("architecture", [pytest.param(80, marks=SLOW), 90, pytest.param(120, marks=SLOW)])
@pytest.mark.parametrize(("call", "dtype"), cases(*CALLS))
def test_kernel_compiles_as_pytorch_compiles_it(call: Call, dtype: str, architecture: int) -> None:
    """For the GPU at hand, with its own instructions: not the text that engines carry."""
    launch = launch_of(call, dtype)
    inputs = ["int32" if index in call.integer_inputs else dtype for index in range(len(call.shapes(1, 1, 1)))]
    types = argument_types(launch, inputs, kernel_module(call.operator).OUTPUT_TYPE or dtype)
    order = launch.kernel.arg_names
    given = [name for name in order if name not in launch.constants]
    made = triton.compile(
        ASTSource(
            launch.kernel,
            dict(zip(given, types, strict=True)) | dict.fromkeys(launch.constants, "constexpr"),
            dict(launch.constants),
            {(order.index(n),): [["tt.divisibility", 16]] for n, t in zip(given, types, strict=True) if t[0] == "*"},
        ),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": launch.num_warps, "num_stages": launch.num_stages, "enable_fp_fusion": True},
    )
    assert made.metadata.shared <= OPT_IN_BYTES
    assert made.asm["cubin"].startswith(b"\x7fELF")
    assert spread_too_far(made.asm["ttgir"]) == []


WARP_GROUP = re.compile(
    r"(#mma\d*) = #ttg\.nvidia_mma<\{versionMajor = 3.*?warpsPerCTA = \[(\d+), (\d+)\], instrShape = \[\d+, (\d+)"
)
PRODUCT = re.compile(r"warp_group_dot .*?-> tensor<(\d+)x(\d+)xf32, (#mma\d*)>")


def spread_too_far(text: str) -> list[tuple[int, int]]:
    """Products in Triton's intermediate text for Hopper that are spread over more warps than they have rows or columns.

    Triton 3.6 makes such of products with fewer than 16 rows a warp. Their programs read beyond their operands: on an
    H100 they gave wrong numbers, or ended with an illegal memory access.
    """
    layouts = {
        name: (16 * int(down), int(along) * int(columns)) for name, down, along, columns in WARP_GROUP.findall(text)
    }
    products = [(int(rows), int(columns), *layouts[name]) for rows, columns, name in PRODUCT.findall(text)]
    return [(rows, columns) for rows, columns, down, along in products if down > rows or along > columns]


def launch_of(call: Call, dtype: str) -> Launch:
    return kernel_module(call.operator).launch(kernel_table.kernel_shapes(call), call.attributes, dtype)


ENTRY = """.visible .entry kern(
\t.param .u64 .ptr .global .align 1 kern_param_0,
\t.param .u32 kern_param_1,
\t.param .u64 .ptr .global .align 1 kern_param_2,
\t.param .u64 .ptr .global .align 1 kern_param_3,
\t.param .u64 .ptr .global .align 1 kern_param_4
)
{
\tld.param.b64 %rd1, [kern_param_0];
\tret;
}
"""


def test_hidden_arguments_are_taken_off() -> None:
    bare = without_hidden(ENTRY, 3)
    assert entry_parameters(bare) == ("u64", "u32", "u64")
    assert "kern_param_3" not in bare and "ld.param.b64 %rd1, [kern_param_0];" in bare


def test_a_hidden_argument_that_is_read_is_refused() -> None:
    with pytest.raises(InternalError, match="reads its hidden argument kern_param_4"):
        without_hidden(ENTRY.replace("\tret", "\tld.param.b64 %rd2, [kern_param_4];\n\tret"), 3)


def test_another_number_of_hidden_arguments_is_refused() -> None:
    with pytest.raises(InternalError, match="has 5 parameters, expected 4"):
        without_hidden(ENTRY, 4)


def test_text_without_an_entry_is_refused() -> None:
    with pytest.raises(InternalError, match="no visible entry"):
        without_hidden("// nothing", 0)


def test_bad_ptx_is_refused_by_the_assembler(ptxas: str) -> None:
    with pytest.raises(InternalError, match="ptxas refuses"):
        kernel_table.assemble(".version 8.0\n.target sm_80\n.address_size 64\nnonsense\n", 80, ptxas)


def test_too_much_shared_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from agileir_export.errors import Unsupported
    from agileir_export.plugins import ptx

    call = next(call for call in CALLS if call.label == "SwinIR light")
    ptx._compiled.cache_clear()
    monkeypatch.setattr(ptx, "MAX_SHARED_BYTES", 1024)
    with pytest.raises(Unsupported, match="bytes of shared memory"):
        kernel_table.compile_call(call, "float16")
