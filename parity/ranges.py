"""Ranges of a file's tensors, measured on pictures under ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np

from ..engines.onnxruntime.runner import create_session
from ..engines.runner import Images
from ..errors import InputError
from ..export.artifact import OnnxArtifact
from ..export.streams import constants, picture_floats, stays_float32
from ..images.resizing import pad_to_multiple
from ..progress import Progress, silent
from .images import ParityImage, images_of_size

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Statistic",
    "float_tensors",
    "insert_behind",
    "measure_ranges",
    "padded",
    "range_images",
    "tensor_statistics",
]

SIDE = 128
"""Rows and columns of the crops that ranges are measured on by default."""

SUFFIX = ".statistic"

Statistic = Callable[[str, str], "list[onnx.NodeProto]"]
"""Nodes that reduce a tensor to one number: given the tensor's name and the result's."""


def range_images(artifact: OnnxArtifact) -> list[ParityImage]:
    """The packaged samples, cut to the file's fixed size or to `SIDE`."""
    fixed = artifact.fixed_sizes
    return images_of_size(artifact.spec, (fixed.get("height", SIDE), fixed.get("width", SIDE)))


def measure_ranges(
    artifact: OnnxArtifact,
    graph: onnx.ModelProto,
    images: Sequence[ParityImage],
    progress: Progress = silent,
    *,
    infinities: bool = False,
) -> dict[str, float]:
    """Greatest magnitude of every float32 tensor of a graph over all pictures.

    Tensors that stay float32 in a half file (the softmax of an inlined function body) are left out: their infinities
    are on purpose. So are those of a tensor that depends on constants and integers alone (a mask): they do not count.

    Args:
        artifact: The file the graph is from.
        graph: The file's graph.
        images: Pictures in the model's channels, of any size.
        progress: Told each picture.
        infinities: Whether values that are not finite are left out instead of refused: logits of masked keys are -inf
            in some networks.

    Raises:
        InputError: There is no picture, or the graph yields NaN or infinities on one.
    """
    if not images:
        raise InputError("There is no picture to measure ranges on.", fix="Give at least one.")
    import onnx

    typed = onnx.shape_inference.infer_shapes(graph)
    names, computed = float_tensors(typed), picture_floats(typed.graph)
    ranges = dict.fromkeys(names, 0.0)
    for image, found in tensor_statistics(artifact, graph, images, names, _greatest, progress):
        for name, value in zip(names, found, strict=True):
            if np.isfinite(value):
                ranges[name] = max(ranges[name], float(value))
            elif name in computed and not infinities:
                raise InputError(f"{artifact.name}: {name} is not finite in float32 on {image.name}.")
    return ranges


def tensor_statistics(
    artifact: OnnxArtifact,
    graph: onnx.ModelProto,
    images: Sequence[ParityImage],
    names: Sequence[str],
    statistic: Statistic,
    progress: Progress = silent,
) -> Iterable[tuple[ParityImage, list[float]]]:
    """One number of each named tensor for each picture; the graph reduces them, so no tensor is kept.

    Yields:
        The picture, and the numbers in the order of the names.
    """
    import onnx

    copy = deepcopy(graph)
    del copy.graph.value_info[:]
    results = [name + SUFFIX for name in names]
    insert_behind(copy.graph, {name: statistic(name, result) for name, result in zip(names, results, strict=True)})
    copy.graph.output.extend(onnx.ValueInfoProto(name=result) for result in results)
    session = create_session(copy.SerializeToString(), in_order=True)
    source = session.get_inputs()[0].name
    for image in images:
        progress(f"ranges on {image.name}")
        yield image, [float(value) for value in session.run(results, {source: padded(artifact, image)})]


def insert_behind(graph: onnx.GraphProto, added: Mapping[str, Sequence[onnx.NodeProto]]) -> None:
    """Puts nodes right behind the node that computes a tensor, by its name, in place.

    Run in order (`create_session`), a tensor that was only computed to be looked at is freed at once.
    """
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        for name in node.output:
            graph.node.extend(added.get(name, ()))


def padded(artifact: OnnxArtifact, image: ParityImage) -> Images:
    """The graph's input for a picture."""
    return pad_to_multiple(image.pixels[None], artifact.spec.pad_multiple)[0]


def float_tensors(graph: onnx.ModelProto) -> list[str]:
    """Computed float32 tensors of the main graph, in order, without those that stay float32 in a half file.

    Args:
        graph: A model whose tensors have types (`onnx.shape_inference.infer_shapes`).
    """
    import onnx

    float32 = {
        value.name
        for value in (*graph.graph.value_info, *graph.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    left_out = stays_float32(graph.graph) | constants(graph.graph).keys()
    computed = (name for node in graph.graph.node for name in node.output)
    return [name for name in computed if name in float32 and name not in left_out]


def _greatest(name: str, result: str) -> list[onnx.NodeProto]:
    from onnx.helper import make_node

    magnitude = f"{result}.magnitude"
    return [
        make_node("Abs", [name], [magnitude]),
        make_node("ReduceMax", [magnitude], [result], keepdims=0),
    ]
