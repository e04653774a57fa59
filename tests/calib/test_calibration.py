"""Calibration from end to end on small files: what is written, what is told, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from agileir_export.cache import Cache
from agileir_export.calib import CalibrationOptions, loss_plot, read_recipe
from agileir_export.calib import measuring as measuring_module
from agileir_export.calib.layers import find_layers
from agileir_export.calib.quantise import quantised_layers
from agileir_export.calib.report import COLUMNS
from agileir_export.errors import InputError, OutputError, ParityMissed
from agileir_export.export import OnnxArtifact, read_artifact
from agileir_export.parity.metrics import psnr

from ..export import networks
from ..export.written import half_file, int8_file

FAST = {"crops": 4, "held_out": 1}
FEW = 9


def options(**changes: Any) -> CalibrationOptions:
    return CalibrationOptions(**{**FAST, **changes})


def test_a_file_is_written_and_the_report_tells_of_it(small: OnnxArtifact, pictures: Any, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    how = {"options": options(), "progress": lambda *step: told.append(step)}
    artifact, report = int8_file(small, tmp_path / "int8.onnx", ground_truth=[pictures(5)], **how)
    layers = find_layers(onnx.load(small.path))
    kept = {layer.name for layer in layers if not layer.end}
    assert artifact == read_artifact(tmp_path / "int8.onnx")
    assert artifact.precision == "int8"
    assert (artifact.spec, artifact.blocks, artifact.operators) == (small.spec, small.blocks, small.operators)
    assert artifact.provenance["weights_sha256"] == small.provenance["weights_sha256"]
    assert artifact.provenance["calibration"]["int8_layers"] == len(kept) == len(report.recipe.int8)
    assert quantised_layers(onnx.load(artifact.path), layers) == kept == {*report.recipe.int8}
    assert {layer.name: layer.decision for layer in report.layers} == {
        layer.name: "end" if layer.end else "int8" for layer in layers
    }
    assert report.quality.loss <= 0.1 and report.quality.parity >= 38
    assert 0.5 < report.share < report.share_outside < 1
    assert all(layer.quality is not None for layer in report.layers)
    assert [name for name, truth in report.pictures if truth][1:] == ["astronaut", "chelsea"]
    assert ("ranges", 4, 4) in told
    assert ("cost of every layer", len(layers), len(layers)) in told
    assert artifact.path.stat().st_size < small.path.stat().st_size
    told_in_json = json.loads(json.dumps(report.to_json()))
    assert len(told_in_json["layers"]) == len(layers)
    assert all(len(row) == len(COLUMNS) for row in report.rows())
    assert any("outside the operators" in value for _, value in report.summary())
    plot = loss_plot(report)
    assert plot.startswith("<svg") and plot.count("<rect") == len(layers) + 3
    assert "layers.0.conv" in plot and "budget 0.1 dB" in plot


def test_the_same_images_give_the_same_bytes_and_so_does_the_recipe(
    small: OnnxArtifact, pictures: Any, tmp_path: Path
) -> None:
    folder, cache = pictures(5), Cache(tmp_path / "cache")
    quick = options(every_layer=False)
    paths = [tmp_path / f"{n}.onnx" for n in range(4)]
    _, report = int8_file(small, paths[0], ground_truth=[folder], options=quick)
    int8_file(small, paths[1], ground_truth=sorted(folder.iterdir()), options=quick, cache=cache)
    assert cache.entries()
    int8_file(small, paths[2], ground_truth=[folder], options=quick, cache=cache)
    saved = tmp_path / "recipe.json"
    saved.write_text(report.recipe.text())
    assert read_recipe(saved) == report.recipe
    _, applied = int8_file(small, paths[3], recipe=read_recipe(saved))
    assert applied.quality is None and applied.recipe == report.recipe
    assert (applied.share, applied.share_outside) == (report.share, report.share_outside)
    assert len({path.read_bytes() for path in paths}) == 1


def test_float16_around_it(small: OnnxArtifact, pictures: Any, tmp_path: Path) -> None:
    artifact, report = int8_file(
        small, tmp_path / "h.onnx", ground_truth=[pictures(5)], options=options(rest="float16", every_layer=False)
    )
    graph = onnx.load(artifact.path)
    assert artifact.precision == "int8" and artifact.conversion["precision"] == "float16"
    assert graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert graph.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    kinds = {tensor.data_type for tensor in graph.graph.initializer if len(tensor.dims) > 1}
    assert kinds == {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16}
    assert quantised_layers(graph, find_layers(onnx.load(small.path))) == {*report.recipe.int8}
    assert report.quality is not None and report.quality.parity >= 38


@pytest.mark.parametrize("ends", [False, True])
def test_layers_that_keys_are_chosen_from_stay_int8_in_float16(ends: bool, folder: Path, tmp_path: Path) -> None:
    """What keys are chosen from is float32 in a float16 file: a quantised layer there is quantised from float32."""
    source = networks.exported(folder, "semanir")
    loose = options(
        rest="float16", ends=ends, psnr_budget=99, min_parity=0, min_agreement=0, every_layer=False, equalise=False
    )
    artifact, report = int8_file(source, tmp_path / "h.onnx", options=loose)
    graph = onnx.load(artifact.path)
    assert quantised_layers(graph, find_layers(onnx.load(source.path))) == {*report.recipe.int8}
    assert ("conv_first" in report.recipe.int8) == ends
    casts = {node.input[0] for node in graph.graph.node if node.op_type == "Cast"}
    assert not casts & {node.output[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"}


def test_a_tight_budget_promotes_the_costliest_layers(small: OnnxArtifact, pictures: Any, tmp_path: Path) -> None:
    folder = pictures(5)
    _, loose = int8_file(small, tmp_path / "a.onnx", ground_truth=[folder], options=options(method="minmax"))
    floor = loose.quality.parity + 1.0
    artifact, tight = int8_file(
        small, tmp_path / "b.onnx", ground_truth=[folder], options=options(method="minmax", min_parity=floor)
    )
    assert tight.quality is not None and tight.quality.parity >= floor
    promoted = {layer.name for layer in tight.layers if layer.decision == "promoted"}
    assert promoted and len(tight.recipe.int8) == len(loose.recipe.int8) - len(promoted)
    costs = {layer.name: layer.quality.usage(options(min_parity=floor)) for layer in tight.layers if layer.quality}
    kept = {layer.name for layer in tight.layers if layer.decision == "int8"}
    assert min(costs[name] for name in promoted) >= max(costs[name] for name in kept)
    layers = find_layers(onnx.load(small.path))
    assert quantised_layers(onnx.load(artifact.path), layers) == kept
    assert any("(promoted)" in row[-1] for row in tight.rows())


def test_a_budget_that_cannot_be_met_leaves_no_file(small: OnnxArtifact, pictures: Any, tmp_path: Path) -> None:
    target = tmp_path / "out" / "int8.onnx"
    target.parent.mkdir()
    with pytest.raises(ParityMissed, match="No layer can be INT8"):
        how = options(min_parity=200.0, equalise=False, every_layer=False)
        int8_file(small, target, ground_truth=[pictures(3)], options=how)
    assert list(target.parent.iterdir()) == []


def test_what_the_file_loses_decides_not_what_was_simulated(
    small: OnnxArtifact, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is worse than its simulation gives back more layers."""
    original = measuring_module.apply_recipe

    def worse(graph: Any, layers: Any, recipe: Any, rest: str) -> Any:
        result = original(graph, layers, recipe, rest)
        if len(recipe.int8) > FEW:
            for tensor in result.graph.initializer:
                if tensor.name == "conv_first.bias":
                    tensor.raw_data = bytes(len(tensor.raw_data))
        return result

    monkeypatch.setattr(measuring_module, "apply_recipe", worse)
    _, report = int8_file(small, tmp_path / "x.onnx", ground_truth=[pictures(3)], options=options(equalise=False))
    assert len(report.recipe.int8) == FEW
    assert report.quality is not None and report.quality.holds(options())


