"""Verdicts, figures and the JSON of a report; its rows and sentences for people."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from agileir_export.models import ModelSpec
from agileir_export.parity import Measure, ParityReport, Rung, TaskMeasure, TaskRung
from agileir_export.parity.tables import COLUMNS, decibels, describe_miss, report_rows

SPEC = ModelSpec("semanir", "custom", "super-resolution", 2, 3, window_size=4, pad_multiple=4, top_k=5)
GOOD = Measure("cat", 4, 5, psnr=130.0, max_steps=0.01, nonfinite=0)
SAME = dataclasses.replace(GOOD, image="dog", psnr=math.inf, max_steps=0.0)
BAD = dataclasses.replace(GOOD, image="fox", psnr=70.0, max_steps=3.5)
NAN = dataclasses.replace(GOOD, image="owl", psnr=-math.inf, max_steps=math.inf, nonfinite=7)
TASK = (TaskMeasure("cat", 30, 32, 31.99), TaskMeasure("dog", 30, 31, 31.5))


def report(*rungs: Rung | TaskRung) -> ParityReport:
    return ParityReport("a.onnx", SPEC, rungs, {"reference": {"target": "torch"}})


@pytest.mark.parametrize(
    ("measures", "worst", "passed"),
    [
        ((GOOD, SAME), 130, True),
        ((SAME,), math.inf, True),
        ((GOOD, BAD), 70, False),
        ((GOOD, NAN), -math.inf, False),
        ((dataclasses.replace(GOOD, nonfinite=1),), 130, False),
        ((dataclasses.replace(GOOD, psnr=100),), 100, True),
        ((dataclasses.replace(GOOD, psnr=99.999),), 99.999, False),
    ],
)
def test_the_worst_image_decides(measures: tuple[Measure, ...], worst: float, passed: bool) -> None:
    rung = Rung("x", 100, measures)
    assert rung.worst == worst
    assert rung.passed is passed
    assert report(rung).passed is passed
    assert report(Rung("y", 1, (GOOD,)), rung).passed is passed
    assert report(rung, Rung("y", 1, (GOOD,))).passed is passed


def test_a_floor_that_is_no_number_passes_nothing() -> None:
    assert not Rung("x", math.nan, (GOOD,)).passed


@pytest.mark.parametrize(("shares", "passed"), [((0.999, 1.0), True), ((1.0, 0.9989), False), ((None, None), False)])
def test_agreement_has_a_floor_of_its_own(shares: tuple[float | None, ...], passed: bool) -> None:
    measures = tuple(dataclasses.replace(GOOD, agreement=share) for share in shares)
    rung = Rung("x", 100, measures, agreement_floor=0.999)
    assert rung.passed is passed
    assert rung.agreement == (min(s for s in shares if s is not None) if shares[0] else None)
    assert dataclasses.replace(rung, agreement_floor=None).passed


@pytest.mark.parametrize(("floor", "passed"), [(0.011, True), (0.009, False)])
def test_the_greatest_loss_decides_the_task(floor: float, passed: bool) -> None:
    rung = TaskRung("task", floor, TASK)
    assert rung.loss == pytest.approx(0.01)
    assert rung.passed is passed


def test_losses_at_infinity() -> None:
    assert TaskMeasure("a", 1, math.inf, math.inf).loss == 0
    assert TaskMeasure("a", 1, -math.inf, -math.inf).loss == math.inf
    assert TaskMeasure("a", 1, math.inf, 90).loss == math.inf
    assert not TaskRung("task", 1e9, (TaskMeasure("a", 1, 30, -math.inf),)).passed


def test_json_is_strict_and_complete() -> None:
    measured = Rung("x", 100, (GOOD, SAME, NAN), agreement_floor=0.5, broken_block="layers.0", note="n")
    told = report(measured, TaskRung("task", 0.1, TASK)).to_json()
    again = json.loads(json.dumps(told, allow_nan=False))
    assert again == told
    assert again["subject"] == "a.onnx"
    assert again["passed"] is False
    assert again["spec"] == dataclasses.asdict(SPEC)
    assert again["runners"] == {"reference": {"target": "torch"}}
    first, task = again["rungs"]
    assert (first["worst"], first["passed"], first["broken_block"]) == ("-inf", False, "layers.0")
    assert [m["psnr"] for m in first["measures"]] == [130.0, "inf", "-inf"]
    assert first["measures"][2]["max_steps"] == "inf"
    assert first["measures"][0] == dataclasses.asdict(GOOD)
    assert task["passed"] is True
    assert set(task) == set(first), "both kinds of rungs have the same names"
    assert (task["floor"], task["worst"]) == (0.1, -TASK[0].loss) and (first["task"], task["measures"]) == ([], [])
    assert task["task"][0] == {"image": "cat", "baseline": 30, "reference": 32, "candidate": 31.99}


def test_rows_say_what_the_rungs_found() -> None:
    semantic = Rung("own", 80, (dataclasses.replace(GOOD, agreement=0.99985),), 0.999, note="as it is")
    broken = Rung("x", 100, (GOOD, BAD), broken_block="layers.3")
    rows = report_rows(report(semantic, broken, Rung("y", 100, (SAME,)), TaskRung("task", 0.05, TASK)))
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert rows[0] == ("own", ">= 80 dB", "130.0 dB, keys 99.9850% (0.010 steps)", "cat 4x5 130.0", "pass (as it is)")
    assert rows[1][2:] == ("70.0 dB (3.500 steps)", "cat 4x5 130.0, fox 4x5 70.0", "MISSED from layers.3")
    assert rows[2][2] == "identical (0.000 steps)"
    pictures = "cat 31.99 (input 30.00), dog 31.50 (input 30.00)"
    assert rows[3] == ("task", "loss <= 0.05 dB", "0.0100 dB lost", pictures, "pass")


def test_nothing_lost_has_no_sign() -> None:
    (row,) = report_rows(report(TaskRung("task", 0.05, (TaskMeasure("a", 1, 30, 30.000001),))))
    assert row[2] == "0.0000 dB lost"


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.inf, "identical"), (-math.inf, "not finite"), (math.nan, "not finite"), (99.96, "100.0 dB")],
)
def test_decibels_in_words(value: float, text: str) -> None:
    assert decibels(value) == text


@pytest.mark.parametrize(
    ("rung", "text"),
    [
        (Rung("x", 100, (GOOD, BAD)), "70.00 dB on the worst image, the floor is 100 dB"),
        (
            Rung("x", 100, (BAD,), broken_block="layers.0"),
            "70.00 dB on the worst image, the floor is 100 dB; the first block that differs: layers.0",
        ),
        (Rung("x", 100, (NAN, NAN)), "14 output values are NaN or infinite"),
        (
            Rung("x", 60, (dataclasses.replace(BAD, agreement=0.5),), agreement_floor=0.999),
            "50.000% of the keys agree, 99.9% are needed",
        ),
        (TaskRung("x", 0.009, TASK), "0.010 dB are lost against ground truth, 0.009 dB are allowed"),
    ],
)
def test_a_miss_is_explained(rung: Rung | TaskRung, text: str) -> None:
    assert not rung.passed
    assert describe_miss(rung) == text
