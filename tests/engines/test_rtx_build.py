"""Exported files parse and build with TensorRT-RTX, which needs no GPU for that; nothing is executed.

Every build runs in a process of its own: TensorRT keeps the first logger it sees, and its parser can abort.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.models import build_preset, randomise

from ..export import networks

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="the wheels tensorrt_rtx_cu13_libs and tensorrt_rtx_cu13_bindings are not installed",
)

TARGETS = ("SM86", "SM89")

BUILD = """
import collections, json, re, sys
import tensorrt_rtx_bindings as trt

path, target, profile = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.messages = []

    def log(self, severity, message):
        self.messages.append((severity, message))

log = Log()
builder = trt.Builder(log)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, log)
if not parser.parse_from_file(path):
    sys.exit("parse: " + "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
config = builder.create_builder_config()
config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the log then lists the layers of the engine
config.num_compute_capabilities = 1
config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
shapes = builder.create_optimization_profile()
shapes.set_shape("input", *(tuple(shape) for shape in profile))
config.add_optimization_profile(shapes)
plan = builder.build_serialized_network(network, config)
if plan is None:
    sys.exit("build: " + "; ".join(m for s, m in log.messages if s <= trt.ILogger.Severity.ERROR))
layers = collections.Counter()
for _, message in log.messages:
    if message.startswith("Layers:"):
        for line in message.split("\\n")[1:]:
            if not line.startswith("Name:"):
                break
            kind, number = re.search(r"LayerType: (\\w+)", line), re.search(r"Datatype: (\\w+)", line)
            layers[f"{kind[1]} {number[1] if number else '-'}"] += 1
print(json.dumps({
    "bytes": len(bytes(plan)),
    "output": [str(network.get_output(0).name), *network.get_output(0).shape],
    "layers": layers,
}))
"""


def build(path: Path, target: str, profile: list[tuple[int, ...]], limit: int = 300) -> dict[str, Any]:
    """Builds an engine in a child process; returns its size, output and layers by kind and number type."""
    answer = subprocess.run(
        [sys.executable, "-c", BUILD, str(path), target, json.dumps(profile)],
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert answer.returncode == 0, f"exit {answer.returncode}: {answer.stderr[-2000:]}"
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def free_profile(artifact: OnnxArtifact, largest: int = 6) -> list[tuple[int, ...]]:
    """From one window to `largest` by `largest` + 1, with up to two images."""
    m, channels = artifact.spec.pad_multiple, artifact.spec.channels
    return [(1, channels, m, m), (1, channels, 2 * m, 3 * m), (2, channels, largest * m, (largest + 1) * m)]


def products(layers: dict[str, int]) -> dict[str, int]:
    """Number of matrix products (gemm) by number type."""
    return {name.split()[1]: count for name, count in layers.items() if name.startswith("gemm ")}


def assert_float_products(result: dict[str, Any], artifact: OnnxArtifact) -> None:
    """The engine computes in float32: at least q k^T, the values, and the two layers of the MLP in every block."""
    found = products(result["layers"])
    blocks = sum(".blocks." in name for name in artifact.blocks)
    assert set(found) == {"Float"}, result["layers"]
    assert found["Float"] >= 4 * blocks, result["layers"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.folder(tmp_path_factory)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [*networks.ONE_A_FAMILY, "semanir-unet"])
def test_every_family_builds_with_free_sizes(kind: str, target: str, folder: Path) -> None:
    artifact = networks.exported(folder, kind)
    nodes = onnx.load(artifact.path).graph.node
    shifts = {a.i for node in nodes if node.domain == "agileir" for a in node.attribute if a.name == "shift_size"}
    assert shifts == {0, artifact.spec.window_size // 2}, "both forms of the operators must occur"
    result = build(artifact.path, target, free_profile(artifact))
    assert result["bytes"] > 10_000
    assert result["output"] == ["output", -1, artifact.spec.channels, -1, -1]
    assert_float_products(result, artifact)


def test_every_operator_occurs(folder: Path) -> None:
    seen = {name for kind in networks.ONE_A_FAMILY for name in networks.exported(folder, kind).operators}
    assert seen == {
        "GroupShiftedWindowAttention",
        "KeySemanticAttention",
        "KeySemanticDictionary",
        "ShiftedWindowAttention",
    }


def test_a_static_and_a_decomposed_file_build(folder: Path) -> None:
    static = networks.exported(folder, "swinir-light", static=(8, 12))
    result = build(static.path, "SM89", [(1, 3, 8, 12)] * 3)
    assert result["output"] == ["output", 1, 3, 16, 24]
    plain = networks.exported(folder, "agileir", decomposed=True)
    assert_float_products(build(plain.path, "SM89", free_profile(plain)), plain)


def test_a_model_that_does_not_build_is_reported(folder: Path, tmp_path: Path) -> None:
    """The test itself can fail: a node no parser knows, and a profile the graph contradicts."""
    artifact = networks.exported(folder, "swinir-light")
    model = onnx.load(artifact.path)
    model.graph.node[0].op_type = "NonZero"
    path = tmp_path / "broken.onnx"
    onnx.save(model, path)
    with pytest.raises(AssertionError, match=r"exit .*parse: "):
        build(path, "SM86", free_profile(artifact))
    wrong = [(1, 5, 4, 4)] * 3
    with pytest.raises(AssertionError, match=r"exit "):
        build(artifact.path, "SM86", wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "changes"),
    [("swinir_light_x2", {}), ("agileir_lightest_x2", {}), ("semanir_s_x2", {"top_k": 128})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_full_presets_build(preset: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = build_preset(preset, **changes)
    randomise(model, 0)
    artifact = export_onnx(model, tmp_path / "model.onnx")
    for target in TARGETS:
        result = build(artifact.path, target, free_profile(artifact, largest=4), limit=1800)
        assert_float_products(result, artifact)
