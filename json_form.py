"""What JSON holds of the package's objects: their fields by name, and numbers it has no form for as strings."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["JsonForm", "json_number", "parse_json", "plain"]


def json_number(x: float) -> float | str:
    """A number as strict JSON can hold it: "inf", "-inf" and "nan" become strings."""
    x = float(x)
    if math.isfinite(x):
        return x
    return "nan" if math.isnan(x) else "inf" if x > 0 else "-inf"


def parse_json(text: str | bytes) -> Any:
    """What a JSON document that may come from anywhere holds; its numbers are finite.

    Raises:
        ValueError: It is no JSON, nested too deeply to be read, or a number is NaN or too large.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("its objects are nested too deeply") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON")
    return number


def plain(value: Any) -> Any:
    """A value as strict JSON can hold it; tuples become lists, paths strings, dataclasses their fields by name."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    return json_number(value) if isinstance(value, float) else value


@dataclasses.dataclass(frozen=True)
class JsonForm:
    """A dataclass that tells its fields as JSON."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name as a JSON object; infinite numbers are strings."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
