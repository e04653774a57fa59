"""The TensorRT runner on a stand-in: padding, profiles, batches; contexts, buffers and graphs are in the next file."""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agileir_export.cache import Cache
from agileir_export.engines import Runner, TorchRunner
from agileir_export.engines.cuda_driver import probe_gpu
from agileir_export.engines.tensorrt import runner as tensorrt_runner
from agileir_export.engines.tensorrt.fitting import Fit, fit_profile
from agileir_export.errors import AgileIRError, EnvironmentProblem, InputError, InternalError, Unsupported
from agileir_export.images.resizing import pad_to_multiple, pad_to_size
from agileir_export.plugins.cuda_kernels import cuda_driver
from agileir_export.plugins.kernel_records import LAYOUT
from agileir_export.plugins.plugin_layers import remember
from agileir_export.restore import memory_plan

from ..export import networks
from .fake_cuda import Gpu
from .fake_engines import KIND, doubled, here, network, open_engine, profile, write_engine
from .fake_tensorrt import Module

FREE = profile((1, 4, 4), (4, 16, 20))


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    made = Module(Gpu(), doubled)
    here(monkeypatch, made)
    return made


# ---- numbers ----


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1), (7, 11), (8, 8), (13, 6), (16, 20)], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_it_restores_what_the_model_restores(batch: int, size: tuple[int, int], module: Module, tmp_path: Path) -> None:
    module.network = network
    runner, _ = open_engine(write_engine(tmp_path, [FREE]), module)
    images = networks.images(batch, 3, *size, seed=sum(size))
    given = images.copy()
    output = runner.run(images)
    assert output.flags.owndata
    assert networks.psnr(output, TorchRunner(networks.shared(KIND)).run(images)) >= 100
    np.testing.assert_array_equal(images, given)


def test_small_images_are_padded_up_to_the_profile(module: Module, tmp_path: Path) -> None:
    """First as the model pads them, so that what lies near the picture is the same, then up to the minimum."""
    module.network = network
    runner, _ = open_engine(write_engine(tmp_path, [profile((1, 16, 12), (1, 32, 32))]), module)
    images = networks.images(1, 3, 6, 9)
    padded, _ = pad_to_multiple(images, 4)
    with torch.no_grad():
        expected = networks.shared(KIND)(torch.from_numpy(pad_to_size(padded, 16, 12))).numpy()[..., :12, :18]
    assert networks.psnr(runner.run(images), np.ascontiguousarray(expected)) >= 100


@pytest.mark.parametrize(
    ("minimum", "maximum", "batch", "chunks"),
    [
        (1, 4, 3, [3]),
        (1, 4, 4, [4]),
        (1, 4, 10, [4, 4, 2]),
        (2, 2, 5, [2, 2, 2]),
        (3, 8, 1, [3]),
        (3, 4, 9, [4, 4, 3]),
        (1, 1, 3, [1, 1, 1]),
    ],
)
def test_batches_go_through_in_steps(
    minimum: int, maximum: int, batch: int, chunks: list[int], module: Module, tmp_path: Path
) -> None:
    seen: list[int] = []

    def counting(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        seen.append(len(images))
        return doubled(images)

    module.network = counting
    runner, _ = open_engine(write_engine(tmp_path, [profile((minimum, 8, 8), (maximum, 8, 8))]), module)
    images = networks.images(batch, 3, 8, 8)
    np.testing.assert_array_equal(runner.run(images), doubled(images))
    assert seen == chunks


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 11), (9, 16, 20)], ids=str)
def test_memory_is_known_beforehand(shape: tuple[int, int, int], module: Module, tmp_path: Path) -> None:
    """What the engine tells is what a run allocates on the GPU; nothing is run for it."""
    runner, _ = open_engine(write_engine(tmp_path, [FREE]), module)
    free = runner.free_bytes()
    told = runner.device_bytes(*shape)
    assert told is not None and told > 0
    assert runner.free_bytes() == free
    batch, rows, columns = shape
    runner.run(networks.images(batch, 3, rows, columns))
    assert free - runner.free_bytes() == pytest.approx(told, abs=1)
    assert runner.device_bytes(1, 99, 99) is None


