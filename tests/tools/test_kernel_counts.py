"""Counting a kernel's instructions without a GPU, and what the counts of the kernels must not exceed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agileir_export.errors import InternalError
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import CALLS

from ..scripts import load_script

triton = pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

counts = load_script(Path(__file__).resolve().parents[2] / "tools" / "kernel_counts.py")

NEWEST = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)

LARGEST = {
    ("AgileIR", "group_shifted_window_attention"): (8.0, 16.5),
    ("AgileIR light", "group_shifted_window_attention"): (8.0, 16.5),
    ("SwinIR", "shifted_window_attention"): (24.0, 24.0),
    ("SemanIR", "key_semantic_attention"): (17.2, 18.2),
    ("SemanIR", "key_semantic_dictionary"): (4.6, 123.0),
}
"""Instructions a logit in float16, in the inner loop and in all, that the kernels have: more is a step back."""

SHARED = 48 * 1024


def call_of(label: str, operator: str) -> Call:
    return next(call for call in CALLS if (call.label, call.operator) == (label, operator))


@pytest.mark.skipif(not NEWEST, reason="the counts are those of Triton 3.9's compiler")
@pytest.mark.parametrize(
    "architecture", [80, *(pytest.param(each, marks=pytest.mark.slow) for each in (86, 89, 90, 100, 120))]
)
@pytest.mark.parametrize(
    ("label", "operator"),
    [key if key[0] == "SwinIR" else pytest.param(*key, marks=pytest.mark.slow) for key in LARGEST],
)
def test_no_kernel_executes_more_than_it_did(label: str, operator: str, architecture: int) -> None:
    found = counts.count(call_of(label, operator), "float16", architecture)
    print(found)
    inner, everything = LARGEST[label, operator]
    assert found.inner <= inner and found.all <= everything
    assert found.stack == 0 and found.shared <= SHARED + 1024  # a program has a kilobyte of its own since Hopper


LOOPS = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E.128 R4, [R2.64] ;
.L_x_1:
        /*0020*/                   HMMA.16816.F32 R8, R4, R5, R8 ;
        /*0030*/              @!P0 MUFU.EX2 R9, R9 ;
        /*0040*/               @P1 BRA `(.L_x_1) ;
        /*0050*/                   LDG.E.U16 R4, [R2.64] ;
        /*0060*/                   BRA.U `(.L_x_0) ;
        /*0070*/                   EXIT ;
.L_x_2:
        /*0080*/                   BRA `(.L_x_2);
"""


def test_loops_lie_between_a_label_and_the_branch_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "SHORT", 2)
    opcodes, loops = counts.taken_apart(LOOPS)
    assert len(opcodes) == 9 and opcodes[1] == "LDG.E.128"
    assert [(loop.first, loop.last, loop.length) for loop in loops] == [(1, 7, 6), (2, 5, 3)]
    assert loops[1].kinds["HMMA"] == loops[1].kinds["MUFU"] == 1
    found = counts.Listing(opcodes, loops, 32, 0, 0)
    assert found.load_bytes() == (16 + 2) / 2


@pytest.mark.parametrize(("opcode", "width"), [("LDG.E.64", 8), ("LDG.E", 4), ("LDG.E.S8", 1), ("LDG.E.U16.SYS", 2)])
def test_widths_of_loads(opcode: str, width: int) -> None:
    assert counts.width_of(opcode) == width


def test_a_tool_that_fails_is_named() -> None:
    with pytest.raises(InternalError, match="ptxas failed"):
        counts.listing("nonsense", 0, 80)


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert counts.main(["--labels", "SwinIR light", "--architectures", "80"]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.count("|") == row.count("|") and "| SwinIR light | float16 | sm_80 |" in row
