"""How a model is loaded: the frozen `LoadOptions` and its JSON form."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["ATTENTION_FORMS", "LoadOptions"]

ATTENTION_FORMS = ("paper", "bypassed")
"""Forms of an attention that the paper and the released code have differently; the first is the default."""


@dataclass(frozen=True)
class LoadOptions:
    """What `load_model` may be told besides the model; None means the default.

    Attributes:
        weights: Checkpoint for a preset.
        random_weights: Seed of random weights for a preset, >= 0.
        top_k: Keys per query of a SemanIR model, instead of its own.
        attention: ``"bypassed"`` for AgileIR's released behaviour (the attention has no effect); ``"paper"`` is the
            default and becomes None.
        img_range: Factor between 0..1 images and the range the network was trained in (1 or 255, as a rule), > 0,
            where it is not the model's own or the one that was guessed.

    Raises:
        InputError: An unknown form of attention, or a range that is not a number > 0.
    """

    weights: str | Path | None = None
    random_weights: int | None = None
    top_k: int | None = None
    attention: str | None = None
    img_range: float | None = None

    def __post_init__(self) -> None:
        if self.attention not in (None, *ATTENTION_FORMS):
            raise InputError(
                f"The attention form {self.attention!r} is not known.",
                fix=f"Choose one of {', '.join(ATTENTION_FORMS)}.",
            )
        if self.attention == ATTENTION_FORMS[0]:
            object.__setattr__(self, "attention", None)
        if self.img_range is not None:
            if not 0 < self.img_range < math.inf:
                raise InputError(f"The range of a network must be a number above 0, got {self.img_range}.")
            object.__setattr__(self, "img_range", float(self.img_range))

    def given(self) -> dict[str, Any]:
        """The options that are not left at their default, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """The options given; of a checkpoint only the name is kept, never the folder."""
        given = self.given()
        return given | {"weights": Path(given["weights"]).name} if "weights" in given else given

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LoadOptions:
        """Inverse of `to_json` but for `weights`, whose folder is not known; `data` may hold other facts, too."""
        names = {field.name for field in dataclasses.fields(cls)} - {"weights"}
        return cls(**{name: data[name] for name in names & data.keys()})
