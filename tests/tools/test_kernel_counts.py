"""Counting a kernel's instructions without a GPU, and what the counts of the kernels must not exceed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agileir_export.errors import InternalError
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import CALLS
from agileir_export.plugins.launch import Launch

from ..scripts import load_script

triton = pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

counts = load_script(Path(__file__).resolve().parents[2] / "tools" / "kernel_counts.py")

NEWEST = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)

LARGEST = {
    ("AgileIR", "group_shifted_window_attention"): (7.9, 13.4),
    ("AgileIR light", "group_shifted_window_attention"): (7.8, 14.1),
    ("AgileIR lightest", "group_shifted_window_attention"): (27.7, 27.7),
    ("AgileIR tiny", "group_shifted_window_attention"): (26.9, 26.9),
    ("SwinIR", "shifted_window_attention"): (21.3, 21.3),
    ("SemanIR", "key_semantic_attention"): (14.6, 15.4),
    ("SemanIR restoration", "key_semantic_attention"): (13.3, 16.3),
    ("SemanIR", "key_semantic_dictionary"): (4.1, 114.0),
    ("SemanIR restoration", "key_semantic_dictionary"): (4.2, 115.0),
    ("SemanIR tiny", "key_semantic_dictionary"): (4.2, 103.0),
    ("SemanIR tiny denoising", "key_semantic_dictionary"): (5.7, 113.0),
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


def test_loops_lie_between_a_label_and_the_branch_back() -> None:
    opcodes, loops, jumps = counts.taken_apart(LOOPS)
    assert len(opcodes) == 9 and opcodes[1] == "LDG.E.128"
    assert [(loop.first, loop.last, loop.length) for loop in loops] == [(1, 7, 6), (2, 5, 3)]
    assert loops[1].kinds["HMMA"] == loops[1].kinds["MUFU"] == 1
    assert jumps == {4: counts.Jump(2, True), 6: counts.Jump(1, False), 7: counts.Jump(9, False)}
    found = counts.Listing(opcodes, loops, jumps, 32, 0, 0)
    assert found.load_bytes() == (16 + 2) / 2


SEAM = """
 /*00*/ MOV R1, c[0x0][0x28] ;
 /*10*/ @P0 BRA `(.L_x_1) ;
.L_x_0:
 /*20*/ HMMA.16816.F32 R8, R4, R5, R8 ;
 /*30*/ MUFU.EX2 R9, R9 ;
 /*40*/ FADD R9, R9, R10 ;
 /*50*/ @P1 BRA `(.L_x_0) ;
 /*60*/ BRA `(.L_x_2) ;
.L_x_1:
 /*70*/ HMMA.16816.F32 R8, R4, R5, R8 ;
 /*80*/ MUFU.EX2 R9, R9 ;
 /*90*/ @P1 BRA `(.L_x_1) ;
.L_x_2:
 /*a0*/ STG.E [R2.64], R9 ;
 /*b0*/ EXIT ;
"""

LEFT_INSIDE = """
.L_x_0:
 /*00*/ HMMA.16816.F32 R8, R4, R5, R8 ;
 /*10*/ MUFU.EX2 R9, R9 ;
 /*20*/ @P2 CALL.REL.NOINC `(.L_x_1) ;
 /*30*/ BRA `(.L_x_0) ;
.L_x_1:
 /*40*/ STG.E [R2.64], R9 ;
 /*50*/ EXIT ;
"""

PARTED = """
 /*00*/ BSSY B0, `(.L_x_1) ;
 /*10*/ @P0 BRA `(.L_x_0) ;
 /*20*/ STG.E [R2.64], R9 ;
.L_x_0:
 /*30*/ BSYNC B0 ;
.L_x_1:
 /*40*/ @P1 BRA `(.L_x_2) ;
 /*50*/ FADD R9, R9, R10 ;
.L_x_2:
 /*60*/ EXIT ;
"""


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        pytest.param(SEAM, [1, 1, 0, 0, 0, 0, 0, 4, 4, 4, 1, 1], id="the_copy_that_masks_nothing"),
        pytest.param(LEFT_INSIDE, [4, 4, 4, 4, 1, 1], id="a_loop_that_is_left_before_its_end"),
        pytest.param(PARTED, [1, 1, 1, 1, 1, 0, 1], id="threads_that_part_and_code_that_is_skipped"),
    ],
)
def test_what_most_windows_execute(code: str, taken: list[int]) -> None:
    """Blocks of 64 keys, of 256 in all: four passes."""
    launch = Launch(None, {"queries": 64, "keys": 64}, 16, 4, 4)
    assert counts.executed(counts.Listing(*counts.taken_apart(code), 32, 0, 0), launch) == taken


@pytest.mark.skipif(not NEWEST, reason="the counts are those of Triton 3.9's compiler")
@pytest.mark.parametrize("architecture", [pytest.param(80, marks=pytest.mark.slow), 90])
@pytest.mark.parametrize(
    "call",
    [call if call.label == "AgileIR lightest" else pytest.param(call, marks=pytest.mark.slow) for call in CALLS],
    ids=lambda call: f"{call.operator}-{call.label}".replace(" ", "_"),
)
def test_a_loop_is_no_more_than_the_whole(call: Call, architecture: int) -> None:
    """Also where the assembler writes the loop over keys out, or copies it."""
    found = counts.count(call, "float16", architecture)
    assert 0 < found.inner <= found.all


def test_figures_of_loops_that_were_not_found_are_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "executed", lambda found, launch: [0] * len(found.opcodes))
    with pytest.raises(InternalError, match="taken for others"):
        counts.count(call_of("SwinIR light", "shifted_window_attention"), "float16", 80)


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
