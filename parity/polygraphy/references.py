"""The references of the operators in NumPy (`Operator.reference`), for polygraphy's runner ``--pluginref``.

Importing this registers them with polygraphy. That runner knows only operators with a reference, so it runs a subgraph
around one of our nodes (``polygraphy surgeon extract``), not a whole network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polygraphy.backend.pluginref import references
from polygraphy.logger import G_LOGGER

from ...plugins import OPERATORS, Operator

__all__: list[str] = []


def _register(operator: Operator) -> None:
    compute = operator.reference()

    def reference(attrs: Mapping[str, Any], *inputs: Any) -> list[Any]:
        try:
            return [compute(*inputs, **{name: int(attrs[name]) for name in operator.attributes})]
        except ValueError as error:
            G_LOGGER.critical(f"{operator.name}: {error}.")
            raise

    references.register(operator.name)(reference)


for _operator in OPERATORS.values():
    _register(_operator)
