"""What a calibration found: the loss of every layer, what was kept in INT8, and what the file loses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..json_form import JsonForm
from ..parity.tables import decibels
from .layers import Arithmetic, Layer
from .quality import Quality, describe
from .recipe import Recipe

__all__ = ["COLUMNS", "FEW", "INT8", "CalibrationReport", "LayerResult", "layer_results"]

COLUMNS = ("layer", "MACs/pixel", "loss dB", "parity", "keys", "type")

FEW = 0.2
"""Share of all multiplications in INT8 below which FP16 is the better choice."""

INT8, PROMOTED, END = "int8", "promoted", "end"


@dataclass(frozen=True)
class LayerResult(JsonForm):
    """One layer.

    Attributes:
        name: Module path.
        macs: Multiply-accumulate operations for one pixel of the network's input.
        decision: ``"int8"``; ``"promoted"``: float, for the budget; ``"end"``: float, for it stands between image and
            features and those layers were not asked for.
        quality: What this layer alone in INT8 loses; None where it was not measured.
    """

    name: str
    macs: float
    decision: str
    quality: Quality | None

    def to_json(self) -> dict[str, Any]:
        """The layer as a JSON object."""
        told = super().to_json()
        return told | {"alone": told.pop("quality")}


@dataclass(frozen=True)
class CalibrationReport(JsonForm):
    """A calibration.

    Attributes:
        recipe: What the file was made with.
        rest: Type of what is not INT8: ``"float32"`` or ``"float16"``.
        layers: Every layer, in the order of the graph.
        share: Share (0..1) of all multiplications that is INT8.
        share_outside: The same of those outside the operators, which stay float.
        quality: What the written file loses; None where a given recipe was applied without measuring.
        plain: All layers but the ends in INT8, without equalisation.
        equalised: The same with equalisation; None where there is nothing to equalise or it was not tried.
        floor: Least parity in dB.
        images: Number of calibration images.
        skipped: Files that could not be read.
        pictures: Names of the pictures that were judged on, with ground truth marked.
        notes: What a reader should know.
    """

    recipe: Recipe
    rest: str
    layers: tuple[LayerResult, ...]
    share: float
    share_outside: float
    quality: Quality | None = None
    plain: Quality | None = None
    equalised: Quality | None = None
    floor: float = 0.0
    images: int = 0
    skipped: int = 0
    pictures: tuple[tuple[str, bool], ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object; infinite numbers are strings."""
        told = super().to_json()
        pictures = [{"name": name, "ground_truth": truth} for name, truth in self.pictures]
        return told | {"share_outside_operators": told.pop("share_outside"), "pictures": pictures}

    def rows(self) -> list[tuple[str, ...]]:
        """Lines of a table with the headings `COLUMNS`."""
        return [_row(layer, self.rest) for layer in self.layers]

    def summary(self) -> list[tuple[str, str]]:
        """What, and the figure: lines of a table."""
        recipe = self.recipe
        method = recipe.method if recipe.percentile is None else f"{recipe.method} {recipe.percentile:g} %"
        lines = [
            ("calibration", f"{method}, {recipe.crops} crops"),
            ("layers in INT8", f"{len(recipe.int8)} of {len(self.layers)}"),
            ("multiplications in INT8", f"{self.share:.1%} of all, {self.share_outside:.1%} outside the operators"),
        ]
        for name, quality in (
            ("all layers, as they are", self.plain),
            ("all layers, equalised", self.equalised),
            ("the file", self.quality),
        ):
            if quality is not None:
                lines.append((name, describe(quality)))
        return lines


def _row(layer: LayerResult, rest: str) -> tuple[str, ...]:
    kind = {INT8: "int8", PROMOTED: f"{rest} (promoted)", END: f"{rest} (end)"}[layer.decision]
    loss = parity = keys = "-"
    if layer.quality is not None:
        keys = "-" if layer.quality.agreement is None else f"{layer.quality.agreement:.2%}"
        loss = "-" if layer.quality.loss is None else f"{layer.quality.loss:.4f}"
        parity = decibels(layer.quality.parity)
    return layer.name, f"{layer.macs:.0f}", loss, parity, keys, kind


def layer_results(
    layers: Sequence[Layer], arithmetic: Arithmetic, int8: Collection[str], losses: Mapping[str, Quality]
) -> tuple[LayerResult, ...]:
    """Every layer with what was decided about it."""
    return tuple(
        LayerResult(
            layer.name,
            arithmetic.layers[layer.name],
            INT8 if layer.name in int8 else END if layer.end else PROMOTED,
            losses.get(layer.name),
        )
        for layer in layers
    )
