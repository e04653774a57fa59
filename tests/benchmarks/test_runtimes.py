"""Variants and table of benchmarks/runtimes.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from agileir_export.engines.openvino.runner import SETTINGS
from agileir_export.export import OnnxArtifact

from ..export import networks
from ..scripts import load_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "runtimes.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(SCRIPT)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_variants_are_the_same_file(bench: ModuleType, swinir: OnnxArtifact) -> None:
    settings = dict(SETTINGS)
    variants = bench.runners(swinir, swinir, 1)
    assert tuple(variants) == bench.VARIANTS
    assert settings == SETTINGS and "INFERENCE_PRECISION_HINT" in settings
    images = networks.images(1, 3, 8, 12)
    truth = variants[bench.REFERENCE].run(images)
    for name, runner in variants.items():
        assert runner.describe()["target"] == name.partition(" ")[0]
        assert networks.psnr(runner.run(images), truth) > (30 if "as it comes" in name else 100)


def test_the_table_has_times_over_the_reference(bench: ModuleType) -> None:
    numbers = dict(zip(bench.VARIANTS, np.linspace(1, 0.6, 5), strict=True))
    row = {"model": "m", "threads": 2, "side": 64, "seconds": {bench.REFERENCE: 0.2}, "ratio": numbers}
    told = bench.table([row | {"psnr": dict.fromkeys(bench.VARIANTS, "inf") | {"openvino int8": 41.4}}])
    assert (
        told.splitlines()[-1]
        == "| m | 2 | 64x64 | 200 ms | 0.90 (inf dB) | 0.80 (inf dB) | 0.70 (inf dB) | 0.60 (41 dB) |"
    )
