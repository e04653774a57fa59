"""The ready command: two runs of one network compared by polygraphy, as a shell script."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...export.artifact import OnnxArtifact, read_artifact
from .hooks import Pictures, fixed_size

__all__ = ["TARGETS", "Comparison", "plan_comparison"]

TARGETS = ("onnxrt", "trt", "rtx")
"""What ONNX Runtime is compared with: itself on another file, TensorRT, TensorRT-RTX."""

OUTPUTS = "$outputs/first"
"""Where a script keeps the outputs of its first run; `outputs` is a temporary folder that it makes and removes."""


@dataclass(frozen=True)
class Comparison:
    """Runs of polygraphy that compare two executions of a network.

    Attributes:
        floor: dB below which the last run fails.
        commands: One or two command lines, as lists of arguments. ``$outputs`` in an argument is the shell's.
        environment: Variables that the last one needs.
    """

    floor: float
    commands: tuple[tuple[str, ...], ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def script(self) -> str:
        """A program for ``sh`` that ends with polygraphy's exit code."""
        lines = ["#!/bin/sh", "set -eu"]
        if len(self.commands) > 1:
            lines += ["outputs=$(mktemp -d)", "trap 'rm -rf \"$outputs\"' EXIT"]
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        for command in self.commands:
            words = [f'"{word}"' if word == OUTPUTS else shlex.quote(word) for word in command]
            lines.append(" ".join((*(variables if command is self.commands[-1] else ()), *words)))
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The comparison as a JSON object, its script in it."""
        return {
            "floor": self.floor,
            "commands": [list(command) for command in self.commands],
            "environment": dict(self.environment),
            "script": self.script(),
        }


def plan_comparison(
    model: str | Path,
    target: str = "onnxrt",
    *,
    against: str | Path | None = None,
    images: Sequence[str | Path] = (),
    size: tuple[int, int] | None = None,
    floor: float | None = None,
) -> Comparison:
    """ONNX Runtime on one file against a target on the same file, or on another of the same network.

    Args:
        model: Exported file whose outputs under ONNX Runtime are the reference.
        target: One of `TARGETS`.
        against: Exported file for the target; `model` where None.
        images: Pictures and folders; the packaged samples where empty.
        size: (rows, columns) to cut pictures to; whole where None.
        floor: dB; the ladder's own for the target's file where None.

    Raises:
        InputError: Nothing is left to compare, the files do not take the same pictures, or a fixed size is not met.
        OnnxFileError: A file is not one of ours.
        ImageError: A picture cannot be found or read.
    """
    if target == "onnxrt" and against is None:
        raise InputError(
            "There is nothing to compare: ONNX Runtime on one file only.",
            fix="Add --trt, --rtx or --against FILE.",
        )
    if floor is not None and math.isnan(floor):
        raise InputError("A floor of NaN dB cannot be reached.", fix="Give a number of dB.")
    reference, candidate = read_artifact(model), read_artifact(against or model)
    _same_network(reference, candidate)
    size = size or fixed_size(reference) or fixed_size(candidate)
    if floor is None:
        floor = _ladder_floor(candidate)
    fed = Pictures(against or model, images, size)
    shapes = [fed.read(file).shape for file in fed.files]  # says now what is wrong with a picture
    pictures = ["--agileir-images", *(str(path) for path in images)]
    if size is not None:
        pictures += ["--agileir-size", f"{size[0]}x{size[1]}"]
    judged = ["--agileir-psnr", f"{floor:g}"]
    runner = ["--onnxrt"] if target == "onnxrt" else ["--trt", "--strongly-typed", *_profile(fed, shapes)]
    environment = {"POLYGRAPHY_USE_TENSORRT_RTX": "1"} if target == "rtx" else {}
    run = ("polygraphy", "run")
    if against is None:
        return Comparison(floor, ((*run, str(model), "--onnxrt", *runner, *pictures, *judged),), environment)
    first = (*run, str(model), "--onnxrt", *pictures, "--save-outputs", OUTPUTS)
    second = (*run, str(against), *runner, *pictures, "--load-outputs", OUTPUTS, *judged)
    return Comparison(floor, (first, second), environment)


def _same_network(model: OnnxArtifact, against: OnnxArtifact) -> None:
    """Refuses files that take different pictures or give different ones."""
    for fact in ("channels", "scale", "pad_multiple"):
        here, there = getattr(model.spec, fact), getattr(against.spec, fact)
        if here != there:
            raise InputError(
                f"{model.path} and {against.path} are different networks: {fact} is {here} and {there}.",
                fix="Compare files that were exported from one model.",
            )


def _ladder_floor(artifact: OnnxArtifact) -> float:
    """What the parity ladder asks of a file of this precision; less where a model chooses its keys itself."""
    from ..ladder import DICTIONARY_FLOORS, FLOORS

    floor = FLOORS[artifact.precision]
    return floor if artifact.spec.top_k is None else min(floor, DICTIONARY_FLOORS.get(artifact.precision, floor))


def _profile(pictures: Pictures, shapes: Sequence[tuple[int, ...]]) -> list[str]:
    """TensorRT's range of shapes that holds every picture; nothing where the file has one size."""
    if pictures.fixed is not None:
        return []
    smallest, largest = (tuple(choose(sizes) for sizes in zip(*shapes, strict=True)) for choose in (min, max))
    low, high = (f"{pictures.input_name()}:[{','.join(map(str, shape))}]" for shape in (smallest, largest))
    return ["--trt-min-shapes", low, "--trt-opt-shapes", high, "--trt-max-shapes", high]
