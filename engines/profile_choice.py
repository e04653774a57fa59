"""From what a user says of sizes to the profiles of an engine."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from ..export.artifact import OnnxArtifact
from .profiles import Profile, check_profiles, parse_shape, preset_profile, static_profile

__all__ = ["DEFAULT_PRESET", "choose_profiles"]

DEFAULT_PRESET = "default"


def choose_profiles(
    artifact: OnnxArtifact,
    names: Sequence[str] = (),
    minimum: Sequence[str] = (),
    optimum: Sequence[str] = (),
    maximum: Sequence[str] = (),
    static: tuple[int, int] | None = None,
) -> tuple[Profile, ...]:
    """The profiles of an engine: presets first, then those given by their sizes.

    Nothing said means the only size of a static file, and one image of 64 to 512 pixels a side otherwise.

    Args:
        artifact: The ONNX file.
        names: Names of presets.
        minimum: Smallest size of each profile, ``HxW`` or ``BxHxW``.
        optimum: Best size of each.
        maximum: Largest size of each.
        static: Rows and columns (pixels) of the only size; rounded up to what the model needs.

    Raises:
        InputError: Not as many smallest as best and largest sizes; something that is no size or preset; `static`
            together with others; or see `check_profiles`.
    """
    given = {"--min": len(minimum), "--opt": len(optimum), "--max": len(maximum)}
    if len(set(given.values())) > 1:
        raise InputError(
            "A profile needs --min, --opt and --max; given are "
            + ", ".join(f"{count} x {option}" for option, count in given.items())
            + ".",
            fix="Give each as often as there are profiles.",
        )
    profiles = [preset_profile(name, artifact) for name in names]
    profiles += [
        Profile(parse_shape(low), parse_shape(best), parse_shape(high))
        for low, best, high in zip(minimum, optimum, maximum, strict=True)
    ]
    if static is not None:
        if profiles:
            raise InputError("--static names the only size.", fix="Leave out --profile, --min, --opt and --max.")
        multiple = artifact.spec.pad_multiple
        rows, columns = (size + -size % multiple for size in static)
        profiles = [Profile(*([(1, rows, columns)] * 3))]
    if not profiles:
        profiles = [static_profile(artifact) or preset_profile(DEFAULT_PRESET, artifact)]
    check_profiles(profiles, artifact)
    return tuple(profiles)
