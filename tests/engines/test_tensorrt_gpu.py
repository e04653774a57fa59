"""The TensorRT runner on a real GPU. Nothing here has a stand-in; `pytest -m gpu` runs it where there is one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from agileir_export.engines import OnnxRuntimeRunner, TensorRTRunner
from agileir_export.engines.artifact import EngineArtifact
from agileir_export.engines.building.engine import build_engine
from agileir_export.engines.doctor import diagnose
from agileir_export.engines.profiles import Profile
from agileir_export.engines.targets import TARGETS, load_target
from agileir_export.engines.tensorrt.device_memory import open_memory
from agileir_export.engines.tensorrt.plan_loading import deserialize
from agileir_export.errors import AgileIRError, InputError
from agileir_export.export import OnnxArtifact
from agileir_export.export.artifact import read_artifact

from ..export import networks
from ..scripts import load_script
from .builds import request

pytestmark = pytest.mark.gpu

SUMS = "AGILEIR_EXPORT_PRODUCTS_AS_SUMS"
"""Environment variable: networks without products outside the plugins, for a TensorRT without kernels for them."""

FLOOR = 80.0
"""dB against ONNX Runtime: both compute in float32, in another order, and TF32 is off."""


@pytest.fixture(params=list(TARGETS))
def target(request: pytest.FixtureRequest) -> str:
    name = request.param
    check = TARGETS[name].check.replace("build", "run")
    verdict = next(verdict for verdict in diagnose().targets if verdict.name == check)
    if not verdict.works:
        pytest.skip(verdict.why_not)
    if not torch.cuda.is_available():
        pytest.skip("PyTorch reaches no GPU")
    return name


@pytest.fixture(scope="session")
def built() -> dict[tuple[str, str, bool], EngineArtifact]:
    """Engines by target, network and use of plugins: TensorRT needs up to minutes for one."""
    return {}


@pytest.fixture
def engine(
    target: str,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    built: dict[tuple[str, str, bool], EngineArtifact],
) -> Callable[..., tuple[EngineArtifact, OnnxArtifact]]:
    def build(kind: str, plugins: bool = False) -> tuple[EngineArtifact, OnnxArtifact]:
        artifact = networks.exported(folder, kind)
        if SUMS in os.environ:
            artifact, plugins = written_as_sums(artifact), True
        key = target, kind, plugins
        if key not in built:
            multiple = artifact.spec.pad_multiple
            whole = Profile((1, multiple, multiple), (1, 8 * multiple, 8 * multiple), (2, 16 * multiple, 16 * multiple))
            tile = Profile(*[(4, 8 * multiple, 8 * multiple)] * 3)
            path = tmp_path_factory.mktemp("engine") / "model.plan"
            built[key] = build_with(target, artifact, path, (whole, tile), plugins)
        return built[key], artifact

    return build


def written_as_sums(artifact: OnnxArtifact) -> OnnxArtifact:
    """The same network, see benchmarks/gpu/products_as_sums.py; beside the file, once."""
    path = artifact.path.with_suffix(".sums.onnx")
    if not path.exists():
        script = load_script(Path(__file__).resolve().parents[2] / "benchmarks" / "gpu" / "products_as_sums.py")
        onnx.save(script.as_sums(artifact.model), path)
    return read_artifact(path)


def build_with(
    target: str, artifact: OnnxArtifact, path: Path, profiles: tuple[Profile, ...], plugins: bool
) -> EngineArtifact:
    capability = "sm{}{}".format(*torch.cuda.get_device_capability())
    gpus = (capability,) if TARGETS[target].builds_without_gpu else ()
    asked = {"sha256": artifact.sha256, "target": target, "profiles": profiles, "gpus": gpus, "use_plugins": plugins}
    return build_engine(artifact, path, request(artifact.path, **asked))


@pytest.fixture
def used() -> Callable[[], int]:
    """Bytes of the GPU that this process uses; those that anyone uses, where the driver does not tell them apart."""

    def measure() -> int:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        command = ["nvidia-smi", "--query-compute-apps=pid,used_gpu_memory", "--format=csv,noheader,nounits"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        own = [line.partition(",")[2] for line in listed.splitlines() if line.partition(",")[0] == str(os.getpid())]
        if own and own[0].strip().isdecimal():
            return int(own[0]) << 20
        free, total = torch.cuda.mem_get_info()
        return int(total - free)

    return measure


@pytest.mark.parametrize("kind", [*networks.ONE_A_FAMILY, "semanir-unet"])
def test_it_restores_what_onnxruntime_restores(kind: str, engine: Callable[..., Any]) -> None:
    plan, artifact = engine(kind)
    reference = OnnxRuntimeRunner(artifact)
    with TensorRTRunner(plan) as runner:
        for shape in ((1, 8, 8), (1, 13, 30), (3, 16, 20), (4, 32, 32), (6, 25, 32)):
            images = networks.images(shape[0], artifact.spec.channels, *shape[1:], seed=sum(shape))
            assert networks.psnr(runner.run(images), reference.run(images)) >= FLOOR
        with pytest.raises(InputError, match="outside every profile"):
            runner.run(networks.images(1, artifact.spec.channels, 4096, 4096))


@pytest.mark.parametrize("kind", networks.ONE_A_FAMILY)
def test_plugins_restore_what_onnxruntime_restores(kind: str, target: str, engine: Callable[..., Any]) -> None:
    if not TARGETS[target].plugins:
        pytest.skip(f"{TARGETS[target].title} has no plugins")
    plan, artifact = engine(kind, plugins=True)
    images = networks.images(2, artifact.spec.channels, 30, 41)
    with TensorRTRunner(plan) as runner:
        for _ in range(3):
            assert networks.psnr(runner.run(images), OnnxRuntimeRunner(artifact).run(images)) >= FLOOR


def test_a_graph_makes_the_same_bits(engine: Callable[..., Any]) -> None:
    plan, artifact = engine("swinir-light")
    with TensorRTRunner(plan) as graphs, TensorRTRunner(plan, cuda_graphs=False) as plain:
        for size in (16, 32, 16, 48, 32):
            for seed in range(3):
                images = networks.images(1, artifact.spec.channels, size, size, seed=seed)
                np.testing.assert_array_equal(graphs.run(images), plain.run(images))
        assert graphs.describe()["cuda_graphs"] in ("captured", "built-in")
        assert plain.describe()["cuda_graphs"] == "off"


def test_pycuda_makes_the_same_bits(engine: Callable[..., Any]) -> None:
    pytest.importorskip("pycuda.driver", exc_type=ImportError)
    plan, artifact = engine("swinir-light")
    images = networks.images(3, artifact.spec.channels, 21, 30)
    with TensorRTRunner(plan, "torch") as one, TensorRTRunner(plan, "pycuda") as other:
        for _ in range(3):
            np.testing.assert_array_equal(one.run(images), other.run(images))


@pytest.mark.parametrize("plugins", [False, True])
def test_memory_over_many_changes_of_shape(
    plugins: bool, target: str, engine: Callable[..., Any], used: Callable[[], int]
) -> None:
    """Device memory has a ceiling: the second hundred changes of shape take no more than the first."""
    if plugins and not TARGETS[target].plugins:
        pytest.skip(f"{TARGETS[target].title} has no plugins")
    plan, artifact = engine("swinir-light", plugins=plugins)
    sizes = [(4 * rows, 4 * columns) for rows in range(1, 11) for columns in range(1, 11)]
    with TensorRTRunner(plan) as runner:

        def through_all() -> int:
            for rows, columns in sizes:
                runner.run(networks.images(1, artifact.spec.channels, rows, columns))
            return used()

        first = through_all()
        assert through_all() - first <= 4 << 20


def test_closing_gives_the_memory_back(engine: Callable[..., Any], used: Callable[[], int]) -> None:
    plan, artifact = engine("swinir-light")

    def once() -> int:
        with TensorRTRunner(plan) as runner:
            for _ in range(3):
                runner.run(networks.images(1, artifact.spec.channels, 64, 64))
        return used()

    first = once()
    assert [once() - first <= 1 << 20 for _ in range(5)] == [True] * 5


def test_addresses_are_aligned(target: str) -> None:
    memory = open_memory("torch")
    with memory.current():
        blocks = [memory.allocate(nbytes) for nbytes in (1, 3, 511, 5000)]
    assert all(block.address % 256 == 0 for block in blocks)


def test_a_plan_that_is_damaged(target: str, engine: Callable[..., Any], tmp_path: Path) -> None:
    plan, _ = engine("swinir-light")
    cut = tmp_path / "cut.plan"
    cut.write_bytes(plan.path.read_bytes()[:1000])
    memory = open_memory()
    with memory.current(), pytest.raises(AgileIRError, match=r"cut\.plan"):
        deserialize(load_target(TARGETS[target]), replace(plan, path=cut), memory)
