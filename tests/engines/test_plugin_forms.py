"""Which plugins a build registers, with what, and in which form they get the file."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.engines.audit.verdict import Audit
from agileir_export.engines.building import child
from agileir_export.engines.building.engine import EngineBuild, build_request, write_engine
from agileir_export.engines.building.request import BuildOptions, check_options
from agileir_export.engines.cuda_driver import Device, Gpu
from agileir_export.errors import EnvironmentProblem, InputError
from agileir_export.export import OnnxArtifact
from agileir_export.plugins import engine_files
from agileir_export.plugins.plugin_layers import Choices, Layer
from agileir_export.plugins.ptx import TARGET

from ..export import networks

TRT = object()


@pytest.fixture
def artifact(folder: Path) -> OnnxArtifact:
    return networks.exported(folder, "swinir-light", static=(8, 12))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a build does for its plugins, on a machine with a Hopper GPU."""
    seen: list[Any] = []

    def form(model: Any, folder: Path, scratch_outputs: bool = True) -> Any:
        seen.append(("form", scratch_outputs))
        return model

    def register(trt: Any, capabilities: Any, every_tactic: bool) -> None:
        seen.append(("python", trt is TRT, capabilities, every_tactic))

    monkeypatch.setattr(engine_files, "engine_form", form)
    monkeypatch.setattr(child, "register_python_plugins", register)
    monkeypatch.setattr("agileir_export.plugins.cuda_kernels.cuda_driver", lambda: seen.append("driver"))
    monkeypatch.setattr(
        "agileir_export.plugins.tensorrt_plugins.register_tensorrt",
        lambda capability: seen.append(("quick", capability)),
    )
    monkeypatch.setattr(child, "probe_gpu", lambda: Gpu((13, 0), (Device(0, "NVIDIA H100", (9, 0)),)))
    return seen


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target": "rtx"}, [("python", True, (86, 89, 120), False), ("form", False)]),
        (
            {"target": "rtx", "gpus": ("sm89",), "plugin_form": "python"},
            [("python", True, (89,), False), ("form", False)],
        ),
        ({"target": "tensorrt"}, [("quick", 90), ("form", True)]),
        ({"target": "tensorrt", "hardware_compatible": "ampere-plus"}, [("quick", None), ("form", True)]),
        ({"target": "tensorrt", "plugin_form": "python"}, ["driver", ("python", True, (90,), True), ("form", False)]),
        (
            {"target": "tensorrt", "plugin_form": "python", "hardware_compatible": "ampere-plus"},
            ["driver", ("python", True, (), True), ("form", False)],
        ),
    ],
)
def test_what_a_build_registers(
    options: dict[str, Any], expected: list[Any], artifact: OnnxArtifact, steps: list[Any]
) -> None:
    asked = build_request(artifact, BuildOptions(**options), operators="plugin")
    child._with_plugins(TRT, asked, artifact.model, Path())
    assert steps == expected
    assert asked.plugin_form == asked.form == ("python" if ("form", False) in expected else "quick")
    assert dataclasses.replace(asked, plugin_form="").form == ("quick" if options["target"] == "tensorrt" else "python")
    assert dataclasses.replace(asked, use_plugins=False).form == ""


