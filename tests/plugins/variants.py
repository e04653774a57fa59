"""The calls of the presets beside those listed in `CALLS`: layers without a shift, and coarser levels."""

from __future__ import annotations

from dataclasses import replace

from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import CALLS

LEVELS = {"SemanIR restoration": 3, "SemanIR tiny denoising": 2}
"""Levels of the U-shaped networks."""


def straight(call: Call) -> Call:
    return replace(call, label=f"{call.label}, no shift", attributes={**call.attributes, "shift_size": 0})


def coarser(call: Call, level: int) -> Call:
    wider = {name: value << level for name, value in call.attributes.items() if name == "num_heads"}
    label = f"{call.label}, level {level}"
    return replace(call, label=label, channels=call.channels << level, attributes={**call.attributes, **wider})


STRAIGHT = tuple(straight(call) for call in CALLS if "shift_size" in call.attributes)
_SHIFTED = tuple(coarser(call, level) for call in CALLS for level in range(1, LEVELS.get(call.label, 1)))
COARSER = (*_SHIFTED, *(straight(call) for call in _SHIFTED))
