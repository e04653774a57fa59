"""``onnx --fp16`` of a network that outgrows float16: the rescale is on by default, and can be left out to compare."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ..export import networks
from ..export.blown_up import blow_up
from .command import KIND, SIZES, document, run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose stream passes 5e5."""
    path = tmp_path_factory.mktemp("blown-up") / "blown-up.pth"
    pixels = torch.from_numpy(networks.images(1, 3, 24, 24))
    torch.save(blow_up(networks.shared(KIND), pixels).state_dict(), path)
    return path


def test_fp16_is_rescaled_where_it_must(checkpoint: Path) -> None:
    result = run("onnx", checkpoint, "-o", "half.onnx", "--fp16", *SIZES, "--json")
    assert result.exit_code == 0
    assert "was divided by 2^" in result.stderr and "keeps every bit" in result.stderr
    found = document(result)
    report = found["artifact"]["rescale_report"]
    assert report["bit_identical"] is True and report["changed"] is True and report["images"]
    assert set(found["artifact"]["rescale"]) <= set(found["artifact"]["blocks"])
    assert found["parity"]["passed"] is True


def test_without_it_the_ladder_names_the_block(checkpoint: Path) -> None:
    result = run("onnx", checkpoint, "-o", "half.onnx", "--fp16", "--no-rescale", *SIZES)
    assert result.exit_code == 1
    assert "NaN or infinite" in result.stderr and "the first block that differs: layers." in result.stderr
