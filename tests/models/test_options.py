"""What a model is loaded with, and what is kept of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agileir_export.errors import InputError
from agileir_export.models import LoadOptions, load_model


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {}),
        ({"attention": "paper"}, {}),
        ({"attention": "bypassed", "top_k": 0, "random_weights": 0}, None),
        ({"weights": Path("folder") / "a.pth", "top_k": None}, {"weights": "a.pth"}),
        ({"weights": "folder/a.pth", "random_weights": 3}, {"weights": "a.pth", "random_weights": 3}),
    ],
)
def test_what_is_kept_of_options(given: dict[str, Any], kept: dict[str, Any] | None) -> None:
    options = LoadOptions(**given)
    assert options.to_json() == (given if kept is None else kept)
    assert set(options.given()) == set(options.to_json())
    if "weights" not in given:
        assert LoadOptions.from_json({"model": "a", "torch": "2", **options.to_json()}) == options


def test_a_form_of_attention_must_be_known() -> None:
    with pytest.raises(InputError, match="'none' is not known"):
        LoadOptions(attention="none")


def test_keywords_go_before_options() -> None:
    model = load_model("semanir_tiny_x2", LoadOptions(top_k=3, random_weights=0), top_k=5)
    assert model.spec.top_k == 5
    with pytest.raises(TypeError, match="topk"):
        load_model("semanir_tiny_x2", topk=5)
