"""What a loaded model remembers of how it was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .options import LoadOptions

__all__ = ["Assumption", "Origin"]


@dataclass(frozen=True)
class Assumption:
    """A value that weights do not hold.

    Attributes:
        value: What the model runs with.
        why: Where it comes from.
    """

    value: Any
    why: str


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        model: Preset, packaged model, or name of the checkpoint, never its folder.
        options: How it was loaded.
        read: Hyper-parameters read off the weights, by name.
        assumed: What weights do not hold, by name.
        branch: Of a checkpoint with wrappers and prefixes, the keys (joined by dots) that led to the weights.
        left_out: Branches of the checkpoint that were not taken.
    """

    model: str
    options: LoadOptions = field(default_factory=LoadOptions)
    read: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, Assumption] = field(default_factory=dict)
    branch: str = ""
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Provenance of an exported file: what `load_model` was asked for."""
        return {"model": self.model, **self.options.to_json()}
