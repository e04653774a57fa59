"""How many layers go back to float, on costs that are known."""

from __future__ import annotations

import math
from collections.abc import Collection

import pytest

from agileir_export.calib.options import CalibrationOptions
from agileir_export.calib.quality import Quality
from agileir_export.calib.search import fewest_promotions, greatest_loss_first
from agileir_export.errors import ParityMissed

COSTS = {"a": 0.01, "b": 0.2, "c": 0.03, "d": 0.05, "e": 0.0}


def additive(kept: Collection[str]) -> Quality:
    loss = sum(COSTS[name] for name in kept)
    return Quality(loss, loss / 2, 60 - 100 * loss)


def allowed(budget: float = 0.1, parity: float = -1000.0) -> CalibrationOptions:
    return CalibrationOptions(psnr_budget=budget, min_parity=parity)


def ordered() -> list[str]:
    return greatest_loss_first(list(COSTS), {name: additive([name]) for name in COSTS}, allowed())


def test_the_costliest_come_first_whatever_they_cost() -> None:
    assert ordered() == ["b", "d", "c", "a", "e"]
    options = CalibrationOptions(psnr_budget=0.1, min_parity=40.0, min_agreement=0.99)
    costs = {
        "noise": Quality(None, None, 46.0),  # half the amplitude that is allowed
        "loss": Quality(0.09, 0.0, 90.0),
        "keys": Quality(0.0, 0.0, 90.0, agreement=0.98),  # twice as many as may differ
        "none": Quality(-0.01, 0.0, math.inf, agreement=1.0),
    }
    assert greatest_loss_first(list(costs), costs, options) == ["keys", "loss", "noise", "none"]
    assert [costs[name].holds(options) for name in costs] == [True, True, False, True]
    assert costs["noise"].usage(options) == pytest.approx(0.5, rel=0.01)
    assert not Quality(None, None, -math.inf).holds(options)
    assert not Quality(math.inf, math.inf, -math.inf).holds(options)
    exact = CalibrationOptions(psnr_budget=0.0, min_agreement=1.0)
    assert Quality(0.0, 0.0, 90.0, 1.0).holds(exact)
    assert not Quality(1e-9, 0.0, 90.0, 1.0).holds(exact)
    assert not Quality(0.0, 0.0, 90.0, 0.9999).holds(exact)


@pytest.mark.parametrize(
    ("budget", "kept"),
    [(1.0, "bdcae"), (0.29, "bdcae"), (0.28, "dcae"), (0.09, "dcae"), (0.05, "cae"), (0.01, "ae"), (0.0, "e")],
)
def test_as_few_as_the_budget_asks_for(budget: float, kept: str) -> None:
    asked: list[int] = []

    def judge(names: Collection[str]) -> Quality:
        asked.append(len(names))
        return additive(names)

    found, quality = fewest_promotions(ordered(), judge, allowed(budget + 1e-9))
    assert "".join(found) == kept
    assert quality == additive(kept)
    assert asked[0] == 5 and len(asked) <= 4


def test_the_parity_floor_counts_as_well() -> None:
    found, _ = fewest_promotions(ordered(), additive, allowed(10.0, 57.0))
    assert found == ["a", "e"] or found == ["c", "a", "e"]
    assert additive(found).parity >= 57.0
    assert additive(["d", *found]).parity < 57.0


def test_some_can_be_promoted_beforehand() -> None:
    assert fewest_promotions(ordered(), additive, allowed(10.0), at_least=2)[0] == ["c", "a", "e"]


def test_a_budget_that_nothing_holds_is_an_error_with_figures() -> None:
    with pytest.raises(ParityMissed, match=r"No layer can be INT8 within 0.001 dB .* 0.0100 dB lost") as caught:
        fewest_promotions(["b", "a"], additive, allowed(0.001))
    assert caught.value.exit_code == 1
    with pytest.raises(ParityMissed, match="not finite from float"):
        fewest_promotions(["x"], lambda kept: Quality(math.inf, math.inf, -math.inf), allowed())