def test_the_ends_can_be_quantised_too(small: OnnxArtifact, pictures: Any, tmp_path: Path) -> None:
    how = options(ends=True, psnr_budget=50.0, min_parity=0.0, every_layer=False)
    _, report = int8_file(small, tmp_path / "x.onnx", ground_truth=[pictures(3)], options=how)
    assert report.share_outside == 1.0


def test_without_images_the_samples_serve(small: OnnxArtifact, tmp_path: Path) -> None:
    _, report = int8_file(small, tmp_path / "x.onnx", options=options(every_layer=False))
    assert report.images == report.recipe.crops == 2  # each is smaller than one crop
    assert any("same packaged pictures" in note for note in report.notes)


def test_keys_that_differ_cost_layers(folder: Path, tmp_path: Path) -> None:
    """The dictionaries of a key-semantic model are judged, and strictness costs layers."""
    artifact = networks.exported(folder, "semanir")
    how = options(psnr_budget=50, min_parity=0, equalise=False, every_layer=False)
    loose, strict = (
        int8_file(artifact, tmp_path / "x.onnx", options=dataclasses.replace(how, min_agreement=share))[1]
        for share in (0.0, 0.995)
    )
    assert loose.quality.agreement < 0.995 <= strict.quality.agreement
    assert len(strict.recipe.int8) < len(loose.recipe.int8)
    assert "of the keys equal" in dict(strict.summary())["the file"]