def test_a_plan_asks_the_engine(module: Module, tmp_path: Path) -> None:
    runner, _ = open_engine(write_engine(tmp_path, [FREE]), module)
    plan = memory_plan(runner, 10**6, cache=Cache(tmp_path / "cache"))
    told = runner.device_bytes(1, 16, 20)
    assert told is not None
    assert plan.predict(16, 20) == pytest.approx(told, rel=0.15)
    assert plan.room == 10**6


def test_padding_to_a_size() -> None:
    images = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    assert pad_to_size(images, 2, 3) is images
    np.testing.assert_array_equal(pad_to_size(images, 3, 5)[0, 0], [[0, 1, 2, 1, 0], [3, 4, 5, 4, 3], [0, 1, 2, 1, 0]])
    np.testing.assert_array_equal(pad_to_size(images, 2, 6)[0, 0, 0], [0, 1, 2, 2, 2, 2])


# ---- profiles ----

SMALL, LARGE, WIDE = profile((1, 64, 64), (4, 128, 128)), profile((1, 64, 64), (1, 512, 512)), profile((1, 64, 512))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 128, 128), Fit(0, 1, 1, 128, 128)),
        ((4, 100, 60), Fit(0, 4, 1, 100, 64)),
        ((9, 128, 128), Fit(0, 4, 1, 128, 128)),
        ((1, 256, 64), Fit(1, 1, 1, 256, 64)),
        ((2, 512, 512), Fit(1, 1, 1, 512, 512)),
        ((1, 64, 512), Fit(2, 1, 1, 64, 512)),  # of equal cost with the large one, whose optimum is further away
        ((1, 40, 300), Fit(1, 1, 1, 64, 300)),
        ((1, 516, 64), None),
        ((1, 64, 516), None),
    ],
    ids=str,
)
def test_the_profile_of_the_least_work(shape: tuple[int, int, int], expected: Fit | None) -> None:
    assert fit_profile([SMALL, LARGE, WIDE], *shape) == expected


def test_a_profile_with_fewer_steps_wins() -> None:
    one, four = profile((1, 64, 64)), profile((1, 64, 64), (4, 64, 64))
    assert fit_profile([one, four], 4, 64, 64) == Fit(1, 4, 1, 64, 64)
    assert fit_profile([one, profile((4, 64, 64))], 3, 64, 64) == Fit(
        0, 1, 1, 64, 64
    )  # four would compute one too many


def test_the_engine_is_switched_to_the_profile(module: Module, tmp_path: Path) -> None:
    """The stand-in refuses a shape outside the profile its context was switched to."""
    profiles = [profile((1, 8, 8)), profile((2, 8, 8), (2, 16, 16)), profile((1, 4, 24))]
    runner, _ = open_engine(write_engine(tmp_path, profiles), module)
    for shape in ((1, 3, 8, 8), (2, 3, 14, 16), (1, 3, 3, 21), (1, 3, 12, 12)):
        images = networks.images(*shape)
        np.testing.assert_array_equal(runner.run(images), doubled(images))
    assert len(module.contexts) == 4


