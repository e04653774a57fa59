"""Exported files parse and build with TensorRT-RTX, which needs no GPU for that; nothing is executed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.engines.building.engine import make_engine
from agileir_export.engines.building.process import BuildResult, build_in_process
from agileir_export.engines.building.request import BuildRequest
from agileir_export.engines.profile_choice import choose_profiles
from agileir_export.engines.profiles import Profile
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.models import build_preset, randomise
from agileir_export.plugins import OPERATORS

from ..export import networks
from ..export.written import half_file
from .builds import request
from .rtx_builds import kernels_of, needs_rtx

pytestmark = needs_rtx

GPUS = ("sm86", "sm89")


def asked(artifact: OnnxArtifact, gpu: str, profile: Profile) -> BuildRequest:
    return request(artifact.path, gpus=(gpu,), profiles=(profile,))


def free_profile(artifact: OnnxArtifact, largest: int = 6) -> Profile:
    """From one window to `largest` by `largest` + 1, with up to two images."""
    m = artifact.spec.pad_multiple
    return Profile((1, m, m), (1, 2 * m, 3 * m), (2, largest * m, (largest + 1) * m))


def products(result: BuildResult) -> Counter[str]:
    """Number of matrix products by number type."""
    return Counter(kernel.precision for kernel in kernels_of(result) if kernel.kind in ("gemm", "attention"))


def assert_float_products(result: BuildResult, artifact: OnnxArtifact) -> None:
    """The engine computes in float32: at least q k^T, the values, and the two layers of the MLP in every block."""
    found = products(result)
    blocks = sum(".blocks." in name for name in artifact.blocks)
    assert set(found) == {"float32"}, found
    assert found["float32"] >= 4 * blocks, found


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("kind", [*networks.ONE_A_FAMILY, "semanir-unet"])
def test_every_family_builds_with_free_sizes(kind: str, gpu: str, folder: Path) -> None:
    artifact = networks.exported(folder, kind)
    nodes = onnx.load(artifact.path).graph.node
    shifts = {a.i for node in nodes if node.domain == "agileir" for a in node.attribute if a.name == "shift_size"}
    assert shifts == {0, artifact.spec.window_size // 2}, "both forms of the operators must occur"
    result = build_in_process(asked(artifact, gpu, free_profile(artifact)))
    assert len(result.plan) > 10_000
    assert_float_products(result, artifact)


def test_every_operator_occurs(folder: Path) -> None:
    seen = {name for kind in networks.ONE_A_FAMILY for name in networks.exported(folder, kind).operators}
    assert seen == set(OPERATORS)


def test_a_static_and_a_decomposed_file_build(folder: Path) -> None:
    static = networks.exported(folder, "swinir-light", static=(8, 12))
    assert_float_products(build_in_process(asked(static, "sm89", Profile(*[(1, 8, 12)] * 3))), static)
    plain = networks.exported(folder, "agileir", decomposed=True)
    assert_float_products(build_in_process(asked(plain, "sm89", free_profile(plain))), plain)


@pytest.mark.slow
def test_fused_attention_in_half_precision_passes_its_audit(tmp_path: Path) -> None:
    """Heads of a preset's width become one kernel, whose bias and mask are float32 inputs."""
    model = build_preset("swinir_light_x2", depths=(2,), num_heads=(6,))
    randomise(model, 0)
    half = half_file(export_onnx(model, tmp_path / "model.onnx"), tmp_path / "half.onnx", "float16")
    asking = request(half.path, precision="float16", profiles=choose_profiles(half))
    audit = make_engine(half, asking).audit
    assert audit.passed, audit.problems
    attention = [(share.precision, share.share) for share in audit.shares if share.kind == "attention"]
    assert attention == [("float16", 1.0)]


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
    result = build_in_process(request(artifact.path, gpus=GPUS, profiles=(free_profile(artifact, largest=4),)))
    assert_float_products(result, artifact)
