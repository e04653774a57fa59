"""Launches of half blocks' plugins in Python, and of real plans: they equal those of PyTorch's path.

Nothing runs on a GPU: the driver is a library that records (`recording_driver`), reached through the real binding.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from agileir_export.plugins import DOMAIN
from agileir_export.plugins.catalogue import OPERATORS, PLUGINS
from agileir_export.plugins.kernel_records import read_record, records_in, write_record
from agileir_export.plugins.ptx import target_name

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

from .conftest import RTX, Run
from .half_block_cases import CASES, Case
from .pytorch_launches import assert_equal_launches, half_block_by_pytorch, launched_by_pytorch, ordered, tensors_of

SLOW = pytest.mark.slow


def half_block_order(case: Case, dtype: str, image: tuple[int, int, int]) -> dict[str, Any]:
    shapes = [list(shape) for shape in case.shapes(*image)]
    free = [[-1, -1, -1, shape[-1]] if i < case.features else shape for i, shape in enumerate(shapes)]
    return {
        "do": "build",
        "operator": case.entry.name,
        "layer": f"the {case.entry.name}",
        "attributes": dict(case.attributes),
        "types": [dtype] * len(shapes),
        "shapes": free,
        "largest": shapes,
    }


@pytest.mark.parametrize(
    ("dtype", "targets"),
    [
        pytest.param("float16", [80], id="float16"),
        *(
            pytest.param(each, [80, 90], id=f"{each}, Hopper", marks=SLOW)
            for each in ("float16", "float32", "bfloat16")
        ),
    ],
)
def test_a_half_block_lives_and_launches_what_pytorch_launches(
    dtype: str, targets: list[int], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two images; where no window must fill them, their tokens are no multiple of a program's."""
    images = {name: (2, 24, 40) if "window_size" in case.attributes else (2, 5, 13) for name, case in CASES.items()}
    orders = (half_block_order(case, dtype, images[name]) for name, case in CASES.items())
    built = run(*orders, capabilities=targets)
    wanted, given = [], []
    for case, life in zip(CASES.values(), built, strict=True):
        assert "error" not in life, life
        tensors = tensors_of(case.shapes(*images[case.entry.name]), [dtype] * len(case.entry.inputs))
        launch = half_block_by_pytorch(case.entry.name, tensors, case.attributes, monkeypatch)
        assert (life["output_shape"], life["output_type"]) == (list(launch["output"].shape), dtype)
        assert life["combinations"] == ["float32", "float16", "bfloat16"], "one type of all"
        assert life["refused"] == [False, False], "another layout, another type of the output"
        assert (life["workspace"], life["tactics"]) == (0, [])
        assert life["identity"] == [case.entry.name, "1", DOMAIN, 1]
        data = base64.b64decode(life["record"])
        record = read_record(data)
        assert (record.inputs, record.attributes) == (len(tensors), case.attributes)
        assert [kernel.target for kernel in record.kernels] == targets
        assert all(f".target {target_name(kernel.target)}" in kernel.ptx for kernel in record.kernels)
        given.append(ordered(record, tensors, launch["output"], data))
        wanted.append(launch)
    for found, launch in zip(run(*given), wanted, strict=True):
        loading, launching = found["calls"]
        assert loading["call"] == "load" and launching["call"] == "launch"
        assert_equal_launches(launching, launch)


@pytest.mark.parametrize("which", [RTX], indirect=True)
@pytest.mark.parametrize("blocks", [False, pytest.param(True, marks=SLOW)], ids=["attention", "blocks"])
@pytest.mark.parametrize("kind", [*(pytest.param(each, marks=SLOW) for each in ("agileir", "swinir-light")), "semanir"])
def test_the_kernels_of_a_real_plan_are_launched_as_pytorch_launches_them(
    kind: str, blocks: bool, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agileir_export.plugins import engine_form
    from agileir_export.plugins.block_fusion import fuse_blocks

    from ..engines.rtx_builds import with_plugins

    build = with_plugins(folder, kind, "float16", blocks)
    artifact = build.artifact
    records = {record.layer: record for record in records_in(build.plan)}
    model = fuse_blocks(artifact.model, folder)[0] if blocks else artifact.model
    graph = engine_form(model, folder, scratch_outputs=False).graph
    nodes = {node.name: node for node in graph.node if node.domain == DOMAIN}
    assert records.keys() == nodes.keys() and nodes
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    names = {1: "float32", 10: "float16"}
    images = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    given, wanted = [], []
    for layer, record in records.items():
        node, operator = nodes[layer], PLUGINS[record.operator]
        assert record.operator == node.op_type
        assert record.attributes == {a.name: a.i for a in node.attribute if a.name in operator.attributes}
        window = record.attributes.get("window_size", 4)
        shapes = [sizes.get(name, ()) for name in node.input]
        own = names[kinds[node.input[0]]]
        types = ["int32" if name in operator.integer_tensors else own for name in operator.inputs]
        for index in range(CASES[record.operator].features if record.operator in CASES else 1):
            shapes[index] = (1, 2 * window, 3 * window, images[node.input[index]][-1].dim_value)
        for index, name in enumerate(operator.inputs):
            if name in operator.integer_tensors:
                shapes[index] = (6, window**2, -(-(window**2) // 16))
        tensors = tensors_of(shapes, types)
        if record.operator in CASES:
            launch = half_block_by_pytorch(record.operator, tensors, record.attributes, monkeypatch)
        else:
            torch_name = OPERATORS[record.operator].torch_name
            launch = launched_by_pytorch(torch_name, tensors, record.attributes, 1, monkeypatch)
        given.append(ordered(record, tensors, launch["output"], write_record(record)))
        wanted.append(launch)
    assert blocks == any(record.operator in CASES for record in records.values())
    for found, launch in zip(run(*given), wanted, strict=True):
        assert_equal_launches(found["calls"][-1], launch)
