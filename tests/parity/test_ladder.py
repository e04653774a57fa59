"""The ladder on tiny networks: sound files pass, every kind of mistake is found and named."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agileir_export.errors import InputError
from agileir_export.export import OnnxArtifact, read_artifact
from agileir_export.export.floors import AGREEMENT_FLOORS, DICTIONARY_FLOORS, FOLDED_FLOOR
from agileir_export.models import Restorer, fold, set_top_k
from agileir_export.parity import FLOORS, verify
from agileir_export.parity import ladder as ladder_module
from agileir_export.parity.bisection import AFTER

from ..export import networks
from .noise import pictures
from .tampering import set_attribute, tamper, with_nan, without_task

FOLDED, TASK = "folded PyTorch = PyTorch", "restores ground truth as PyTorch does"
OWN, SAME = "ONNX float32 = PyTorch, own dictionary", "ONNX float32 = PyTorch, same dictionary"
ONNX_RUNGS = {"agileir": ["ONNX float32 = PyTorch"], "swinir-light": ["ONNX float32 = PyTorch"], "semanir": [OWN, SAME]}
BLOCK = "layers.{}.residual_group.blocks.{}"


def check(kind: str, artifact: OnnxArtifact, model: Restorer | None = None, **options: Any) -> Any:
    model = model or networks.shared(kind)
    return verify(model, without_task(artifact), pictures(model.spec, (5, 7), (8, 12)), **options)


# ---- sound files ----


@pytest.mark.parametrize("kind", networks.ONE_A_FAMILY)
def test_a_fresh_export_passes(kind: str, folder: Path, small_samples: list[tuple[str, Path]]) -> None:
    model, artifact = networks.shared(kind), networks.exported(folder, kind)
    report = verify(model, artifact, pictures(model.spec, (5, 7), (1, 1), (8, 12)))
    assert report.passed
    assert [rung.name for rung in report.rungs] == [FOLDED, *ONNX_RUNGS[kind], TASK]
    assert report.subject == str(artifact.path)
    assert report.spec == model.spec
    assert {role: runner["target"] for role, runner in report.runners.items()} == {
        "reference": "torch",
        "candidate": "onnxruntime",
    }
    folded, *compared, task = report.rungs
    assert folded.floor == FOLDED_FLOOR == 120
    for rung in compared:
        sizes = {"noise 0": (5, 7), "noise 1": (1, 1), "noise 2": (8, 12)}
        if rung.name == OWN:  # a single pixel is padded with itself: all its tokens tie
            del sizes["noise 1"]
            assert "1 image" in rung.note
        assert {m.image: (m.height, m.width) for m in rung.measures} == sizes
        assert 100 < rung.worst < math.inf
        assert rung.broken_block is None
        assert all(m.nonfinite == 0 and 0 < m.max_steps < 0.1 for m in rung.measures)
    assert [measure.image for measure in task.measures] == [name for name, _ in small_samples]


def test_a_dictionary_is_compared_and_fed(semanir: OnnxArtifact) -> None:
    _, own, same = check("semanir", semanir).rungs
    assert (own.name, same.name) == (OWN, SAME)
    assert (own.floor, own.agreement_floor) == (80, 0.999)
    assert own.agreement is not None and own.agreement >= 0.999
    assert (same.floor, same.agreement_floor, same.agreement) == (100, None, None)


def test_a_decomposed_dictionary_is_only_said_to_be_unseen(folder: Path) -> None:
    report = check("semanir", networks.exported(folder, "semanir", decomposed=True))
    assert [rung.name for rung in report.rungs] == [FOLDED, OWN]
    assert report.rungs[1].agreement_floor is None
    assert "decomposed" in report.rungs[1].note
    assert report.passed


def test_pictures_that_judge_nothing_are_refused(semanir: OnnxArtifact, folder: Path) -> None:
    model, pixel = networks.shared("semanir"), [(1, 1)]
    with pytest.raises(InputError, match="larger pictures"):
        decomposed = networks.exported(folder, "semanir", decomposed=True)
        verify(model, without_task(decomposed), pictures(model.spec, *pixel))
    rungs = verify(model, without_task(semanir), pictures(model.spec, *pixel)).rungs
    assert [rung.name for rung in rungs] == [FOLDED, SAME]


def test_images_are_chosen_where_none_are_given(
    swinir: OnnxArtifact, folder: Path, small_samples: list[tuple[str, Path]]
) -> None:
    model = networks.shared("swinir-light")
    sizes = {(m.height, m.width) for m in verify(model, without_task(swinir)).rungs[1].measures}
    assert sizes == {(24, 36), (1, 1)}  # the samples are smaller than the default sizes
    static = networks.exported(folder, "swinir-light", static=(8, 12))
    report = verify(model, static)
    assert {(m.height, m.width) for m in report.rungs[1].measures} == {(8, 12)}
    assert report.passed
    assert TASK not in [rung.name for rung in report.rungs]  # whole pictures do not fit the fixed size


def test_random_weights_are_not_measured_against_ground_truth(swinir: OnnxArtifact) -> None:
    assert [rung.name for rung in check("swinir-light", swinir).rungs] == [FOLDED, "ONNX float32 = PyTorch"]


def test_no_images_are_refused(swinir: OnnxArtifact) -> None:
    with pytest.raises(InputError, match="no picture"):
        verify(networks.shared("swinir-light"), swinir, [])


def test_progress_and_subject_are_told(swinir: OnnxArtifact) -> None:
    steps: list[str] = []
    assert check("swinir-light", swinir, progress=steps.append, subject="mine").subject == "mine"
    assert steps == ["PyTorch", "folded PyTorch", "ONNX float32"]


# ---- mistakes in the file ----


@pytest.mark.parametrize(
    ("weight", "block"),
    [
        (BLOCK.format(0, 0) + ".attn.qkv_weight", BLOCK.format(0, 0)),
        (BLOCK.format(0, 1) + ".attn.relative_position_bias_table", BLOCK.format(0, 1)),
        ("layers.0.conv.weight", "layers.0"),
        (BLOCK.format(1, 0) + ".mlp.fc2.weight^T", BLOCK.format(1, 0)),
        ("layers.1.conv.bias", "layers.1"),
        ("norm.weight", AFTER),
        ("upsample.0.weight", AFTER),
    ],
)
def test_the_block_with_a_wrong_weight_is_named(weight: str, block: str, folder: Path, tmp_path: Path) -> None:
    broken = tamper(networks.exported(folder, "agileir"), tmp_path / "broken.onnx", weight)
    folded, compared = check("agileir", broken).rungs
    assert folded.passed
    assert not compared.passed
    assert compared.worst < 100
    assert compared.broken_block == block


@pytest.mark.parametrize(
    ("weight", "block"),
    [
        (BLOCK.format(0, 0) + ".attn.frozen_bias_table", BLOCK.format(0, 0)),
        (BLOCK.format(1, 1) + ".mlp.fc1.bias", BLOCK.format(1, 1)),
        ("conv_last.weight", AFTER),
    ],
)
def test_both_rungs_of_a_dictionary_name_the_block(
    weight: str, block: str, semanir: OnnxArtifact, tmp_path: Path
) -> None:
    _, own, same = check("semanir", tamper(semanir, tmp_path / "broken.onnx", weight)).rungs
    assert not own.passed and not same.passed
    assert (own.broken_block, same.broken_block) == (block, block)


def test_a_nan_is_counted_and_fails(swinir: OnnxArtifact, tmp_path: Path) -> None:
    block = BLOCK.format(0, 1)
    report = check("swinir-light", tamper(swinir, tmp_path / "nan.onnx", f"{block}.mlp.fc2.bias", with_nan))
    rung = report.rungs[1]
    assert not report.passed
    assert rung.worst == -math.inf
    for measure, size in zip(rung.measures, ((5, 7), (8, 12)), strict=True):
        assert 0 < measure.nonfinite <= 3 * 4 * size[0] * size[1]
        assert measure.max_steps == math.inf
    assert rung.broken_block == block
    again = read_artifact(tmp_path / "nan.onnx")
    assert not check("swinir-light", again, min_psnr=-math.inf).passed  # no floor lets it through


@pytest.mark.parametrize("top_k", [4, 6])
def test_other_keys_lower_the_agreement(top_k: int, semanir: OnnxArtifact, tmp_path: Path) -> None:
    """Only the last stage's dictionary is changed: there min(5, k) keys of 5 and k agree, in the other 5 of 5 and 5."""
    changed = set_attribute(semanir, tmp_path / "k.onnx", "KeySemanticDictionary", 1, "top_k", top_k)
    _, own, same = check("semanir", changed).rungs
    assert own.agreement == pytest.approx(2 * (5 + min(5, top_k)) / (10 + 5 + top_k), abs=1e-3)
    assert not own.passed
    assert same.passed  # given PyTorch's keys, nothing is wrong
    assert own.broken_block == BLOCK.format(1, 0)


