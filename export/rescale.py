"""Residual rescale: streams that outgrow float16 are divided by a power of two, exactly.

In a pre-norm network every reader of the residual stream is a LayerNorm, which does not see a common factor, or a
linear map. So the stream can be divided by ``s = 2^k``: whoever writes it (the entry LayerNorm's affine part, the last
linear map of every branch, the convolutions of the stages) writes a fraction, whoever reads it allows for that (a
LayerNorm by its epsilon over ``s^2``, a linear map by its weight times ``s``). Only constants change. Because s is a
power of two, every float32 value of the stream keeps its mantissa, and the result its bits.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, Unsupported
from ..json_form import JsonForm
from .artifact import BLOCKS_KEY, RESCALE_KEY
from .streams import LINEAR, SUMS, Stream, constants, describe, find_streams, stays_float32

if TYPE_CHECKING:
    import onnx

__all__ = ["FLOAT16_MAX", "TARGET", "Body", "RescaleReport", "Unscaled", "rescale"]

FLOAT16_MAX = 65504.0
"""Greatest finite float16 (IEEE 754 binary16)."""

TARGET = 2.0**13
"""Magnitude that a rescaled stream stays under on the measured images: an eighth of float16's range, because other
images may reach further."""

NEGLIGIBLE = 2.0**-100
"""Weights of dead channels go down to float32's smallest numbers; what they lose there reaches no result."""

EPSILON = 1e-5
"""Default of ONNX LayerNormalization."""


@dataclass(frozen=True)
class Body:
    """A stream that can be rescaled.

    Attributes:
        name: Its first block output, else its first tensor.
        blocks: The block outputs in it, in order.
        tensors: Number of its tensors.
        amax: Greatest magnitude measured, before the rescale.
        widest: The tensor that reaches it.
        k: The stream is divided by ``2^k``.
    """

    name: str
    blocks: tuple[str, ...]
    tensors: int
    amax: float
    widest: str
    k: int


@dataclass(frozen=True)
class Unscaled:
    """A stream over the target that cannot be rescaled, though float16 holds it on the measured images.

    Attributes:
        tensor: Its widest tensor.
        amax: Greatest magnitude measured.
        reason: The node that fixes its factor.
    """

    tensor: str
    amax: float
    reason: str


@dataclass(frozen=True)
class RescaleReport(JsonForm):
    """What a rescale did, and the proof that it changed nothing.

    Attributes:
        bodies: The streams of the blocks and all others that were divided, in order.
        unscaled: Streams over the target that cannot be divided.
        images: Names of the images that ranges and proof were taken on.
        bit_identical: Whether the float32 outputs before and after are equal in every bit on these images; None where
            nothing was changed, or nobody looked.
    """

    bodies: tuple[Body, ...]
    unscaled: tuple[Unscaled, ...] = ()
    images: tuple[str, ...] = ()
    bit_identical: bool | None = None

    @property
    def changed(self) -> bool:
        """Whether any stream was divided."""
        return any(body.k for body in self.bodies)

    def notes(self) -> list[str]:
        """What a user should know, a sentence each: every stream that was divided, and those that could not be."""
        divided = [
            f"The stream of {body.name} reaches {body.amax:.4g} and was divided by 2^{body.k}."
            for body in self.bodies
            if body.k
        ]
        proof = ["In float32 the output keeps every bit."] if self.bit_identical else []
        close = [
            f"{one.tensor} reaches {one.amax:.4g} of float16's {FLOAT16_MAX:g} and cannot be divided: {one.reason}."
            for one in self.unscaled
        ]
        return divided + proof + close

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {"changed": self.changed, **super().to_json()}


def rescale(model: onnx.ModelProto, ranges: Mapping[str, float]) -> tuple[onnx.ModelProto, RescaleReport]:
    """Divides every stream that outgrows the target by the smallest power of two that brings it back.

    Args:
        model: A float32 model; not changed.
        ranges: Greatest finite magnitude by tensor name, measured on real images; tensors that are absent count as 0.

    Returns:
        The model with other constants and the exponent of every block in its metadata, and the report; the very same
        model where nothing outgrows the target.

    Raises:
        Unsupported: A tensor passes float16's range and its factor is fixed by a node that is not homogeneous, or a
            constant would leave float32's range.
        InputError: A range is not finite.
    """
    bad = [name for name, amax in ranges.items() if not math.isfinite(amax)]
    if bad:
        raise InputError(f"The range of {bad[0]} is {ranges[bad[0]]}: it overflows in float32 already.")
    graph = model.graph
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    blocks = set(json.loads(metadata.get(BLOCKS_KEY, "[]")))
    wide = stays_float32(graph)
    bodies, unscaled, exponents = [], [], {}
    for stream in find_streams(graph):
        narrow = [name for name in stream.tensors if name not in wide]
        widest = max(narrow, key=lambda name: ranges.get(name, 0.0), default=None)
        if widest is None:
            continue
        amax = ranges.get(widest, 0.0)
        if stream.fixed_by:
            if amax > FLOAT16_MAX:
                raise _cannot_scale(widest, amax, stream)
            if amax > TARGET:
                unscaled.append(Unscaled(widest, amax, stream.fixed_by))
            continue
        k = _exponent(amax)
        within = tuple(name for name in stream.tensors if name in blocks)
        if k or within:
            name = within[0] if within else stream.tensors[0]
            bodies.append(Body(name, within, len(stream.tensors), amax, widest, k))
        if k:
            exponents.update(dict.fromkeys(stream.tensors, k))
    report = RescaleReport(tuple(bodies), tuple(unscaled))
    if not exponents:
        return model, report
    changed = deepcopy(model)
    _divide(changed.graph, exponents)
    _record(changed, {name: exponents[name] for name in exponents if name in blocks})
    return changed, report