def test_little_int8_is_worth_a_remark(small: OnnxArtifact, tmp_path: Path) -> None:
    """Where few layers may be INT8, the report says that FP16 is the better choice; else it does not."""

    def remarked(floor: float) -> tuple[bool, bool]:
        how = options(every_layer=False, psnr_budget=5, min_parity=floor, crops=2, equalise=False)
        _, report = int8_file(small, tmp_path / "x.onnx", options=how)
        return report.share < 0.2, any("FP16 is the better choice" in note for note in report.notes)

    assert remarked(66) == (True, True)
    assert remarked(40) == (False, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "method must be one of"),
        ({"rest": "float8"}, "rest must be one of"),
        ({"percentile": 0.0}, "percentile must be above 0"),
        ({"psnr_budget": -0.1}, "budget must be at least 0 dB"),
        ({"psnr_budget": float("nan")}, "budget must be at least 0 dB"),
        ({"min_parity": float("inf")}, "parity must be finite"),
        ({"min_agreement": 1.5}, "agreement of keys must be in 0..1"),
        ({"crops": 0}, "at least 1 crop"),
        ({"held_out": 0}, "at least 1 crop"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, Any], message: str, small: OnnxArtifact) -> None:
    with pytest.raises(InputError, match=message):
        int8_file(small, "never.onnx", options=CalibrationOptions(**changes))
    assert not Path("never.onnx").exists()


def test_only_float32_files_are_taken(small: OnnxArtifact, tmp_path: Path) -> None:
    half = half_file(small, tmp_path / "half.onnx", "float16")
    with pytest.raises(InputError, match="is in float16; calibration starts from float32"):
        int8_file(half, tmp_path / "x.onnx")
    with pytest.raises(OutputError, match="no folder"):
        int8_file(small, tmp_path / "gone" / "x.onnx")


def test_recipes_of_other_models_and_broken_ones_are_refused(
    small: OnnxArtifact, folder: Path, pictures: Any, tmp_path: Path
) -> None:
    _, report = int8_file(small, tmp_path / "a.onnx", ground_truth=[pictures(3)], options=options(every_layer=False))
    text = report.recipe.to_json()
    other = networks.exported(folder, "swinir-classical")
    with pytest.raises(InputError, match="made for other weights"):
        int8_file(other, tmp_path / "b.onnx", recipe=report.recipe)
    saved = tmp_path / "r.json"
    lists = ({"thresholds": {"a": -1}}, {"int8": ["nowhere"]}, {"equalisations": [{}]})
    for damage in ({"format": "x"}, {"version": 99}, {"extra": 1}, *lists):
        saved.write_text(json.dumps({**text, **damage}))
        with pytest.raises(InputError, match="not a recipe of this version"):
            read_recipe(saved)
    saved.write_text("[]")
    with pytest.raises(InputError, match="not a recipe"):
        read_recipe(saved)
    with pytest.raises(InputError, match="Cannot read the recipe"):
        read_recipe(tmp_path / "gone.json")
    thresholds = {**text["thresholds"]}
    thresholds.pop(next(name for name in thresholds if name not in text["int8"]))
    saved.write_text(json.dumps({**text, "thresholds": thresholds}))
    with pytest.raises(InputError, match="1 layers differ"):
        int8_file(small, tmp_path / "b.onnx", recipe=read_recipe(saved))
    assert not (tmp_path / "b.onnx").exists()


def test_the_file_restores_like_its_source(small: OnnxArtifact, pictures: Any, tmp_path: Path) -> None:
    from agileir_export.engines import OnnxRuntimeRunner

    artifact, _ = int8_file(small, tmp_path / "x.onnx", [pictures(3)], options=options(every_layer=False))
    images = networks.images(1, 3, 19, 30)
    outputs = [OnnxRuntimeRunner(file).run(images) for file in (small, artifact)]
    assert outputs[0].shape == outputs[1].shape
    assert 25 < psnr(*outputs) < 100
    assert np.isfinite(outputs[1]).all()
