"""The floors of the ladder: what a rung must reach."""

from __future__ import annotations

__all__ = ["AGREEMENT_FLOORS", "DICTIONARY_FLOORS", "FLOORS", "FOLDED_FLOOR", "file_floor", "own_dictionary_floor"]

FOLDED_FLOOR = 120.0
"""dB between a model and its folded copy."""

FLOORS = {"float32": 100.0, "float16": 60.0, "bfloat16": 45.0, "int8": 38.0}
"""dB between PyTorch in float32 and an ONNX file, by the file's precision."""

DICTIONARY_FLOORS = {"float32": 80.0, "float16": 50.0}
"""dB where a model chooses keys itself: a near-tie flips by rounding alone and moves its pixel."""

AGREEMENT_FLOORS = {"float32": 0.999, "float16": 0.99, "bfloat16": 0.99, "int8": 0.95}
"""Share of the keys that both dictionaries hold. In INT8 it guards against a choice that fell apart; what counts there
is the loss against ground truth, for keys that 8 bits exchange are nearly equal ones."""


def own_dictionary_floor(precision: str) -> float:
    """Floor in dB of a model that chooses keys itself: that of `DICTIONARY_FLOORS`, else the ordinary one."""
    return DICTIONARY_FLOORS.get(precision, FLOORS[precision])


def file_floor(precision: str, top_k: int | None) -> float:
    """What the ladder asks of a file as it is: less where a model (with `top_k` keys) chooses its keys itself."""
    return FLOORS[precision] if top_k is None else own_dictionary_floor(precision)