def _exponent(amax: float) -> int:
    """The smallest k >= 0 with ``amax / 2^k <= TARGET``."""
    mantissa, power = math.frexp(amax / TARGET)  # mantissa in 0.5..1, excluding 1
    return max(0, power - 1 if mantissa == 0.5 else power)


def _cannot_scale(tensor: str, amax: float, stream: Stream) -> Unsupported:
    return Unsupported(
        f"{tensor} reaches {amax:.4g} on the measured images, float16 ends at {FLOAT16_MAX:g}.",
        why=f"It cannot be divided by a power of two: {stream.fixed_by}.",
        fix="Use bfloat16 (--bf16), which has float32's range.",
    )


def _divide(graph: onnx.GraphProto, exponents: Mapping[str, int]) -> None:
    """Rewrites the constants in place; exponents of absent tensors are 0."""
    known = constants(graph)
    demands: dict[str, dict[int, list[tuple[onnx.NodeProto, int]]]] = defaultdict(lambda: defaultdict(list))
    for node in graph.node:
        shifts = _shifts(node, known, exponents)
        for position, name in enumerate(node.input):
            if name in known:
                demands[name][shifts.get(position, 0)].append((node, position))
        if node.op_type == "LayerNormalization":
            _divide_epsilon(node, 2 * exponents.get(node.input[0], 0))
    for name, users in demands.items():
        for shift, places in users.items():
            if not shift:
                continue
            scaled = _shifted(known[name], shift)
            if len(users) > 1:  # others read it as it is, or with another factor
                scaled.name = f"{name}*2^{shift}"
                graph.initializer.append(scaled)
                for node, position in places:
                    node.input[position] = scaled.name
            else:
                known[name].CopyFrom(scaled)


def _shifts(
    node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto], exponents: Mapping[str, int]
) -> dict[int, int]:
    """Power of two that each constant input of a node is multiplied by, by position; those not named stay."""
    if not node.output:
        return {}
    after = exponents.get(node.output[0], 0)
    inputs = list(node.input)
    if node.op_type in LINEAR:
        weight = 1 if inputs[1] in known else 0
        before = exponents.get(inputs[1 - weight], 0)
        return {weight: before - after, 2: -after}
    if node.op_type == "LayerNormalization":
        return {1: -after, 2: -after}
    if node.op_type in SUMS:
        return dict.fromkeys(range(len(inputs)), -after)
    return {}


def _divide_epsilon(node: onnx.NodeProto, shift: int) -> None:
    import onnx

    if not shift:
        return
    found = [attribute for attribute in node.attribute if attribute.name == "epsilon"]
    if not found:
        node.attribute.append(onnx.helper.make_attribute("epsilon", EPSILON))
        found = [node.attribute[-1]]
    divided = np.ldexp(np.float32(found[0].f), -shift)
    if np.ldexp(divided, shift) != np.float32(found[0].f):
        raise _out_of_range(f"The epsilon of {describe(node)}", shift)
    found[0].f = float(divided)


def _shifted(tensor: onnx.TensorProto, shift: int) -> onnx.TensorProto:
    """A constant times ``2^shift``; every value that is not negligible keeps all its bits."""
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    if values.dtype != np.float32:
        raise Unsupported(
            f"{tensor.name} is {values.dtype}: only float32 files are rescaled.",
            fix="Rescale the float32 file, and convert the result.",
        )
    scaled = np.ldexp(values, shift)
    lost = np.abs(np.ldexp(scaled, -shift) - values)
    if not np.all(lost <= NEGLIGIBLE):
        raise _out_of_range(tensor.name, shift)
    return numpy_helper.from_array(scaled, tensor.name)


def _out_of_range(what: str, shift: int) -> Unsupported:
    return Unsupported(
        f"{what} times 2^{shift} leaves float32's range.",
        why="The rescale would no longer be exact.",
        fix="Use bfloat16 (--bf16), which has float32's range.",
    )


def _record(model: onnx.ModelProto, blocks: Mapping[str, int]) -> None:
    """Adds the exponents to those the metadata already holds."""
    entry = next((entry for entry in model.metadata_props if entry.key == RESCALE_KEY), None)
    if entry is None:
        entry = model.metadata_props.add(key=RESCALE_KEY, value="{}")
    before = json.loads(entry.value)
    entry.value = json.dumps(before | {name: k + before.get(name, 0) for name, k in blocks.items()})
