"""TensorRT-RTX builds in a process of their own, for tests that read the builder's log."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="the wheels tensorrt_rtx_cu13_libs and tensorrt_rtx_cu13_bindings are not installed",
)

BUILD = """
import json, sys
import tensorrt_rtx_bindings as trt

class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.messages = []

    def log(self, severity, message):
        self.messages.append(message)

path, targets, profile, detailed, answer = json.loads(sys.argv[1])
log = Log()
builder = trt.Builder(log)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, log)
if not parser.parse_from_file(path):
    sys.exit("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
config = builder.create_builder_config()
if detailed:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
config.num_compute_capabilities = len(targets)
for number, target in enumerate(targets):
    config.set_compute_capability(getattr(trt.ComputeCapability, target), number)
if profile:
    shapes = builder.create_optimization_profile()
    shapes.set_shape("input", *map(tuple, profile))
    config.add_optimization_profile(shapes)
if builder.build_serialized_network(network, config) is None:
    sys.exit("no plan")
with open(answer, "w") as stream:
    json.dump(log.messages, stream)
"""


def log_of_build(
    path: Path,
    targets: tuple[str, ...] = ("SM86",),
    profile: list[tuple[int, ...]] | None = None,
    detailed: bool = True,
) -> list[str]:
    """All messages of a build; the plan is thrown away."""
    answer = path.with_suffix(".messages.json")
    arguments = json.dumps([str(path), targets, profile, detailed, str(answer)])
    done = subprocess.run([sys.executable, "-c", BUILD, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-2000:]}"
    messages: list[str] = json.loads(answer.read_text())
    return messages
