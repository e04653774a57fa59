"""The rungs of an engine; ONNX Runtime stands in for the GPU, for the ladder knows only a runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.engines import Images, OnnxRuntimeRunner
from agileir_export.engines.artifact import EngineArtifact
from agileir_export.engines.profiles import Profile
from agileir_export.errors import InputError
from agileir_export.export import OnnxArtifact
from agileir_export.parity import TaskRung
from agileir_export.parity.engine_ladder import engine_images, engine_sizes, verify_engine

from ..export import networks

WIDE = Profile((1, 8, 8), (1, 16, 16), (4, 64, 64))
KIND = "swinir-light"


def engine_of(artifact: OnnxArtifact, profiles: tuple[Profile, ...] = (WIDE,)) -> EngineArtifact:
    what, origin = (Path("e.plan"), "", "rtx", "float16", profiles, ("sm86",)), artifact.provenance
    return EngineArtifact(*what, artifact.spec, facts={}, audit={}, provenance=origin, build={})


class Rounding(OnnxRuntimeRunner):
    """An engine whose output is off by a fixed step, or broken."""

    def __init__(self, artifact: OnnxArtifact, step: float) -> None:
        super().__init__(artifact)
        self.step = step

    def run(self, images: Images) -> Images:
        return super().run(images) + np.float32(self.step)


@pytest.mark.parametrize("kind", [KIND, "semanir"])
def test_an_engine_that_computes_the_model_passes(kind: str, folder: Path, small_samples: object) -> None:
    artifact = networks.exported(folder, kind)
    engine = engine_of(artifact)
    images = engine_images(engine)
    report = verify_engine(networks.shared(kind), engine, OnnxRuntimeRunner(artifact), images)
    assert report.passed
    names = [rung.name for rung in report.rungs]
    assert names[0] == "engine float16 = PyTorch"
    assert report.rungs[0].floor == (60.0 if kind == KIND else 50.0)
    assert {(m.height, m.width) for m in report.rungs[0].measures} == {(8, 8), (13, 13)}


@pytest.mark.parametrize(("step", "passes"), [(0.0009, True), (0.0011, False), (np.nan, False)])
def test_the_floor_is_sixty_decibels(step: float, passes: bool, folder: Path, small_samples: object) -> None:
    artifact = networks.exported(folder, KIND)
    engine = engine_of(artifact)
    report = verify_engine(networks.shared(KIND), engine, Rounding(artifact, step), engine_images(engine))
    assert report.rungs[0].passed is passes


def test_other_weights_and_no_picture_are_refused(folder: Path, small_samples: object) -> None:
    artifact = networks.exported(folder, KIND)
    engine = engine_of(artifact)
    runner = OnnxRuntimeRunner(artifact)
    with pytest.raises(InputError, match="weights differ"):
        verify_engine(networks.build(KIND, depths=(1, 1)), engine, runner, engine_images(engine))
    with pytest.raises(InputError, match="no picture"):
        verify_engine(networks.shared(KIND), engine, runner, [])


def test_pictures_stay_within_the_profiles(folder: Path, small_samples: object) -> None:
    artifact = networks.exported(folder, KIND)
    tile = Profile((1, 16, 16), (4, 16, 16), (8, 16, 16))
    assert engine_sizes(tile, 4) == [(16, 16), (13, 13)]
    assert engine_sizes(WIDE, 4) == [(8, 8), (13, 13)]
    images = engine_images(engine_of(artifact, (tile,)))
    assert {image.pixels.shape[1:] for image in images} == {(16, 16), (13, 13)}
    larger = Profile((1, 48, 48), (1, 48, 48), (1, 64, 64))
    images = engine_images(engine_of(artifact, (larger,)))
    assert {image.pixels.shape[1:] for image in images} == {(48, 48), (53, 53)}, "larger than the samples are"
    with pytest.raises(InputError, match=r"outside the profiles of e\.plan: 1x16x16"):
        engine_images(engine_of(artifact, (tile,)), sizes=[(12, 16)])
    with pytest.raises(InputError, match="outside the profiles"):
        engine_images(engine_of(artifact, (tile,)), sizes=[(17, 16)])


def test_the_task_rung_takes_the_pictures_that_fit(folder: Path, small_samples: list[Any]) -> None:
    """The small samples are 24 by 36, thus 12 by 18 for a model that doubles."""
    artifact = networks.exported(folder, KIND)

    def task(profile: Profile) -> list[str]:
        engine = engine_of(artifact, (profile,))
        report = verify_engine(networks.shared(KIND), engine, OnnxRuntimeRunner(artifact), engine_images(engine))
        return [measure.image for rung in report.rungs if isinstance(rung, TaskRung) for measure in rung.measures]

    assert len(task(WIDE)) == len(small_samples)
    assert task(Profile((1, 32, 32), (1, 32, 32), (1, 64, 64))) == []
