"""The script that ``polygraphy run --trt`` makes registers our plugins with the real TensorRT bindings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..export import networks
from ..parity import polygraphy_tool
from .lean_tensorrt import MIDDLE, NEWEST, OPERATORS, make_or_skip

PROGRAM = """
import json, sys
import tensorrt as trt

def known():
    registry = trt.get_plugin_registry()
    return [name for name in json.loads(sys.argv[2]) if registry.get_creator(name, "1", "agileir") is not None]

script = open(sys.argv[1]).read()
loaders = {}
exec(script[: script.index("# Runners")], loaders)
before, loaded = known(), loaders["with_plugins"]()
print(json.dumps({"before": before, "loaded": loaded, "after": known()}))
"""
"""Runs the script as far as its loaders: without a GPU there is no builder."""


@pytest.mark.parametrize("version", [NEWEST, pytest.param(MIDDLE, marks=pytest.mark.slow)])
def test_the_plugins_are_registered_when_the_file_is_read(version: str, tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")
    environment = make_or_skip(version)
    model = networks.exported(folder, "swinir-light").path
    installed = polygraphy_tool.install(tmp_path / "installed")
    variables = polygraphy_tool.environment(installed)
    script = tmp_path / "script.py"
    made = polygraphy_tool.shell(installed, f"polygraphy run '{model}' --trt --gen-script '{script}'", tmp_path)
    assert made.returncode == 0, made.stdout
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(script), json.dumps(OPERATORS)],
        capture_output=True,
        text=True,
        env=variables | environment.variables(variables["PYTHONPATH"]),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["before"], told["after"]) == ([], OPERATORS)
    assert Path(told["loaded"]).name == model.name and told["loaded"] != str(model), "the file in the plugins' form"
