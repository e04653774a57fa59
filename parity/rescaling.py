"""The residual rescale of a model: ranges measured, rewrite, proof of bit identity."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..engines.onnxruntime.runner import create_session
from ..engines.runner import Images
from ..errors import ParityMissed, Unsupported
from ..export.artifact import RESCALE_REPORT_KEY, OnnxArtifact, artifact_of
from ..export.rescale import RescaleReport, rescale
from ..progress import Progress, silent
from .images import ParityImage
from .ranges import measure_ranges, padded, range_images

if TYPE_CHECKING:
    import onnx

__all__ = ["identical_outputs", "rescale_if_needed"]


def rescale_if_needed(
    artifact: OnnxArtifact,
    images: Sequence[ParityImage] | None = None,
    *,
    progress: Progress = silent,
) -> tuple[OnnxArtifact, RescaleReport]:
    """Rescales a model whose streams outgrow float16, and proves that nothing else changed.

    Args:
        artifact: A float32 model.
        images: Pictures in the model's channels to measure ranges on; the packaged samples where None.
        progress: Told each step.

    Returns:
        The rescaled artifact, or the one given where no stream outgrows float16, and the report with the proof.

    Raises:
        Unsupported: The model is not float32, or what outgrows float16 cannot be rescaled; says which node forbids it.
        InputError: There is no picture, or a tensor is not finite in float32.
        ParityMissed: The output changed (float32 itself was at its end).
    """
    import onnx

    if artifact.precision != "float32":
        raise Unsupported(
            f"{artifact.name} is {artifact.precision}: only float32 files are rescaled.",
            fix="Rescale the float32 file, and convert the result.",
        )
    images = range_images(artifact) if images is None else images
    graph = artifact.model
    ranges = measure_ranges(artifact, graph, images, progress)
    changed, report = rescale(graph, ranges)
    report = dataclasses.replace(report, images=tuple(image.name for image in images))
    if not report.changed:
        return artifact, report
    progress("proving that the rescaled file computes the same bits")
    identical = identical_outputs(graph, changed, [padded(artifact, image) for image in images])
    if not identical:
        raise ParityMissed(
            f"{artifact.name}: the rescaled file does not compute the same float32 bits.",
            why="Values at the end of float32's range were lost.",
            fix="Use bfloat16 (--bf16), or leave the file as it is (--no-rescale).",
        )
    report = dataclasses.replace(report, bit_identical=identical)
    metadata = {entry.key: entry.value for entry in changed.metadata_props}
    onnx.helper.set_model_props(changed, {**metadata, RESCALE_REPORT_KEY: json.dumps(report.to_json())})
    return artifact_of(changed), report


def identical_outputs(before: onnx.ModelProto, after: onnx.ModelProto, inputs: Sequence[Images]) -> bool:
    """Whether two models give the same bits for all inputs ``[B, C, H, W]`` under ONNX Runtime."""
    first, second = create_session(before.SerializeToString()), create_session(after.SerializeToString())
    name = first.get_inputs()[0].name
    return all(
        first.run(None, {name: images})[0].tobytes() == second.run(None, {name: images})[0].tobytes()
        for images in inputs
    )
