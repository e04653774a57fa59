"""A file in the form from which TensorRT builds engines with plugins.

The operators of an exported file have the inputs and outputs of their definition. Their plugins take position biases in
row form; the quickly deployable ones have an output more where the kernel needs scratch memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .bias_rows import bias_rows
from .coverage import planned_kernels
from .registry import DOMAIN

if TYPE_CHECKING:
    import onnx

__all__ = ["engine_form"]


def engine_form(model: onnx.ModelProto, folder: Path, scratch_outputs: bool = True) -> onnx.ModelProto:
    """What TensorRT's parser is given, with the plugins registered, instead of an exported file.

    Tables of position biases that are constants become rows (`bias_rows`): the kernels take the table too, but read it
    slower. The function bodies no longer fit: they stay for quickly deployable plugins, whose releases of TensorRT look
    for plugins first, and go for those in Python, which releases before 10.7 would not look for beside them.

    Args:
        model: An exported model; it is not changed. Needs Triton.
        folder: Where weights in files of their own lie.
        scratch_outputs: Give nodes an output, which nothing reads, for the scratch memory of their kernel: for quickly
            deployable plugins. Those in Python have working memory instead.

    Raises:
        Unsupported: See `require_kernels`.
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    tables = {tensor.name: tensor for tensor in made.graph.initializer}
    rows: dict[str, onnx.TensorProto] = {}
    for node, launch in planned_kernels(made):
        if launch.scratch and scratch_outputs:
            node.output.append(f"{node.output[0]}.scratch")
        table = tables.get(node.input[-1]) if launch.key_width else None
        if table is None or len(table.dims) != 2:
            continue
        name = f"{table.name} in rows of {launch.window_size} times sqrt({launch.key_width})"
        if name not in rows:
            values = onnx.numpy_helper.to_array(table, str(folder))
            found = bias_rows(values.astype(np.float32), launch.window_size, launch.key_width)
            rows[name] = onnx.numpy_helper.from_array(found.astype(values.dtype), name)
        node.input[-1] = name
    made.graph.initializer.extend(rows.values())
    used = {name for node in made.graph.node for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    if not scratch_outputs:
        bodies = [function for function in made.functions if function.domain != DOMAIN]
        del made.functions[:]
        made.functions.extend(bodies)
    return made