@pytest.mark.parametrize("size", [(17, 4), (4, 21), (33, 33)], ids=str)
def test_larger_images_are_refused(size: tuple[int, int], module: Module, tmp_path: Path) -> None:
    runner, _ = open_engine(write_engine(tmp_path, [FREE, profile((1, 8, 8))]), module)
    with pytest.raises(InputError) as caught:
        runner.run(networks.images(1, 3, *size))
    padded = [side + -side % 4 for side in size]
    for words in (f"{size[0]}x{size[1]} pixels", f"padded {padded[0]}x{padded[1]}", str(FREE), "1x8x8", "model.plan"):
        assert words in caught.value.what
    assert f"--max {padded[0]}x{padded[1]}" in caught.value.fix
    assert not module.events


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (networks.images(1, 1, 8, 8), "takes 3 channel(s), the images have 1"),
        (networks.images(1, 3, 8, 8).astype(np.float64), "got float64 [1, 3, 8, 8]"),
        (networks.images(0, 3, 8, 8), "got float32 [0, 3, 8, 8]"),
    ],
    ids=["grey", "float64", "no image"],
)
def test_images_that_do_not_fit(images: Any, words: str, module: Module, tmp_path: Path) -> None:
    runner, _ = open_engine(write_engine(tmp_path, [FREE]), module)
    with pytest.raises(InputError, match=re.escape(words)):
        runner.run(images)


# ---- opening ----


def test_it_is_a_runner_and_describes_itself(module: Module, tmp_path: Path) -> None:
    runner, _ = open_engine(write_engine(tmp_path, [FREE]), module)
    assert isinstance(runner, Runner)
    assert runner.spec == networks.shared(KIND).spec
    described = json.loads(json.dumps(runner.describe()))
    gpu = {"memory": "numpy", "device": "NumPy", "compute_capability": "8.9"}
    engine = {"precision": "float16", "cuda_graphs": "captured", "sha256": runner.artifact.sha256}
    assert described == {"target": "tensorrt", "version": "11.4.0.106", **gpu, **engine}


def test_host_code_is_allowed_to_version_compatible_engines_only(module: Module, tmp_path: Path) -> None:
    compatible = {"version_compatible": True, "target_version": "10.16.1.11"}
    path = write_engine(tmp_path, [FREE], host_code=True, built_with="10.16.1.11", facts=compatible)
    runner, _ = open_engine(path, module)
    assert runner.run(networks.images(1, 3, 8, 8)).shape == (1, 3, 16, 16)
    lying = write_engine(tmp_path, [FREE], host_code=True)
    with pytest.raises(Unsupported, match="host code"):
        open_engine(lying, module)


def refused(kind: type[AgileIRError], path: Path, module: Module, what: str = "", why: str = "", fix: str = "") -> None:
    with pytest.raises(AgileIRError) as caught:
        open_engine(path, module)
    error = caught.value
    assert isinstance(error, kind)
    assert what in error.what and why in error.why and fix in error.fix


def test_a_plan_of_another_version_names_both(module: Module, tmp_path: Path) -> None:
    path = write_engine(tmp_path, [FREE], built_with="10.16.1.11", facts={"target_version": "10.16.1.11"})
    for words in ("version 10.16.1.11 for NVIDIA L4 (8.9)", "version 11.4.0.106 and NumPy (8.9)"):
        refused(Unsupported, path, module, str(path), words, "Build the engine again")


def test_a_driver_that_is_too_old(module: Module, tmp_path: Path) -> None:
    """TensorRT's runtime object is then empty and must not be used."""
    module.driver_too_old = True
    refused(EnvironmentProblem, write_engine(tmp_path, [FREE]), module, "driver", fix="doctor")


def test_no_gpu(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agileir_export.engines.cuda_driver import Gpu as Driver
    from agileir_export.engines.tensorrt import plan_loading

    monkeypatch.setattr(plan_loading, "probe_gpu", lambda: Driver(why_not="no NVIDIA driver"))
    monkeypatch.setattr(module, "Runtime", None)
    refused(EnvironmentProblem, write_engine(tmp_path, [FREE]), module, why="no NVIDIA driver")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "HALF"}, "The tensor input of {path} is HALF, and ours are float32"),
        ({"tensors": (("input", "INPUT"), ("mask", "INPUT"), ("output", "OUTPUT"))}, "has the tensors input, mask"),
        ({"sidecar_profiles": [FREE, FREE]}, "and 1 profile(s), where its sidecar promises"),
    ],
    ids=["half", "two inputs", "profiles"],
)
def test_engines_of_other_programs(changes: dict[str, Any], words: str, module: Module, tmp_path: Path) -> None:
    path = write_engine(tmp_path, [FREE], **changes)
    refused(InputError, path, module, words.format(path=path))


