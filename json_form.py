"""What JSON holds of the package's objects: their fields by name, and numbers it has no form for as strings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["JsonForm", "json_number", "plain"]


def json_number(x: float) -> float | str:
    """A number as strict JSON can hold it: "inf", "-inf" and "nan" become strings."""
    x = float(x)
    if math.isfinite(x):
        return x
    return "nan" if math.isnan(x) else "inf" if x > 0 else "-inf"


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
