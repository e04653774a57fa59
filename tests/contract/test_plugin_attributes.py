"""The plugins' attributes reach every TensorRT whichever NumPy is installed."""

from __future__ import annotations

import numpy as np
import pytest

from agileir_export.plugins.catalogue import OPERATORS

from .lean_tensorrt import VERSIONS, answer, make_or_skip


@pytest.mark.parametrize("version", VERSIONS)
def test_attributes_survive_numpy(version: str) -> None:
    pytest.importorskip("triton", reason="plugins are registered only where their kernels can be compiled")
    told = answer("plugin_attributes.py", environment=make_or_skip(version).variables())
    assert told["numpy"] == np.__version__
    assert told["created"] == {operator.name: "" for operator in OPERATORS.values()}
    trapped = version.startswith("10.") and tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4)
    assert ("only 0-dimensional arrays" in told["control"]) == trapped, (
        "a scalar attribute shows whether the trap is there"
    )
