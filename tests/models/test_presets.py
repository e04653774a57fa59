"""Presets, their parameter counts, the registry, and `ModelSpec`."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache

import pytest
import torch

from agileir_export.errors import ModelNameError
from agileir_export.models import (
    FAMILIES,
    ModelSpec,
    Restorer,
    build_preset,
    find_preset,
    list_models,
    load_model,
    preset_names,
    register,
)

# research/models_spec.md, A.5: counted with the authors' code
AGILEIR = {
    "agileir_x2": 8_687_424,
    "agileir_x3": 8_711_739,
    "agileir_x4": 8_745_780,
    "agileir_light_x2": 1_895_292,
    "agileir_light_x3": 1_908_267,
    "agileir_light_x4": 1_926_432,
    "agileir_lightest_x2": 986_904,
}
AGILEIR_ATTENTION = {"agileir_x2": 1_908_792, "agileir_light_x4": 798_960}
AGILEIR_ATTENTION |= {"agileir_lightest_x2": 341_952}
# published in millions, and the exact counts behind them (B.2)
SEMANIR = {
    "semanir_s_x2": ("11.87", 11_869_775),
    "semanir_s_x3": ("12.05", 12_054_415),
    "semanir_s_x4": ("12.02", 12_017_487),
    "semanir_b_x2": ("19.90", 19_895_399),
    "semanir_b_x3": ("20.08", 20_080_039),
    "semanir_b_x4": ("20.04", 20_043_111),
}
# SwinIR's paper, table 2 (classical) and 3 (lightweight), and A.5 for the exact ones
SWINIR = {
    "swinir_classical_x2": ("11.75", None),
    "swinir_classical_x3": ("11.94", None),
    "swinir_classical_x4": ("11.90", 11_900_199),
    "swinir_light_x2": ("0.91", 910_152),
    "swinir_light_x3": ("0.92", None),
    "swinir_light_x4": ("0.93", 929_628),
}


@cache
def shapes_of(name: str) -> Restorer:
    """A preset without memory for its weights."""
    with torch.device("meta"):
        return build_preset(name)


def count(name: str, part: str = "") -> int:
    """Parameters of a preset whose name contains `part`."""
    return sum(p.numel() for key, p in shapes_of(name).named_parameters() if part in key)


@pytest.mark.parametrize("name", AGILEIR)
def test_parameters_of_agileir(name: str) -> None:
    assert count(name) == AGILEIR[name]


@pytest.mark.parametrize("name", AGILEIR_ATTENTION)
def test_parameters_of_the_attention_of_agileir(name: str) -> None:
    assert count(name, ".attn.") == AGILEIR_ATTENTION[name]


def test_variants_of_agileir_in_the_released_options() -> None:
    # the "medium" option varies key_dims by stage; the demo has six blocks a stage
    medium = {"key_dims": (16,) * 5 + (32,), "window_size": 8}
    demo = {"depths": (6,) * 4, "key_dims": (32,) * 4}
    for preset, changes, wanted in (
        ("agileir_x2", medium, 8_580_864),
        ("agileir_lightest_x2", demo, 900_360),
    ):
        with torch.device("meta"):
            network = build_preset(preset, **changes)
        assert sum(p.numel() for p in network.parameters()) == wanted


@pytest.mark.parametrize("name", SEMANIR | SWINIR)
def test_parameters_of_semanir_and_swinir(name: str) -> None:
    published, exact = (SEMANIR | SWINIR)[name]
    found = count(name)
    assert f"{found / 1e6:.2f}" == published
    assert exact is None or found == exact


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_built_and_says_what_it_is(name: str) -> None:
    network = shapes_of(name)
    spec = network.spec
    family, hyperparameters = find_preset(name)
    assert (spec.name, spec.family) == (name, family.name)
    assert ModelSpec.from_json(spec.to_json()) == spec
    scale = re.search(r"_x(\d)$", name)
    assert spec.scale == (int(scale[1]) if scale else 1)
    assert (spec.task == "super-resolution") == (scale is not None)
    channels = 1 if "grey" in name else 4 if "raw" in name else 3
    assert spec.channels == channels == network.conv_first.in_channels
    assert spec.img_range == (255.0 if name.startswith("swinir_jpeg") else 1.0)
    assert spec.pad_multiple % spec.window_size == 0
    assert (spec.top_k is not None) == (family.name == "semanir")
    assert hyperparameters == find_preset(name)[1]
    hyperparameters["scale"] = 99  # a copy: the registry does not change
    assert find_preset(name)[1].get("scale") != 99


def test_settings_of_the_published_presets() -> None:
    assert [find_preset("agileir_light_x4")[0].complete(find_preset("agileir_light_x4")[1])[k]
            for k in ("depths", "num_heads", "key_dims", "window_size", "upsampler")] == [
        (6, 8, 6), (12,) * 3, (32,) * 3, 16, "pixelshuffledirect"]  # fmt: skip
    small, base = shapes_of("semanir_s_x2"), shapes_of("semanir_b_x2")
    assert (small.spec.window_size, small.spec.top_k) == (32, 512)
    assert [len(s.residual_group.blocks) for s in small.layers] == [6] * 6
    assert [len(s.residual_group.blocks) for s in base.layers] == [8] * 8


def test_changes_override_a_preset() -> None:
    with torch.device("meta"):
        network = build_preset("semanir_tiny_x2", top_k=7, window_size=8)
    assert (network.spec.top_k, network.spec.window_size) == (7, 8)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("agileir_ligth_x4", "agileir_light_x4"),
        ("semanir-s-x2", "semanir_s_x2"),
        ("swinir_clasical_x4", "swinir_classical_x4"),
    ],
)
def test_an_unknown_name_brings_near_names(name: str, near: str) -> None:
    with pytest.raises(ModelNameError) as caught:
        find_preset(name)
    assert name in caught.value.what
    assert near in caught.value.fix
    assert caught.value.exit_code == 2


def test_a_name_near_to_nothing_points_to_the_list() -> None:
    with pytest.raises(ModelNameError, match="agileir-export models"):
        find_preset("%%%%%%%%")


def test_the_registry_refuses_duplicates() -> None:
    before = {name: family for name, family in FAMILIES.items()}
    swinir = FAMILIES["swinir"]
    with pytest.raises(ValueError, match="registered twice: family 'swinir'"):
        register(dataclasses.replace(swinir, presets={}))
    stolen = dataclasses.replace(swinir, name="other", presets={"agileir_x2": {}, "new": {}})
    with pytest.raises(ValueError, match=r"presets \['agileir_x2'\]"):
        register(stolen)
    assert before == FAMILIES


# ---- ModelSpec ----

SPEC = ModelSpec("semanir", "custom", "denoising", 1, 3, 8, 32, 255.0, 64)


@pytest.mark.parametrize("spec", [SPEC, ModelSpec("swinir", "a b ü", "x", 4, 1, 7, 7)])
def test_a_spec_survives_json(spec: ModelSpec) -> None:
    assert spec.to_json() == dataclasses.asdict(spec)
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("data", [[], None, 3, "spec", {}, {"family": "a"}])
def test_json_of_something_else_is_refused(data: object) -> None:
    with pytest.raises(ValueError):
        ModelSpec.from_json(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("family", 3),
        ("name", None),
        ("scale", "2"),
        ("scale", 0),
        ("scale", 2.0),
        ("scale", True),
        ("channels", None),
        ("pad_multiple", -8),
        ("img_range", "1"),
        ("img_range", 0),
        ("top_k", 0),
        ("top_k", "64"),
        ("unknown", 1),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused_by_name(field: str, value: object) -> None:
    fields = {**dataclasses.asdict(SPEC), field: value}
    with pytest.raises(ValueError, match=field):
        ModelSpec.from_json(fields)


def test_where_the_authors_weights_are() -> None:
    entries = {entry.name: entry for entry in list_models()}
    swinir = FAMILIES["swinir"]
    assert swinir.released.keys() == swinir.presets.keys()
    assert all(entry.released == swinir.published(name) for name, entry in entries.items() if entry.family == "swinir")
    assert "x4" in entries["swinir_classical_x4"].released and "github.com" in entries["swinir_classical_x4"].released
    assert not any(entry.released for entry in entries.values() if entry.family != "swinir")
    with pytest.raises(ModelNameError, match=r"002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2\.pth of release"):
        load_model("swinir_light_x2")
    with pytest.raises(ModelNameError, match="have published none"):
        load_model("semanir_s_x2")
