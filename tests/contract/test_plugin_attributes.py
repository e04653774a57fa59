"""The plugins' attributes reach every TensorRT whichever NumPy is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import agileir_export
from agileir_export.plugins.catalogue import OPERATORS

from .lean_tensorrt import VERSIONS, make_or_skip

PROGRAM = Path(__file__).with_name("plugin_attributes.py")


@pytest.mark.parametrize("version", VERSIONS)
def test_attributes_survive_numpy(version: str) -> None:
    pytest.importorskip("triton", reason="plugins are registered only where their kernels can be compiled")
    environment = make_or_skip(version)
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        capture_output=True,
        text=True,
        env=environment.variables(str(Path(agileir_export.__file__).parents[1])),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["numpy"] == np.__version__
    assert answer["created"] == {operator.name: "" for operator in OPERATORS.values()}
    trapped = version.startswith("10.") and tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4)
    assert ("only 0-dimensional arrays" in answer["control"]) == trapped, (
        "a scalar attribute shows whether the trap is there"
    )
