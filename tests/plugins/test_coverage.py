"""Files are asked for operators that have no kernel before TensorRT asks for the kernel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from agileir_export.errors import Unsupported
from agileir_export.export import export_onnx
from agileir_export.plugins import Operator
from agileir_export.plugins.coverage import require_kernels

from ..export import networks
from ..export.written import half_file

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.parametrize("kind", ["swinir-light", "agileir", "semanir", "semanir-unet"])
def test_small_networks_have_their_kernels(kind: str, folder: Path, tmp_path: Path) -> None:
    artifact = networks.exported(folder, kind)
    require_kernels(onnx.load(artifact.path))
    for precision in ("float16", "bfloat16"):
        half = half_file(artifact, tmp_path / f"{precision}.onnx", precision)
        require_kernels(onnx.load(half.path))


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("swinir-light", {"embed_dim": 144, "num_heads": (2, 2)}, "heads up to 64 wide, got 72"),
        ("agileir", {"window_size": 17}, "windows of 256 tokens"),
    ],
)
def test_what_is_too_large_is_named(kind: str, changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    artifact = export_onnx(networks.build(kind, **changes), tmp_path / "large.onnx")
    model = onnx.load(artifact.path)
    with pytest.raises(Unsupported, match=reason) as caught:
        require_kernels(model)
    first = next(node.name for node in model.graph.node if node.domain == "agileir")
    assert first in caught.value.what
    assert "--attention decomposed" in caught.value.fix
    del model.graph.value_info[:]
    require_kernels(model)  # of sizes that the file does not tell, nothing can be said


def test_a_mistake_in_planning_is_no_missing_kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*arguments: object) -> None:
        _, _ = arguments

    artifact = networks.exported(folder, "swinir-light")
    monkeypatch.setattr(Operator, "kernels", lambda operator: SimpleNamespace(launch=mistaken))
    with pytest.raises(ValueError, match="too many values to unpack"):
        require_kernels(onnx.load(artifact.path))
