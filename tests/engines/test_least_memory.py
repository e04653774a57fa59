"""The memory that an engine needs at least: a hand case, real files, and what the command line says of it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from agileir_export.engines.building.memory import LARGE, least_memory
from agileir_export.engines.profiles import Profile

from ..cli.command import document, run
from ..export import networks

NETWORK = """
<ir_version: 10, opset_import: ["" : 20]>
network (float[batch, 3, height, width] x) => (float[batch, 3, "2*height", "2*width"] y)
<float[8, 3, 3, 3] a, float[16, 8, 3, 3] b, float[batch, 8, height, width] p, float16[batch, 16, height, width] q,
 float[unknown, 99] r>
{
    p = Conv(x, a)
    q = Conv(p, b)
    r = Relu(q)
    y = Resize(r)
}
"""


def one(*shape: int) -> Profile:
    return Profile(shape, shape, shape)


def test_a_hand_case() -> None:
    model = onnx.parser.parse_model(NETWORK.replace('"2*height", "2*width"', "height2, width2"))
    dims = model.graph.output[0].type.tensor_type.shape.dim
    dims[2].dim_param, dims[3].dim_param = "2*height", "2*width"
    pixels = 2 * 10 * 20
    ends = (3 + 4 * 3) * 4
    inner = 8 * 4 + 16 * 2  # of the second convolution, which reads p and writes q
    assert least_memory(model, one(2, 10, 20)) == pixels * (ends + inner)
    largest = Profile((1, 1, 1), (1, 5, 5), (2, 10, 20))
    assert least_memory(model, largest) == pixels * (ends + inner)


def test_what_is_quantised_is_int8() -> None:
    """Between the layers of a quantised file there are INT8 numbers, though the file says float32 at their ends."""
    model = onnx.parser.parse_model(NETWORK.replace('"2*height", "2*width"', "height, width"))
    graph = model.graph
    (second,) = (node for node in graph.node if node.output[0] == "q")
    second.input[0] = "d"
    made = [onnx.helper.make_node("QuantizeLinear", ["p", "s", "z"], ["i"])]
    made += [onnx.helper.make_node("DequantizeLinear", ["i", "s", "z"], ["d"])]
    graph.node.extend(made)
    (wide,) = (each for each in graph.value_info if each.name == "p")
    graph.value_info.add().CopyFrom(wide)
    graph.value_info[-1].name = "d"
    pixels = 2 * 10 * 20
    assert least_memory(model, one(2, 10, 20)) == pixels * ((3 + 3) * 4 + 8 * 1 + 16 * 2)


@pytest.mark.parametrize("kind", networks.ONE_A_FAMILY)
def test_it_grows_with_the_pixels(kind: str, folder: Path) -> None:
    model = networks.exported(folder, kind).model
    small, large = (least_memory(model, one(1, side, side)) for side in (64, 640))
    assert large == 100 * small > 100 * 64 * 64 * (3 + 12) * 4


def test_the_command_line_tells_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = networks.exported(folder, "swinir-light").path
    monkeypatch.chdir(tmp_path)
    arguments = ("trt", file, "-o", "a.plan", "--target", "rtx", "--dry-run", "--attention", "decomposed")
    for side, told in ((64, False), (20000, True)):
        sizes = [word for option in ("--min", "--opt", "--max") for word in (option, f"1x{side}x{side}")]
        result = run(*arguments, *sizes, "--json")
        (least,) = document(result)["least_memory_bytes"]
        assert (least > LARGE) == told == ("GiB of the GPU's memory" in result.stderr), result.stderr
    assert "GPU memory of 1x64x64" in run(*arguments, "--static", "64x64").output
