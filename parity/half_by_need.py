"""Half precision for networks of libraries: what float16 cannot hold stays in float32, by measurement.

Our own families are built so that half precision holds them, with a rescale where streams grow. Nobody promises that of
another network. So its ranges are measured, what passes float16's range is left in float32, the result is compared with
float32 on pictures, and where it misses the floor the parts that cost most go back to float32, as few as needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..engines.onnxruntime.runner import create_session, faithful_session
from ..engines.runner import Images
from ..errors import InputError, ParityMissed, Unsupported
from ..export.artifact import OnnxArtifact
from ..export.floors import FLOORS
from ..export.precision import convert_precision, to_precision
from ..export.rescale import TARGET
from ..export.streams import picture_floats
from ..progress import Progress, silent
from .metrics import psnr
from .ranges import measure_ranges, padded, range_images
from .rescaling import rescale_if_needed

if TYPE_CHECKING:
    import onnx

__all__ = ["half_by_need"]

MARGIN = 3.0
"""dB above the floor that is asked for here: other pictures may fare worse."""

PARTS = 16
"""Parts that the network is cut into, in the order of its nodes, to find what costs most."""

PICTURES = 2
"""Of the pictures that ranges are measured on, those that the result is compared on."""

STATISTICS = frozenset({
    "Exp", "GroupNormalization", "InstanceNormalization", "Log", "LpNormalization", "Pow", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Softmax", "Sqrt",
})  # fmt: skip
"""Norms and softmaxes, in one node or several: sums of many terms, squares, and divisions by small numbers. They are
the first to go back to float32: they cost little, and lose most."""


def half_by_need(
    source: OnnxArtifact,
    precision: str,
    *,
    rescaling: bool = True,
    keep_opset: bool = False,
    progress: Progress = silent,
) -> OnnxArtifact:
    """A float32 model in half precision, with as much in float32 as it needs to hold the floor of its precision.

    Args:
        source: The float32 model of a library's network.
        precision: ``"float16"`` or ``"bfloat16"``.
        rescaling: Whether streams that outgrow float16 may be rescaled; what then is left stays in float32.
        keep_opset: Never declare another opset.
        progress: Told each step.

    Raises:
        ParityMissed: The floor is not held though nearly everything is in float32.
        InternalError: See `convert_precision`.
    """
    if precision == "float16" and rescaling:
        source = _rescaled(source, progress)
    kept: dict[str, str] = {}
    if precision == "float16":
        progress("measuring ranges")
        kept = _out_of_range(source, measure_ranges(source, source.model, range_images(source), infinities=True))
    trial = _Trial.of(source, precision, keep_opset)
    wanted = FLOORS[precision] + MARGIN
    for more in ({}, _statistics(source.model, precision)):
        kept = more | kept
        progress(f"trying with {len(kept)} nodes in float32")
        if trial.quality(kept) >= wanted:
            return to_precision(source, precision, keep_opset=keep_opset, kept=kept)
    kept, reached = trial.with_costly_parts(kept, wanted, progress)
    if reached < FLOORS[precision]:
        raise ParityMissed(
            f"{source.name} in {precision} is {reached:.1f} dB from float32 on real pictures, the floor is "
            f"{FLOORS[precision]:g} dB.",
            why=f"So it is with {len(kept)} of its {source.nodes} nodes in float32.",
            fix="Use bfloat16 (--bf16), or stay in float32." if precision == "float16" else "Stay in float32.",
        )
    return to_precision(source, precision, keep_opset=keep_opset, kept=kept)


def _rescaled(source: OnnxArtifact, progress: Progress) -> OnnxArtifact:
    """The model with rescaled streams; the same one where they cannot be, masks are infinite, or bits would change."""
    try:
        return rescale_if_needed(source, progress=progress)[0]
    except (InputError, Unsupported, ParityMissed):
        return source


def _out_of_range(source: OnnxArtifact, ranges: Mapping[str, float]) -> dict[str, str]:
    """Reason by the first result of the nodes that read or write what comes near the end of float16."""
    large = {name: amax for name, amax in ranges.items() if amax > TARGET}
    kept = {}
    for node in source.model.graph.node:
        worst = max((large[name] for name in (*node.input, *node.output) if name in large), default=0.0)
        if worst:
            kept[node.output[0]] = f"it reaches {_two_digits(worst)} on pictures, float16 ends at 65504"
    return kept


def _two_digits(value: float) -> str:
    return f"{value:.1e}"


def _statistics(model: onnx.ModelProto, precision: str) -> dict[str, str]:
    """The nodes that sum, square and divide."""
    reason = f"norms and softmax in {precision} cost more than the floor allows"
    return {node.output[0]: reason for node in model.graph.node if node.op_type in STATISTICS}


@dataclass(frozen=True)
class _Trial:
    """A model whose half-precision forms are compared with float32.

    Attributes:
        source: The float32 model.
        precision: The half precision.
        keep_opset: See `half_by_need`.
        inputs: Padded pictures ``[1, C, H, W]``.
        truths: What float32 makes of them.
    """

    source: OnnxArtifact
    precision: str
    keep_opset: bool
    inputs: Sequence[Images]
    truths: Sequence[Images]

    @classmethod
    def of(cls, source: OnnxArtifact, precision: str, keep_opset: bool) -> _Trial:
        """The trial on the first of the pictures that ranges are measured on."""
        inputs = [padded(source, image) for image in range_images(source)[:PICTURES]]
        session = create_session(source.data)
        name = session.get_inputs()[0].name
        return cls(source, precision, keep_opset, inputs, [session.run(None, {name: image})[0] for image in inputs])

    def quality(self, kept: Mapping[str, str]) -> float:
        """The dB of the worst picture, -inf where a value is not finite."""
        outputs = self._outputs(kept)
        return min(psnr(truth, output) for truth, output in zip(self.truths, outputs, strict=True))

    def _outputs(self, kept: Mapping[str, str]) -> list[Images]:
        model = convert_precision(self.source.model, self.precision, keep_opset=self.keep_opset, kept=kept)
        session = faithful_session(model)
        name = session.get_inputs()[0].name
        return [session.run(None, {name: image})[0] for image in self.inputs]

    def with_costly_parts(
        self, kept: Mapping[str, str], wanted: float, progress: Progress
    ) -> tuple[dict[str, str], float]:
        """What stays in float32 so that the quality wanted is reached, and the quality that is.

        The error of each part alone in half precision is measured; parts join `kept` from the costliest on until the
        rest would hold, which is then tried, and more join while it does not.
        """
        reason = f"this part of the network in {self.precision} costs more than the floor allows"
        parts = self._parts(kept)
        everything = {name: reason for part in parts for name in part} | dict(kept)
        errors = []
        for number, part in enumerate(parts, 1):
            progress(f"part {number} of {len(parts)} alone in {self.precision}")
            alone = {name: why for name, why in everything.items() if name not in part}
            errors.append(10 ** (-self.quality(alone) / 10))
        order = sorted(range(len(parts)), key=lambda index: -errors[index])
        allowed = 10 ** (-wanted / 10)
        least = next(n for n in range(len(parts) + 1) if math.fsum(errors[i] for i in order[n:]) <= allowed)
        reached = -math.inf
        chosen = dict(kept)
        for count in range(least, len(parts) + 1):
            chosen = {name: reason for index in order[:count] for name in parts[index]} | dict(kept)
            progress(f"trying with {len(chosen)} nodes in float32")
            reached = self.quality(chosen)
            if reached >= wanted:
                break
        return chosen, reached

    def _parts(self, kept: Mapping[str, str]) -> list[set[str]]:
        """First results of the nodes that can be in half precision, in parts of one size."""
        floats = picture_floats(self.source.model.graph)
        nodes = [node.output[0] for node in self.source.model.graph.node if node.output[0] in floats]
        free = [name for name in nodes if name not in kept]
        return [set(part) for part in np.array_split(np.array(free, dtype=object), min(PARTS, len(free) or 1))]
