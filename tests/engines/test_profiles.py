"""Profiles: reading sizes, presets, and what an engine cannot be built for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.engines.profiles import (
    PRESETS,
    Profile,
    check_profiles,
    parse_shape,
    preset_profile,
    static_profile,
)
from agileir_export.errors import InputError
from agileir_export.export.artifact import OnnxArtifact
from agileir_export.models.spec import ModelSpec


def artifact(multiple: int = 8, **profile: int) -> OnnxArtifact:
    spec = ModelSpec("swinir", "custom", "super-resolution", 2, 3, multiple, multiple)
    return OnnxArtifact(onnx.ModelProto(), b"", Path("m.onnx"), "float32", profile, spec, {}, (), 0, {})


def square(*sides: int, batch: int = 1) -> Profile:
    low, best, high = ((batch, side, side) for side in sides)
    return Profile(low, best, high)


@pytest.mark.parametrize(
    ("text", "shape"), [("64x96", (1, 64, 96)), ("4x256x384", (4, 256, 384)), (" 8X16 ", (1, 8, 16))]
)
def test_sizes_are_read(text: str, shape: tuple[int, int, int]) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize(
    "text", ["", "64", "64x", "0x64", "64x64x64x64", "-8x8", "axb", "1x999999", "64,64", "\N{FULLWIDTH DIGIT SIX}4x64"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a size"):
        parse_shape(text)


def test_a_profile_holds_what_is_between() -> None:
    profile = Profile((1, 8, 16), (2, 16, 16), (4, 64, 32))
    assert (1, 8, 16) in profile and (4, 64, 32) in profile and (3, 20, 17) in profile
    for outside in ((5, 8, 16), (1, 7, 16), (1, 8, 33)):
        assert outside not in profile
    assert str(profile) == "1x8x16..2x16x16..4x64x32"
    assert str(square(8, 8, 8)) == "1x8x8"
    assert Profile.from_json(profile.to_json()) == profile


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"min": [1, 2], "opt": [1, 2, 3], "max": [1, 2, 3]},
        {"min": None, "opt": [], "max": []},
        {"min": [1, 8, 8], "opt": [1, 4, 8], "max": [1, 8, 8]},
    ],
)
def test_damaged_json_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Profile.from_json(data)


@pytest.mark.parametrize("multiple", [4, 8, 16, 32])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_built(name: str, multiple: int) -> None:
    profile = preset_profile(name).rounded_up(multiple)
    check_profiles([profile], artifact(multiple))
    for rounded, wanted in zip((profile.minimum, profile.optimum, profile.maximum), PRESETS[name], strict=True):
        assert rounded[0] == wanted[0]
        assert all(0 <= new - old < multiple for new, old in zip(rounded[1:], wanted[1:], strict=True))


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(InputError, match="'4k' is not a profile"):
        preset_profile("4k")


def test_a_profile_without_order_cannot_be() -> None:
    with pytest.raises(InputError, match="no order in its rows: min 64, opt 16, max 64"):
        square(64, 16, 64)
    with pytest.raises(InputError, match="no order in its batch: min 1, opt 4, max 2"):
        Profile((1, 8, 8), (4, 8, 8), (2, 8, 8))
    with pytest.raises(InputError, match="no order in its rows: min 0"):
        square(0, 8, 8)


def test_what_no_engine_can_have_is_refused() -> None:
    plain = artifact()
    check_profiles([square(8, 16, 64), Profile((1, 8, 8), (2, 8, 8), (9, 8, 8))], plain)
    with pytest.raises(InputError, match="needs a profile"):
        check_profiles([], plain)
    with pytest.raises(InputError, match="has 20 columns, which is no multiple of 8") as refused:
        check_profiles([Profile((1, 8, 8), (1, 16, 20), (1, 32, 32))], plain)
    assert refused.value.fix == "Give 16 or 24."
    with pytest.raises(InputError) as refused:
        check_profiles([square(3, 8, 8)], plain)
    assert refused.value.fix == "Give 8."


def test_a_static_file_has_one_size() -> None:
    static = artifact(batch=1, height=16, width=24)
    profile = static_profile(static)
    assert profile == Profile((1, 16, 24), (1, 16, 24), (1, 16, 24))
    check_profiles([profile], static)
    with pytest.raises(InputError, match="exported for 1x16x24 only"):
        check_profiles([square(16, 16, 16)], static)
    assert static_profile(artifact()) is None