def test_agreement_fails_by_itself(semanir: OnnxArtifact, tmp_path: Path) -> None:
    changed = set_attribute(semanir, tmp_path / "k.onnx", "KeySemanticDictionary", 1, "top_k", 4)
    own = check("semanir", changed, min_psnr=1).rungs[1]
    assert own.worst > own.floor
    assert not own.passed


# ---- the wrong model ----


def test_other_weights_are_refused(swinir: OnnxArtifact) -> None:
    other = copy.deepcopy(networks.shared("swinir-light"))
    with torch.no_grad():
        other.get_parameter("norm.bias")[0] += 1e-6
    with pytest.raises(InputError, match="weights differ"):
        check("swinir-light", swinir, other)


def test_another_network_is_refused(swinir: OnnxArtifact) -> None:
    with pytest.raises(InputError, match="weights differ"):
        check("swinir-light", swinir, networks.build("swinir-light", depths=(1,), num_heads=(3,)))


def test_another_top_k_is_refused(semanir: OnnxArtifact) -> None:
    other = copy.deepcopy(networks.shared("semanir"))
    set_top_k(other, 7)
    with pytest.raises(InputError, match=r"top_k 5, the model has 7.*--top-k 5"):
        check("semanir", semanir, other)


def test_a_folding_that_changes_the_model_is_found(swinir: OnnxArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: Restorer) -> Restorer:
        folded = fold(model)
        with torch.no_grad():
            folded.get_parameter(BLOCK.format(0, 1) + ".mlp.fc2.bias").add_(0.1)
        return folded

    monkeypatch.setattr(ladder_module, "fold", wrong)
    unnamed = dataclasses.replace(swinir, provenance={})
    model = networks.shared("swinir-light")
    folded = verify(model, without_task(unnamed), pictures(model.spec, (5, 7))).rungs[0]
    assert folded.name == FOLDED
    assert not folded.passed
    assert folded.broken_block == BLOCK.format(0, 1)