@pytest.mark.parametrize("target", ["rtx", "tensorrt"])
def test_half_blocks_are_put_in_before(
    target: str, artifact: OnnxArtifact, steps: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form of engines comes last, and the plugins are known by name, with the nodes that they stand for."""
    pytest.importorskip("triton", reason="Triton is not installed")
    asked = build_request(artifact, BuildOptions(target=target, fuse_blocks=True))
    assert (asked.use_plugins, asked.fuse_blocks) == (True, True)
    made, plugins = child._with_plugins(TRT, asked, artifact.model, Path())
    assert [step[0] for step in steps] == [("python" if target == "rtx" else "quick"), "form"]
    assert set(plugins) == {node.name for node in made.graph.node if node.domain == "agileir"}
    assert all(plugins.values()) and "node_gelu" in {node for nodes in plugins.values() for node in nodes}
    plain = dataclasses.replace(asked, fuse_blocks=False)
    assert set(child._with_plugins(TRT, plain, artifact.model, Path())[1].values()) == {()}


def test_half_blocks_are_plugins(artifact: OnnxArtifact) -> None:
    options = BuildOptions(target="rtx", fuse_blocks=True)
    with pytest.raises(InputError, match="Half blocks are plugins"):
        check_options(options, "float32")
    with pytest.raises(InputError, match="Half blocks are plugins"):
        check_options(build_request(artifact, options, operators="decomposed"), "float32")


@pytest.mark.parametrize(
    ("options", "gpus", "expected"),
    [
        ({}, ("sm90",), ["sm_90a"]),
        ({}, ("sm89",), ["sm_80"]),
        ({"hardware_compatible": "same-capability"}, ("sm90",), ["sm_90a"]),
        ({"hardware_compatible": "ampere-plus"}, ("sm90",), ["sm_80"]),
    ],
)
def test_the_sidecar_says_what_quick_kernels_are_for(
    options: dict[str, Any], gpus: tuple[str, ...], expected: list[str], artifact: OnnxArtifact, tmp_path: Path
) -> None:
    asked = build_request(artifact, BuildOptions(target="tensorrt", **options), operators="plugin")
    build = EngineBuild(b"plan", artifact, asked, gpus, {}, Audit("float32", ()), {"cached": False})
    assert write_engine(build, tmp_path / "a.plan").plugins == {"form": "quick", "kernels_for": expected}
    plain = dataclasses.replace(build, request=dataclasses.replace(asked, use_plugins=False))
    assert write_engine(plain, tmp_path / "a.plan").plugins == {}


def test_without_triton_it_is_named(artifact: OnnxArtifact, steps: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = build_request(artifact, BuildOptions(target="rtx"), operators="plugin")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="Triton is not installed"):
        child._with_plugins(TRT, asked, artifact.model, Path())
    assert steps == []


def test_an_architecture_has_its_own_text_where_it_has_its_own_instructions() -> None:
    assert Choices.of((86, 89, 120), False).targets == Choices.of((), False).targets == (TARGET,)
    assert Choices.of((80, 90), False).targets == (TARGET, 90)
    assert Choices.of((90,), True) == Choices((90,), True)


def test_kernels_may_take_more_shared_memory_than_quick_plugins_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that a block gets with an opt-in on any GPU since Ampere, instead of what needs none."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from agileir_export.errors import Unsupported
    from agileir_export.plugins import ptx
    from agileir_export.plugins.catalogue import BY_TORCH_NAME, CALLS
    from agileir_export.plugins.dispatch import kernel_module
    from agileir_export.plugins.kernel_records import KernelRecord

    call = next(call for call in CALLS if call.label == "SwinIR light")
    operator, module = BY_TORCH_NAME[call.operator], kernel_module(call.operator)
    shapes = call.shapes(1, 8, 8)
    made = module.launch(shapes, call.attributes, "float16")
    large = dataclasses.replace(made, num_stages=4, constants={**made.constants, "keys": 16})
    monkeypatch.setattr(module, "launch", lambda *arguments: large)
    layer = Layer(KernelRecord("a", operator.name, call.attributes, len(shapes)), Choices())
    layer.compile(shapes, ["float16"] * len(shapes))
    (kernel,) = layer.record.kernels
    monkeypatch.setattr(ptx, "MAX_SHARED_BYTES", kernel.shared_bytes - 1)
    layer.compile(shapes, ["float16"] * len(shapes))
    with pytest.raises(Unsupported, match="bytes of shared memory"):
        ptx.compile_kernel(large, ["float16"] * len(shapes), "float16")
    monkeypatch.setattr("agileir_export.plugins.plugin_layers.OPT_IN_SHARED_BYTES", kernel.shared_bytes - 1)
    with pytest.raises(Unsupported, match="bytes of shared memory"):
        layer.compile(shapes, ["float16"] * len(shapes))


def test_working_memory_is_that_of_the_largest_picture(folder: Path) -> None:
    """As PyTorch's path allocates it."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from agileir_export.plugins.coverage import planned_kernels
    from agileir_export.plugins.kernel_records import CarriedKernel, KernelRecord

    model = onnx.load(networks.exported(folder, "agileir").path)
    node, launch = next(iter(planned_kernels(model)))
    assert launch.scratch
    numbers = launch.window_size, launch.programs, launch.scratch
    kernels = tuple(CarriedKernel(80, tactic, "a", 1, 1, *numbers[:2], numbers[2] // tactic, "") for tactic in (1, 2))
    layer = Layer(KernelRecord(node.name, node.op_type, {}, 6, kernels), Choices())
    batch, height, width = 2, 3 * launch.window_size, 5 * launch.window_size
    assert layer.scratch_bytes((batch, height, width, 12)) == 4 * launch.scratch * launch.windows(batch, height, width)
    assert Layer(KernelRecord(node.name, node.op_type, {}, 6), Choices()).scratch_bytes((1, 4, 4, 12)) == 0
