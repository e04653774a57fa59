"""TensorRT-RTX takes converted quantised graphs: Int8 kernels inside, half precision around them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from agileir_export.export.precision import HALF_PRECISIONS, convert_precision

from .rtx_builds import kernels_of_build, needs_rtx

pytestmark = needs_rtx

WIDTH = 32


def network(path: Path, precision: str, scale: float) -> Path:
    """A quantised and an unquantised matrix product after a normalisation, converted, with static sizes."""
    size = f"1, 16, {WIDTH}"
    text = f"""<ir_version: 9, opset_import: ["": 20]> g (float[{size}] input) => (float[{size}] output) {{
        n = LayerNormalization (input, gain, offset)
        q = QuantizeLinear (n, scale, zero)
        a = DequantizeLinear (q, scale, zero)
        v = QuantizeLinear (w0, scale, zero)
        b = DequantizeLinear (v, scale, zero)
        m = MatMul (a, b)
        s = Add (m, offset)
        g = Gelu (s)
        output = MatMul (g, w1)
      }}"""
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    values = {
        "gain": np.ones(WIDTH, np.float32),
        "offset": random.random(WIDTH, np.float32),
        "w0": random.random((WIDTH, WIDTH), np.float32) * np.float32(100 * scale),
        "w1": random.random((WIDTH, WIDTH), np.float32),
        "scale": np.float32(scale),
        "zero": np.int8(0),
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in values.items())
    onnx.save(convert_precision(model, precision), path)
    return path


@pytest.mark.parametrize("precision", HALF_PRECISIONS)
@pytest.mark.parametrize("scale", [0.02, 1e-6], ids=["half scales", "float32 scales"])
def test_quantised_products_stay_int8_between_half_ones(precision: str, scale: float, tmp_path: Path) -> None:
    """Scales below float16's smallest normal number stay float32, between Casts, and the kernels are the same."""
    path = network(tmp_path / "model.onnx", precision, scale)
    kernels = kernels_of_build(path, gpus=("sm86", "sm89"))
    found = Counter(kernel.precision for kernel in kernels if kernel.kind == "gemm")
    assert found["int8"] == 1
    assert set(found) == {"int8", precision}
