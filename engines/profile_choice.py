"""From what a user says of sizes to the profiles of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..export.artifact import OnnxArtifact
from .profiles import Profile, check_profiles, parse_shape, preset_profile, static_profile

__all__ = ["DEFAULT_PRESET", "NOTHING_SAID", "Sizes", "choose_profiles", "read_sizes"]

DEFAULT_PRESET = "default"


@dataclass(frozen=True)
class Sizes:
    """What a user asks for in sizes, before a file is known.

    Attributes:
        nearby: Profiles whose sides are rounded up to what a model needs.
        exact: Profiles to take as they are.
    """

    nearby: tuple[Profile, ...] = ()
    exact: tuple[Profile, ...] = ()


NOTHING_SAID = Sizes()


def read_sizes(
    names: Sequence[str] = (),
    minimum: Sequence[str] = (),
    optimum: Sequence[str] = (),
    maximum: Sequence[str] = (),
    static: tuple[int, int] | None = None,
) -> Sizes:
    """Sizes as a user gives them; what no engine of any file can have is refused.

    Args:
        names: Names of presets.
        minimum: Smallest size of each profile, ``HxW`` or ``BxHxW``.
        optimum: Best size of each.
        maximum: Largest size of each.
        static: Rows and columns (pixels) of the only size.

    Raises:
        InputError: Not as many smallest as best and largest sizes; something that is no size or preset; not
            min <= opt <= max; a profile twice; `static` together with others.
    """
    given = {"--min": len(minimum), "--opt": len(optimum), "--max": len(maximum)}
    if len(set(given.values())) > 1:
        raise InputError(
            "A profile needs --min, --opt and --max; given are "
            + ", ".join(f"{count} x {option}" for option, count in given.items())
            + ".",
            fix="Give each as often as there are profiles.",
        )
    presets = tuple(map(preset_profile, names))
    exact = tuple(
        Profile(parse_shape(low), parse_shape(best), parse_shape(high))
        for low, best, high in zip(minimum, optimum, maximum, strict=True)
    )
    profiles = (*presets, *exact)
    twice = next((profile for number, profile in enumerate(profiles) if profile in profiles[:number]), None)
    if twice is not None:
        raise InputError(f"The profile {twice} is given twice.", fix="Give each once.")
    if static is None:
        return Sizes(presets, exact)
    if profiles:
        raise InputError("--static names the only size.", fix="Leave out --profile, --min, --opt and --max.")
    return Sizes((Profile(*([(1, *static)] * 3)),))


def choose_profiles(artifact: OnnxArtifact, sizes: Sizes = NOTHING_SAID) -> tuple[Profile, ...]:
    """The profiles of an engine: presets first, then those given by their sizes.

    Nothing said means the only size of a static file, and one image of 64 to 512 pixels a side otherwise.

    Args:
        artifact: The ONNX file.
        sizes: What is asked for.

    Raises:
        InputError: See `check_profiles`.
    """
    fixed = static_profile(artifact)
    if sizes == NOTHING_SAID:
        sizes = Sizes((preset_profile(DEFAULT_PRESET),)) if fixed is None else Sizes(exact=(fixed,))
    profiles = (*(profile.rounded_up(artifact.spec.pad_multiple) for profile in sizes.nearby), *sizes.exact)
    check_profiles(profiles, artifact)
    return profiles
