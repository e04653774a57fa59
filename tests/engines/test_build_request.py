"""Targets, requests, and the choice of profiles: what is decided before a build."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import types
from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.cache.facts import differences
from agileir_export.engines.building.request import (
    BuildRequest,
    check_options,
    check_request,
    choose_plugins,
)
from agileir_export.engines.doctor import Diagnosis, Surroundings, TargetVerdict
from agileir_export.engines.profile_choice import choose_profiles, read_sizes
from agileir_export.engines.profiles import Profile
from agileir_export.engines.targets import TARGETS, check_capabilities, choose_target, load_target
from agileir_export.errors import EnvironmentProblem, InputError, OutputError, Unsupported
from agileir_export.export.artifact import OnnxArtifact
from agileir_export.models.spec import ModelSpec

from .builds import request
from .rtx_builds import needs_rtx

RTX, TENSORRT = TARGETS["rtx"], TARGETS["tensorrt"]


def artifact(multiple: int = 8, **changes: Any) -> OnnxArtifact:
    spec = ModelSpec("swinir", "trial", "super-resolution", 2, 3, 8, multiple)
    file = (onnx.ModelProto(), b"", Path("a.onnx"), "float32")
    made = OnnxArtifact(*file, {}, spec, {}, (), 1, {"ShiftedWindowAttention": 4})
    return dataclasses.replace(made, **changes)


# ---- targets ----


def diagnosis(**works: bool) -> Diagnosis:
    verdicts = [TargetVerdict(TARGETS[name].check, ok, "" if ok else f"{name} is away") for name, ok in works.items()]
    return Diagnosis(Surroundings("", "", {}, "", gpu=None), tuple(verdicts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("works", "chosen"),
    [
        ({"tensorrt": True, "rtx": True}, "tensorrt"),
        ({"tensorrt": False, "rtx": True}, "rtx"),
        ({"tensorrt": True, "rtx": False}, "tensorrt"),
    ],
)
def test_auto_prefers_tensorrt(works: dict[str, bool], chosen: str) -> None:
    assert choose_target("auto", lambda: diagnosis(**works)).name == chosen


def test_auto_says_what_every_target_lacks() -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        choose_target("auto", lambda: diagnosis(tensorrt=False, rtx=False))
    assert "TensorRT: tensorrt is away; TensorRT-RTX: rtx is away" in caught.value.why
    assert "pip install" in caught.value.fix


def test_a_named_target_is_taken_at_its_word() -> None:
    assert choose_target("tensorrt", lambda: diagnosis(tensorrt=False, rtx=True)) is TENSORRT
    with pytest.raises(InputError, match="'trt' is not a target"):
        choose_target("trt")


def test_a_module_that_is_not_installed_is_named() -> None:
    absent = dataclasses.replace(RTX, modules=("no_module_of_ours", "nor_this"))
    with pytest.raises(EnvironmentProblem, match="no_module_of_ours") as caught:
        load_target(absent)
    assert "pip install tensorrt_rtx" in caught.value.fix


@needs_rtx
def test_capabilities_are_those_of_the_module() -> None:
    trt = load_target(RTX)
    check_capabilities(RTX, trt, RTX.default_gpus)
    check_capabilities(RTX, trt, ("sm75", "sm80", "sm121"))
    with pytest.raises(InputError, match=r"knows no GPU 'sm90'") as caught:
        check_capabilities(RTX, trt, ("sm86", "sm90"))
    assert "sm75, sm80, sm86, sm89, sm120, sm121" in caught.value.fix


def test_tensorrt_builds_for_the_gpu_at_hand() -> None:
    check_capabilities(TENSORRT, types.SimpleNamespace(), ())


# ---- requests ----

FULL = request(
    Path("a.onnx"),
    optimization_level=3,
    workspace_bytes=10,
    timing_cache=Path("t"),
    target="tensorrt",
    hardware_compatible="ampere-plus",
    profiles=(Profile((1, 8, 8), (1, 8, 16), (2, 16, 16)), Profile((1, 8, 8), (1, 8, 8), (1, 8, 8))),
)


def test_a_request_travels_as_json() -> None:
    there = BuildRequest.from_json(json.loads(json.dumps(FULL.to_json())))
    assert there == dataclasses.replace(FULL, onnx=Path("a.onnx").absolute(), timing_cache=Path("t").absolute())


CHANGES: dict[str, Any] = {
    "sha256": "1" * 64,
    "network": "other",
    "precision": "float16",
    "target": "tensorrt",
    "profiles": (Profile((1, 8, 8), (1, 8, 8), (1, 8, 8)),),
    "gpus": ("sm86", "sm89"),
    "tf32": True,
    "use_plugins": True,
    "plugin_form": "python",
    "fuse_blocks": True,
    "optimization_level": 2,
    "workspace_bytes": 1 << 20,
    "version_compatible": True,
    "hardware_compatible": "same-capability",
}


@pytest.mark.parametrize("field", CHANGES)
def test_the_changed_fact_is_named_and_no_other(field: str) -> None:
    one = request(Path("a.onnx"))
    other = dataclasses.replace(one, **{field: CHANGES[field]})
    found = differences(one.facts("1", "", ""), other.facts("1", "", ""))
    assert {difference.field.split(".")[0] for difference in found} == {field}


def test_facts_are_of_all_fields_but_places() -> None:
    places = {"onnx", "timing_cache"}
    assert {field.name for field in dataclasses.fields(BuildRequest)} - places == CHANGES.keys()
    one = request(Path("a.onnx"))
    moved = dataclasses.replace(one, onnx=Path("b.onnx"), timing_cache=Path("t"))
    assert one.facts("1", "g", "d") == moved.facts("1", "g", "d")
    changed = {"target_version": ("2", "g", "d"), "gpu": ("1", "h", "d"), "driver": ("1", "g", "e")}
    for name, surroundings in changed.items():
        found = differences(one.facts("1", "g", "d"), one.facts(*surroundings))
        assert [difference.field for difference in found] == [name]


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"optimization_level": 6}, InputError, "level 6"),
        ({"optimization_level": -1}, InputError, "level -1"),
        ({"workspace_bytes": 0}, InputError, "at least one byte"),
        ({"gpus": ("sm86", "sm86")}, InputError, "twice"),
        ({"gpus": ("sm86",), "target": "tensorrt"}, Unsupported, "not for sm86"),
        ({"gpus": ("sm86", "sm75"), "precision": "bfloat16"}, Unsupported, "sm75 cannot compute in bfloat16"),
        ({"gpus": ("sm75",)}, Unsupported, "no float32 matrix products for Turing"),
        ({"timing_cache": Path("gone/t"), "target": "tensorrt", "gpus": ()}, OutputError, "no folder gone"),
        ({"use_plugins": True, "plugin_form": "quick"}, Unsupported, "no plugins of the form 'quick'"),
        ({"version_compatible": True}, Unsupported, "version-compatible"),
        ({"hardware_compatible": "ampere-plus"}, Unsupported, "compatibility levels"),
        ({"timing_cache": Path("t")}, Unsupported, "no timing cache"),
    ],
)
def test_what_a_target_cannot_do_is_refused_early(changes: dict[str, Any], kind: type[Exception], word: str) -> None:
    asked = request(Path("a.onnx"), **changes)
    with pytest.raises(kind, match=word) as caught:
        check_options(asked, asked.precision)
    assert type(caught.value) is kind


def test_tensorrt_takes_all_of_it() -> None:
    check_options(dataclasses.replace(FULL, gpus=(), use_plugins=True, version_compatible=True), "float32")


def test_turing_takes_what_is_not_known_yet() -> None:
    asked = request(Path("a.onnx"), gpus=("sm75",))
    for precision in (None, "float16", "int8"):
        check_options(asked, precision)


def test_what_a_file_cannot_be_built_with() -> None:
    asked = request(Path("a.onnx"), profiles=(Profile(*[(1, 16, 16)] * 3),))
    check_request(asked, artifact())
    with pytest.raises(InputError, match=r"TF32 is for float32 products, and a\.onnx holds float16"):
        check_request(dataclasses.replace(asked, tf32=True, precision="float16"), artifact())
    with pytest.raises(InputError, match="no multiple of 7"):
        check_request(asked, artifact(7))


def test_plugins_are_chosen_where_they_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = artifact(operators={})
    assert choose_plugins("plugin", TENSORRT, artifact())
    assert not choose_plugins("decomposed", TENSORRT, artifact())
    assert not choose_plugins("auto", RTX, artifact())
    assert not choose_plugins("auto", TENSORRT, plain)
    with pytest.raises(InputError, match="no attention operators"):
        choose_plugins("plugin", TENSORRT, plain)
    for installed in (True, False):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, found=installed: found or None)
        assert choose_plugins("auto", TENSORRT, artifact()) is installed


# ---- profiles ----


def test_the_default_is_one_image_of_64_to_512() -> None:
    assert choose_profiles(artifact()) == (Profile((1, 64, 64), (1, 256, 256), (1, 512, 512)),)
    assert choose_profiles(artifact(7)) == (Profile((1, 70, 70), (1, 259, 259), (1, 518, 518)),)


def test_a_static_file_has_its_own_profile() -> None:
    fixed = artifact(fixed_sizes={"batch": 1, "height": 48, "width": 64})
    only = (Profile(*[(1, 48, 64)] * 3),)
    assert choose_profiles(fixed) == choose_profiles(fixed, read_sizes(static=(48, 60))) == only
    with pytest.raises(InputError, match="exported for 1x48x64 only"):
        choose_profiles(fixed, read_sizes(["tiles"]))


def test_presets_and_sizes_together() -> None:
    sizes = read_sizes(["720p"], ["8x16", "2x8x8"], ["16x16", "2x8x8"], ["2x64x64", "2x8x8"])
    assert choose_profiles(artifact(), sizes) == (
        Profile(*[(1, 720, 1280)] * 3),
        Profile((1, 8, 16), (1, 16, 16), (2, 64, 64)),
        Profile(*[(2, 8, 8)] * 3),
    )
    assert choose_profiles(artifact(), read_sizes(static=(9, 16))) == (Profile(*[(1, 16, 16)] * 3),)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"minimum": ["8x8"]}, "1 x --min, 0 x --opt, 0 x --max"),
        ({"minimum": ["8x8"], "optimum": ["8x8"], "maximum": ["16x16", "16x16"]}, "2 x --max"),
        ({"minimum": ["64x64"], "optimum": ["32x32"], "maximum": ["128x128"]}, "no order in its rows"),
        ({"minimum": ["64x64"], "optimum": ["64x64"], "maximum": ["64x32"]}, "no order in its columns"),
        ({"minimum": ["8by8"], "optimum": ["8x8"], "maximum": ["8x8"]}, "'8by8' is not a size"),
        ({"names": ["8k"]}, "'8k' is not a profile"),
        ({"names": ["tiles"], "static": (8, 8)}, "--static names the only size"),
    ],
)
def test_profiles_that_cannot_be(given: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_sizes(**given)


def test_sizes_are_taken_as_they_are_and_presets_rounded() -> None:
    with pytest.raises(InputError, match="9 rows, which is no multiple of 8"):
        choose_profiles(artifact(), read_sizes((), ["9x8"], ["16x16"], ["16x16"]))
    assert choose_profiles(artifact(7), read_sizes(["540p"])) == (Profile(*[(1, 546, 966)] * 3),)