def test_an_engine_of_another_scale(module: Module, tmp_path: Path) -> None:
    path = write_engine(tmp_path, [FREE])
    runner, _ = open_engine(path, module)
    runner._engine.plan["scale"] = 3
    with pytest.raises(InternalError, match=re.escape("makes (1, 3, 24, 24) of (1, 3, 8, 8)")):
        runner.run(networks.images(1, 3, 8, 8))


# ---- plugins in Python ----


def bound_engine(tmp_path: Path, **plugins: Any) -> Path:
    path = write_engine(tmp_path, [FREE])
    sidecar = Path(f"{path}.json")
    told = json.loads(sidecar.read_text()) | {"plugins": {"form": "python", "layout": 1, "layers": 3, **plugins}}
    sidecar.write_text(json.dumps(told))
    return path


@pytest.fixture
def registered(module: Module, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the plugins were registered with."""
    seen: list[Any] = []
    monkeypatch.setattr(tensorrt_runner, "cuda_driver", lambda: seen.append("driver"))
    monkeypatch.setattr(tensorrt_runner, "register_python_plugins", lambda trt: seen.append(trt))
    return seen


def test_the_runner_registers_the_plugins_that_an_engine_needs(
    registered: list[Any], module: Module, tmp_path: Path
) -> None:
    open_engine(write_engine(tmp_path, [FREE]), module)
    assert registered == []
    runner, _ = open_engine(bound_engine(tmp_path), module)
    assert registered == ["driver", module]
    images = networks.images(1, 3, 8, 8)
    np.testing.assert_array_equal(runner.run(images), doubled(images))


def test_kernels_of_a_newer_layout_are_refused(registered: list[Any], module: Module, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=f"version 9, and this package knows versions up to {LAYOUT}"):
        open_engine(bound_engine(tmp_path, layout=9), module)
    assert registered == []


def test_a_missing_driver_is_named(module: Module, tmp_path: Path) -> None:
    if probe_gpu().devices:
        pytest.skip("there is a driver here")
    pytest.importorskip("cuda.bindings", reason="CUDA's Python binding is not installed")
    with pytest.raises(EnvironmentProblem, match="need the NVIDIA driver"):
        open_engine(bound_engine(tmp_path), module)


def test_a_missing_binding_is_named(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_driver.cache_clear()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(EnvironmentProblem, match=r"CUDA's Python binding.*pip install cuda-bindings"):
        open_engine(bound_engine(tmp_path), module)


@pytest.mark.parametrize("swallowed", [False, True])
def test_a_plugin_that_fails_is_an_error_and_no_picture(
    swallowed: bool, registered: list[Any], module: Module, tmp_path: Path
) -> None:
    """Whether TensorRT tells of it or goes on."""

    def failing(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        remember(Unsupported("the kernel is for another GPU"))
        module.no_execution = not swallowed
        return doubled(images)

    module.network = failing
    runner, _ = open_engine(bound_engine(tmp_path), module)
    images = networks.images(1, 3, 8, 8)
    with pytest.raises(Unsupported, match="the kernel is for another GPU"):
        runner.run(images)
    module.network, module.no_execution = doubled, False
    np.testing.assert_array_equal(runner.run(images), doubled(images))


def test_what_another_thread_s_plugin_failed_with_is_not_raised(
    registered: list[Any], module: Module, tmp_path: Path
) -> None:
    runner, _ = open_engine(bound_engine(tmp_path), module)
    other = threading.Thread(target=remember, args=(Unsupported("elsewhere"),))
    other.start()
    other.join()
    images = networks.images(1, 3, 8, 8)
    np.testing.assert_array_equal(runner.run(images), doubled(images))