# ---- floors ----


def test_the_floors_are_those_of_the_design() -> None:
    assert FLOORS == {"float32": 100, "float16": 60, "bfloat16": 45, "int8": 38}
    assert DICTIONARY_FLOORS == {"float32": 80, "float16": 50}
    assert AGREEMENT_FLOORS == {"float32": 0.999, "float16": 0.99, "bfloat16": 0.99, "int8": 0.95}


@pytest.mark.parametrize("precision", FLOORS)
def test_the_precision_of_the_file_chooses_the_floors(
    precision: str, semanir: OnnxArtifact, swinir: OnnxArtifact
) -> None:
    rung = check("swinir-light", dataclasses.replace(swinir, precision=precision)).rungs[1]
    assert (rung.name, rung.floor) == (f"ONNX {precision} = PyTorch", FLOORS[precision])
    _, own, same = check("semanir", dataclasses.replace(semanir, precision=precision)).rungs
    assert (own.floor, same.floor) == (DICTIONARY_FLOORS.get(precision, FLOORS[precision]), FLOORS[precision])
    assert own.agreement_floor == AGREEMENT_FLOORS[precision]


@pytest.mark.parametrize("kind", ["swinir-light", "semanir"])
def test_min_psnr_replaces_the_floors_of_the_onnx_rungs(kind: str, folder: Path) -> None:
    folded, *compared = check(kind, networks.exported(folder, kind), min_psnr=400).rungs
    assert folded.floor == 120 and folded.passed
    assert [rung.floor for rung in compared] == [400] * len(compared)
    assert not any(rung.passed for rung in compared)
    assert all(rung.broken_block for rung in compared)  # rounding alone misses such a floor somewhere


def test_images_are_not_changed(swinir: OnnxArtifact) -> None:
    model = networks.shared("swinir-light")
    images = pictures(model.spec, (5, 7))
    given = images[0].pixels.copy()
    verify(model, without_task(swinir), images)
    assert np.array_equal(images[0].pixels, given)
