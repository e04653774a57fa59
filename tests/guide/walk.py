"""Run in a copy of the package that holds the toy operator and the toy family: everything general must know them."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import agileir_export
from agileir_export.calib.layers import find_layers
from agileir_export.conversion import ConversionRequest, convert
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.errors import Unsupported
from agileir_export.models import LoadOptions, list_models, load_model
from agileir_export.parity import ParityImage, verify
from agileir_export.plugins import DOMAIN, OPERATORS
from agileir_export.plugins.catalogue import CALLS

HERE = Path.cwd()
NAME, TORCH_NAME = "WindowCentre", "window_centre"
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.random((1, 3, 9, 14), np.float32)


def the_operator_is_listed_and_agrees_with_its_reference() -> None:
    operator = OPERATORS[NAME]
    assert TORCH_NAME in {call.operator for call in CALLS}
    x = torch.from_numpy(RANDOM.standard_normal((2, 8, 12, 5), np.float32))
    y = operator.torch_operator()(x, 4)
    np.testing.assert_allclose(y.numpy(), operator.reference()(x.numpy(), window_size=4), atol=1e-6)  # float32
    torch.library.opcheck(operator.torch_operator().default, (x.requires_grad_(), 4), test_utils="test_faketensor")


def polygraphy_knows_its_reference() -> None:
    from polygraphy.backend.pluginref.references import OP_REGISTRY

    import agileir_export.parity.polygraphy.references  # noqa: F401

    assert NAME in OP_REGISTRY


def the_family_goes_the_whole_way() -> None:
    assert ("centred_x2", "centred") in {(entry.name, entry.family) for entry in list_models()}
    drawn = load_model("centred_x2", random_weights=1)
    torch.save(drawn.state_dict(), HERE / "some.pth")
    model = load_model(HERE / "some.pth")
    assert (model.spec.family, model.spec.name) == ("centred", "centred_x2")
    artifact = convert("centred_x2", options=LoadOptions(random_weights=1))
    assert artifact.operators == {NAME: 2} and len(artifact.blocks) == 3
    (function,) = artifact.model.functions
    assert (function.domain, function.name) == (DOMAIN, NAME)
    restored = OnnxRuntimeRunner(artifact).run(IMAGE)
    with torch.no_grad():
        np.testing.assert_allclose(restored, model(torch.from_numpy(IMAGE)).numpy(), atol=1e-5)  # float32
    half = convert(artifact, ConversionRequest("float16", rescale=False))
    for file in (artifact, half):
        report = verify(model, file, [ParityImage("noise", IMAGE[0])])
        assert report.passed and len(report.rungs) == 2, report
    assert find_layers(artifact.model)


def what_a_kernel_cannot_do_is_refused() -> None:
    from agileir_export.plugins.coverage import require_kernels
    from agileir_export.plugins.dispatch import plan_kernel

    launch = plan_kernel(TORCH_NAME, [torch.zeros(2, 8, 12, 5)], {"window_size": 4})
    assert launch.grid(2, 8, 12) == 12

    def file(channels: int) -> onnx.ModelProto:
        head, image = f'ir_version: 10, opset_import: ["": 20, "{DOMAIN}": 1]', f"float[1,8,8,{channels}]"
        return onnx.parser.parse_model(
            f"<{head}> g ({image} x) => ({image} y) {{ y = {DOMAIN}.{NAME} <window_size = 4> (x) }}"
        )

    require_kernels(file(8))
    with pytest.raises(Unsupported, match="at most, got"):
        require_kernels(file(9000))


class Size(int):
    """A size as TensorRT tells it, known at build time."""

    is_fake, is_constant = False, True
    constant_value = int.__int__


def tensorrt_gets_its_fields_and_its_kernel() -> None:
    from agileir_export.plugins import tensorrt_plugins

    declared: dict[str, Callable[..., Any]] = {}

    def keep(kind: str) -> Callable[[str], Callable[[Any], None]]:
        return lambda identity: lambda function: declared.update({f"{kind} {identity}": function})

    trt = SimpleNamespace(**{name: name for name in ("float32", "float16", "bfloat16", "int32")})
    trtp = SimpleNamespace(
        TensorDesc=object,
        AutoTuneCombination=lambda *given: given,
        KernelLaunchParams=SimpleNamespace,
        SymIntExprs=type("SymIntExprs", (), {"from_tuple": staticmethod(list)}),
        SymInt32=int,
        from_shape_expr=lambda shape, dtype: (shape, dtype),
        **{kind: keep(kind) for kind in ("register", "autotune", "aot_impl")},
    )
    tensorrt_plugins._register(trt, trtp, OPERATORS[NAME])
    identity = f"{DOMAIN}::{NAME}"
    describe, autotune, kernel = (declared[f"{kind} {identity}"] for kind in ("register", "autotune", "aot_impl"))
    assert [*inspect.signature(describe).parameters] == ["x", "window_size"]
    x = SimpleNamespace(dtype="float16", shape_expr=[Size(size) for size in (1, 8, 12, 5)])
    window = np.array([4], np.int32)
    assert describe(x, window_size=window) == ((1, 8, 12, 5), "float16")
    assert autotune(x, window, None) == [("FP32|FP16|BF16, FP32|FP16|BF16", "LINEAR", [1, 2])]
    name, ptx, launch, extra = kernel(x, window, None, 1)
    assert name in ptx and launch.grid_x == 6 and extra == [8, 12]


if __name__ == "__main__":
    assert Path(agileir_export.__file__).parents[1] == HERE
    the_operator_is_listed_and_agrees_with_its_reference()
    polygraphy_knows_its_reference()
    the_family_goes_the_whole_way()
    if importlib.util.find_spec("triton") is not None:
        what_a_kernel_cannot_do_is_refused()
        tensorrt_gets_its_fields_and_its_kernel()
    sys.stdout.write("done")
