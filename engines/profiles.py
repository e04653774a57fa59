"""Optimisation profiles: the sizes an engine is built for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..export.artifact import OnnxArtifact

__all__ = ["PRESETS", "Profile", "Shape", "check_profiles", "parse_shape", "preset_profile", "static_profile"]

Shape = tuple[int, int, int]
"""Batch, rows, columns."""


@dataclass(frozen=True)
class Profile:
    """The range of sizes one optimisation profile covers, and the size its kernels are chosen for.

    Attributes:
        minimum: Smallest batch, rows (pixels) and columns (pixels).
        optimum: What the engine is fastest at.
        maximum: Largest batch, rows and columns.

    Raises:
        InputError: Not 1 <= minimum <= optimum <= maximum.
    """

    minimum: Shape
    optimum: Shape
    maximum: Shape

    def __post_init__(self) -> None:
        names = ("batch", "rows", "columns")
        for name, low, best, high in zip(names, self.minimum, self.optimum, self.maximum, strict=True):
            if not 1 <= low <= best <= high:
                raise InputError(
                    f"The profile {self} has no order in its {name}: min {low}, opt {best}, max {high}.",
                    fix="Give min <= opt <= max, at least 1.",
                )

    def __contains__(self, shape: Shape) -> bool:
        return all(low <= size <= high for low, size, high in zip(self.minimum, shape, self.maximum, strict=True))

    def __str__(self) -> str:
        shapes = (self.minimum, self.optimum, self.maximum)
        return "..".join(dict.fromkeys("x".join(map(str, shape)) for shape in shapes))

    def rounded_up(self, multiple: int) -> Profile:
        """The profile with all sides rounded up to a multiple (pixels)."""

        def rounded(shape: Shape) -> Shape:
            batch, rows, columns = shape
            return batch, rows + -rows % multiple, columns + -columns % multiple

        return Profile(rounded(self.minimum), rounded(self.optimum), rounded(self.maximum))

    def to_json(self) -> dict[str, list[int]]:
        """The profile as a JSON object."""
        return {"min": list(self.minimum), "opt": list(self.optimum), "max": list(self.maximum)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Profile:
        """The profile that `to_json` described.

        Raises:
            ValueError: Not such an object.
        """
        try:
            shapes = [tuple(int(size) for size in data[key]) for key in ("min", "opt", "max")]
            minimum, optimum, maximum = ((batch, rows, columns) for batch, rows, columns in shapes)
            return cls(minimum, optimum, maximum)
        except (KeyError, TypeError, InputError) as error:
            raise ValueError(f"not a profile: {data}") from error


PRESETS: dict[str, tuple[Shape, Shape, Shape]] = {
    "default": ((1, 64, 64), (1, 256, 256), (1, 512, 512)),
    "tile-128": ((1, 128, 128), (4, 128, 128), (16, 128, 128)),
    "tile-256": ((1, 256, 256), (4, 256, 256), (8, 256, 256)),
    "tile-512": ((1, 512, 512), (1, 512, 512), (4, 512, 512)),
    "tiles": ((1, 64, 64), (1, 256, 256), (4, 512, 512)),
    "image": ((1, 64, 64), (1, 512, 512), (1, 1280, 1280)),
    "360p": ((1, 360, 640), (1, 360, 640), (1, 360, 640)),
    "540p": ((1, 540, 960), (1, 540, 960), (1, 540, 960)),
    "720p": ((1, 720, 1280), (1, 720, 1280), (1, 720, 1280)),
}
"""Smallest, best and largest size by name; sides are rounded up to what a model needs."""


def preset_profile(name: str) -> Profile:
    """A preset; its sides are still to be rounded up to the model's multiple.

    Raises:
        InputError: No preset has this name.
    """
    if name not in PRESETS:
        raise InputError(f"{name!r} is not a profile.", fix=f"Choose one of {', '.join(PRESETS)}, or give --min/--max.")
    return Profile(*PRESETS[name])


def static_profile(artifact: OnnxArtifact) -> Profile | None:
    """The only size a static file takes; None for a file of free size."""
    fixed = artifact.fixed_sizes
    if "height" not in fixed or "width" not in fixed:
        return None
    shape = (fixed.get("batch", 1), fixed["height"], fixed["width"])
    return Profile(shape, shape, shape)


def parse_shape(text: str) -> Shape:
    """``HxW`` or ``BxHxW`` in pixels.

    Raises:
        InputError: Something else.
    """
    match = re.fullmatch(r"(?:([1-9][0-9]{0,3})x)?([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text.strip().lower())
    if match is None:
        raise InputError(
            f"{text!r} is not a size such as 256x384 (rows x columns) or 4x256x384 (with the batch first)."
        )
    return int(match[1] or 1), int(match[2]), int(match[3])


def check_profiles(profiles: Sequence[Profile], artifact: OnnxArtifact) -> None:
    """Refuses profiles an engine of this file cannot have.

    Raises:
        InputError: None at all, a side that is no multiple of what the model needs, or another size than that of a
            static file.
    """
    if not profiles:
        raise InputError("An engine needs a profile.", fix="Give --min, --opt and --max, or a --profile by name.")
    multiple = artifact.spec.pad_multiple
    fixed = static_profile(artifact)
    for profile in profiles:
        sides = ([shape[axis] for shape in (profile.minimum, profile.optimum, profile.maximum)] for axis in (1, 2))
        for name, sizes in zip(("rows", "columns"), sides, strict=True):
            wrong = next((size for size in sizes if size % multiple), None)
            if wrong is not None:
                nearest = [size for size in (wrong - wrong % multiple, wrong + -wrong % multiple) if size]
                raise InputError(
                    f"The profile {profile} has {wrong} {name}, which is no multiple of {multiple}.",
                    why=f"{artifact.spec.name} needs multiples of {multiple} pixels; the runner pads pictures to them.",
                    fix=f"Give {' or '.join(map(str, nearest))}.",
                )
        if fixed is not None and profile != fixed:
            raise InputError(
                f"{artifact.name} was exported for {fixed} only, and the profile asks for {profile}.",
                fix="Export it without --static, or leave the profile out.",
            )
