"""How many layers go back to float, on costs that are known."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from agileir_export.calib.quality import Quality
from agileir_export.calib.search import costliest_first, fewest_promotions
from agileir_export.errors import ParityMissed

COSTS = {"a": 0.01, "b": 0.2, "c": 0.03, "d": 0.05, "e": 0.0}


def additive(kept: Collection[str]) -> Quality:
    loss = sum(COSTS[name] for name in kept)
    return Quality(loss, loss / 2, 60 - 100 * loss)


def test_the_costliest_come_first_and_parity_decides_between_equals() -> None:
    costs = {name: additive([name]) for name in COSTS}
    assert costliest_first(list(COSTS), costs) == ["b", "d", "c", "a", "e"]
    blind = {"x": Quality(None, None, 50.0), "y": Quality(None, None, 40.0)}
    assert costliest_first(["x", "y"], blind) == ["y", "x"]


@pytest.mark.parametrize(
    ("budget", "kept"),
    [(1.0, "bdcae"), (0.29, "bdcae"), (0.28, "dcae"), (0.09, "dcae"), (0.05, "cae"), (0.01, "ae"), (0.0, "e")],
)
def test_as_few_as_the_budget_asks_for(budget: float, kept: str) -> None:
    order = costliest_first(list(COSTS), {name: additive([name]) for name in COSTS})
    asked: list[int] = []

    def judge(names: Collection[str]) -> Quality:
        asked.append(len(names))
        return additive(names)

    found, quality = fewest_promotions(order, judge, budget + 1e-9, -1000.0)
    assert "".join(found) == kept
    assert quality == additive(kept)
    assert asked[0] == 5 and len(asked) <= 4


def test_the_parity_floor_counts_as_well() -> None:
    order = ["b", "d", "c", "a", "e"]
    found, _ = fewest_promotions(order, additive, 10.0, 57.0)
    assert found == ["a", "e"] or found == ["c", "a", "e"]
    assert additive(found).parity >= 57.0
    assert additive(["d", *found]).parity < 57.0


def test_some_can_be_promoted_beforehand() -> None:
    order = ["b", "d", "c", "a", "e"]
    assert fewest_promotions(order, additive, 10.0, -1000.0, at_least=2)[0] == ["c", "a", "e"]


def test_a_budget_that_nothing_holds_is_an_error_with_figures() -> None:
    with pytest.raises(ParityMissed, match=r"No layer can be INT8 within 0.001 dB .* loses 0.010 dB") as caught:
        fewest_promotions(["b", "a"], additive, 0.001, 0.0)
    assert caught.value.exit_code == 1
    with pytest.raises(ParityMissed, match=r"-?inf|not a number|nan"):
        fewest_promotions(["x"], lambda kept: Quality(float("inf"), float("inf"), float("-inf")), 0.1, 38.0)
