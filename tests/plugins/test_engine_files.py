"""Position biases in row form, and files in the form that TensorRT's plugins take."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from agileir_export.plugins import dispatch, engine_files
from agileir_export.plugins.bias_rows import bias_rows, rows_shape
from agileir_export.plugins.windows import position_bias

from ..export import networks
from ..export.written import half_file

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.parametrize("window", [1, 4, 7, 8])
def test_rows_hold_the_biases_of_all_pairs(window: int) -> None:
    table = torch.randn((2 * window - 1) ** 2, 3, generator=torch.Generator().manual_seed(window))
    rows = bias_rows(table, window, 16)
    assert rows.shape == rows_shape(table.shape, window) == (3, 2 * window - 1, window, window)
    token = torch.arange(window * window)
    row, column = token // window, token % window
    found = rows[:, row[:, None] - row[None, :] + window - 1, column[:, None], column[None, :]]
    torch.testing.assert_close(found, 4 * position_bias(table, window))
    np.testing.assert_array_equal(bias_rows(table.numpy(), window, 16), rows.numpy())


def test_rows_are_made_once_for_a_table_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        return bias_rows(*arguments)

    monkeypatch.setattr(dispatch, "bias_rows", counted)
    launch: Any = SimpleNamespace(window_size=4, key_width=9)
    table = torch.nn.Parameter(torch.randn(49, 2))
    first = dispatch.rows_of(table, launch)
    assert dispatch.rows_of(table, launch) is first and len(made) == 1 and not first.requires_grad
    with torch.no_grad():
        table.add_(1)
    torch.testing.assert_close(dispatch.rows_of(table, launch), first + 3)
    table.data = table.data.half()
    assert dispatch.rows_of(table, launch).dtype == torch.float16
    assert len(made) == 3
    with torch.inference_mode():  # such tensors do not tell whether they were changed
        free = torch.randn(49, 2)
        before = dispatch.rows_of(free, launch)
        free.add_(1)
        torch.testing.assert_close(dispatch.rows_of(free, launch), before + 3)
    assert dispatch.rows_of(first, launch) is first


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["agileir", "semanir", "swinir-light"])
def test_tables_of_a_file_become_rows(kind: str, precision: str, folder: Path, tmp_path: Path) -> None:
    artifact = networks.exported(folder, kind)
    if precision != "float32":
        artifact = half_file(artifact, tmp_path / "half.onnx", precision)
    model = onnx.load(artifact.path)
    made = engine_files.engine_form(model, artifact.path.parent)
    assert model == onnx.load(artifact.path)
    before, after = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in each.graph.initializer} for each in (model, made)
    )
    pairs = [
        (old, new)
        for old, new in zip(model.graph.node, made.graph.node, strict=True)
        if old.domain == "agileir" and "bias_table" in str(old.input)
    ]
    assert pairs and not {old.input[-1] for old, _ in pairs} & set(after)
    for old, new in pairs:
        table, rows = before[old.input[-1]], after[new.input[-1]]
        window = next(entry.i for entry in old.attribute if entry.name == "window_size")
        assert rows.shape == rows_shape(table.shape, window) and rows.dtype == table.dtype
        width = float((rows[:, window - 1, 0, 0].astype(np.float32) / table[2 * window * (window - 1)]).mean() ** 2)
        expected = bias_rows(table.astype(np.float32), window, round(width))
        np.testing.assert_array_equal(rows, expected.astype(table.dtype))
    others = set(before) - {old.input[-1] for old, _ in pairs}
    assert all(np.array_equal(before[name], after[name]) for name in others)


def test_a_kernel_with_scratch_gets_an_output_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(networks.exported(folder, "swinir-light").path)
    nodes = [node for node in model.graph.node if node.domain == "agileir"]

    def planned(made: onnx.ModelProto) -> Any:
        own = [node for node in made.graph.node if node.domain == "agileir"]
        return ((node, SimpleNamespace(scratch=int(index == 0), key_width=0)) for index, node in enumerate(own))

    monkeypatch.setattr(engine_files, "planned_kernels", planned)
    made = engine_files.engine_form(model, folder)
    found = [node for node in made.graph.node if node.domain == "agileir"]
    assert [list(node.output) for node in found] == [
        [*node.output, f"{node.output[0]}.scratch"] if index == 0 else list(node.output)
        for index, node in enumerate(nodes)
    ]
    assert any(function.domain == "agileir" for function in made.functions)
    bare = engine_files.engine_form(model, folder, scratch_outputs=False)
    assert not any(function.domain == "agileir" for function in bare.functions)
    assert [node.output for node in bare.graph.node] == [node.output for node in model.graph.node]
