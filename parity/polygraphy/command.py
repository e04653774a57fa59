"""The ready command: two runs of one network compared by polygraphy, as a shell script."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...engines.artifact import EngineArtifact, is_engine, read_engine
from ...engines.opening import is_onnx
from ...errors import InputError, Unsupported
from ...export.artifact import OnnxArtifact, read_artifact
from ...export.floors import file_floor
from ...json_form import JsonForm
from .hooks import Pictures, fixed_size, input_name

__all__ = ["TARGETS", "Comparison", "plan_comparison"]

TARGETS = ("onnxrt", "trt", "rtx")
"""What ONNX Runtime is compared with: itself on another file, TensorRT, TensorRT-RTX."""

ENGINE_TARGETS = {"tensorrt": "trt", "rtx": "rtx"}
"""The same by what an engine's sidecar says."""

INPUTS, OUTPUTS = "$outputs/inputs", "$outputs/first"
"""Where a script keeps what its first run took and gave: `outputs` is a temporary folder that it makes and removes."""


@dataclass(frozen=True)
class Comparison(JsonForm):
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
        lines = ["#!/bin/sh", "set -eu", "export ORT_DISABLE_TELEMETRY=1"]
        lines.append(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH  # where polygraphy was installed")
        if len(self.commands) > 1:
            lines += ["outputs=$(mktemp -d)", "trap 'rm -rf \"$outputs\"' EXIT"]
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        for command in self.commands:
            words = [f'"{word}"' if word in (INPUTS, OUTPUTS) else shlex.quote(word) for word in command]
            lines.append(" ".join((*(variables if command is self.commands[-1] else ()), *words)))
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The comparison as a JSON object, its script in it."""
        return super().to_json() | {"script": self.script()}


def plan_comparison(
    model: str | Path,
    target: str | None = None,
    *,
    against: str | Path | None = None,
    images: Sequence[str | Path] = (),
    size: tuple[int, int] | None = None,
    floor: float | None = None,
) -> Comparison:
    """ONNX Runtime on one file against a target on the same file, or on another file or an engine of the same network.

    Args:
        model: Exported file whose outputs under ONNX Runtime are the reference.
        target: One of `TARGETS`; where None an engine's own, or ONNX Runtime.
        against: Exported file or built engine for the target; `model` where None.
        images: Pictures and folders; the packaged samples where empty.
        size: (rows, columns) to cut pictures to; whole where None.
        floor: dB; the ladder's own for the target's precision where None.

    Raises:
        InputError: Nothing is left to compare, the files do not belong together, or a picture's size does not fit.
        OnnxFileError: A file is not one of ours.
        ImageError: A picture cannot be found or read.
        Unsupported: ONNX Runtime would have to run bfloat16.
    """
    model, images = Path(model).absolute(), [Path(path).absolute() for path in images]  # the script runs anywhere
    against = None if against is None else Path(against).absolute()
    if target in (None, "onnxrt") and against is None:
        raise InputError(
            "There is nothing to compare: ONNX Runtime on one file only.",
            fix="Add --trt, --rtx or --against FILE.",
        )
    if floor is not None and math.isnan(floor):
        raise InputError("A floor of NaN dB cannot be reached.", fix="Give a number of dB.")
    reference = read_artifact(model)
    candidate = _open(reference if against is None else against)
    _same_network(reference, candidate)
    _runs_here(reference)
    if floor is None:
        floor = file_floor(candidate.precision, candidate.spec.top_k)
    judged = ("--agileir-psnr", f"{floor:g}")
    if isinstance(candidate, EngineArtifact):
        pictures, shapes = _pictures(reference, images, size or fixed_size(reference))
        first = (*_run(reference), *pictures, "--save-inputs", INPUTS, "--save-outputs", OUTPUTS)
        given = ("--load-inputs", INPUTS, "--load-outputs", OUTPUTS)
        second = (*_engine_run(candidate, target, shapes), *given, *judged)
        return Comparison(floor, (first, second), _environment(ENGINE_TARGETS[candidate.target]))
    pictures, shapes = _pictures(candidate, images, size or fixed_size(reference) or fixed_size(candidate))
    runner: tuple[str, ...] = ("--onnxrt",)
    if target in (None, "onnxrt"):
        _runs_here(candidate)
    else:
        runner = ("--trt", "--strongly-typed", *_profile(candidate, shapes))
    if against is None:
        return Comparison(floor, ((*_run(reference), *runner, *pictures, *judged),), _environment(target))
    first = (*_run(reference), *pictures, "--save-outputs", OUTPUTS)
    second = (*_run(candidate, *runner), *pictures, "--load-outputs", OUTPUTS, *judged)
    return Comparison(floor, (first, second), _environment(target))


def _open(candidate: OnnxArtifact | str | Path) -> OnnxArtifact | EngineArtifact:
    if isinstance(candidate, OnnxArtifact):
        return candidate
    return read_engine(candidate) if is_engine(candidate) else read_artifact(candidate)


def _same_network(model: OnnxArtifact, against: OnnxArtifact | EngineArtifact) -> None:
    """Refuses files that take different pictures or give different ones."""
    for fact in ("channels", "scale", "pad_multiple"):
        here, there = getattr(model.spec, fact), getattr(against.spec, fact)
        if here != there:
            raise InputError(
                f"{model.path} and {against.path} are different networks: {fact} is {here} and {there}.",
                fix="Compare files that were made from one model.",
            )


def _runs_here(artifact: OnnxArtifact) -> None:
    """Refuses what polygraphy cannot run under ONNX Runtime on the CPU."""
    if artifact.precision == "bfloat16":
        raise Unsupported(
            f"polygraphy cannot run {artifact.name} under ONNX Runtime.",
            why="ONNX Runtime has hardly any bfloat16 kernels for the CPU.",
            fix="Name the float32 file first and this one with --against and --trt or --rtx; "
            "`agileir-export verify` emulates bfloat16.",
        )


def _pictures(
    artifact: OnnxArtifact, images: Sequence[str | Path], size: tuple[int, int] | None
) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
    """Our options of a run on pictures, and the pictures' shapes; reading them says now what is wrong with one."""
    fed = Pictures(artifact, images, size)
    cut = () if size is None else ("--agileir-size", f"{size[0]}x{size[1]}")
    return ("--agileir-images", *map(str, images), *cut), [fed.read(file).shape for file in fed.files]


def _run(artifact: OnnxArtifact, *runner: str) -> tuple[str, ...]:
    """Start of a run on an exported file, under ONNX Runtime where nothing else is said."""
    kind = () if is_onnx(artifact.name) else ("--model-type", "onnx")  # polygraphy goes by the suffix
    return ("polygraphy", "run", artifact.name, *kind, *(runner or ("--onnxrt",)))


def _engine_run(engine: EngineArtifact, target: str | None, shapes: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
    """Start of a run of an engine, with the first of its profiles that takes all pictures."""
    if target not in (None, ENGINE_TARGETS[engine.target]):
        raise InputError(
            f"{engine.path} is an engine of {engine.target}.", fix="Leave --trt and --rtx out: the engine decides."
        )
    for index, profile in enumerate(engine.profiles):
        if all((batch, rows, columns) in profile for batch, _, rows, columns in shapes):
            chosen = ("--optimization-profile", str(index))
            return ("polygraphy", "run", str(engine.path), "--model-type", "engine", "--trt", *chosen)
    sizes = ", ".join(sorted({f"{rows}x{columns}" for _, _, rows, columns in shapes}))
    raise InputError(
        f"No profile of {engine.path} takes all pictures: they are {sizes} when padded, "
        f"the profiles {'; '.join(map(str, engine.profiles))} (batch x rows x columns).",
        fix="Cut the pictures with --size, or build the engine for their sizes.",
    )


def _environment(target: str | None) -> dict[str, str]:
    return {"POLYGRAPHY_USE_TENSORRT_RTX": "1"} if target == "rtx" else {}


def _profile(artifact: OnnxArtifact, shapes: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
    """TensorRT's range of shapes that holds every picture; nothing where the file has one size."""
    if fixed_size(artifact) is not None:
        return ()
    smallest, largest = (tuple(choose(sizes) for sizes in zip(*shapes, strict=True)) for choose in (min, max))
    name = input_name(artifact)
    low, high = (f"{name}:[{','.join(map(str, shape))}]" for shape in (smallest, largest))
    return ("--trt-min-shapes", low, "--trt-opt-shapes", high, "--trt-max-shapes", high)
