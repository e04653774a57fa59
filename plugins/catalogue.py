"""All operators: the sub-packages of this package, each with its entry `OPERATOR`. And all that becomes a plugin."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from .half_block_plugins import HALF_BLOCKS
from .registry import Operator, Plugin

__all__ = ["BY_TORCH_NAME", "CALLS", "OPERATORS", "PLUGINS", "by_name"]

Entry = TypeVar("Entry", bound=Plugin)


def by_name(operators: Iterable[Entry]) -> dict[str, Entry]:
    """Operators by ONNX name.

    Raises:
        ValueError: Two have one name.
    """
    found: dict[str, Entry] = {}
    for operator in operators:
        if operator.name in found:
            raise ValueError(f"operator {operator.name} is registered twice")
        found[operator.name] = operator
    return found


OPERATORS: dict[str, Operator] = by_name(
    importlib.import_module(f".{folder.name}", __package__).OPERATOR
    for folder in pkgutil.iter_modules([str(Path(__file__).parent)])
    if folder.ispkg
)
"""All operators by ONNX name."""

PLUGINS: Mapping[str, Plugin] = by_name([*OPERATORS.values(), *HALF_BLOCKS])
"""All that TensorRT runs as a plugin, by name."""

BY_TORCH_NAME = {operator.torch_name: operator for operator in OPERATORS.values()}
"""All operators by their name under ``torch.ops``."""

CALLS = tuple(call for operator in OPERATORS.values() for call in operator.calls)
"""One call for every operator of every preset that differs in shape; of U-shaped networks the finest level.

Layers without a shift differ in ``shift_size`` alone, and level l of a U-shaped network in ``2^l`` times the channels
and heads.
"""
