"""Files, crops and held-out pictures: what is read, what is skipped, what is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.calib.crops import Reader, choose_crops, list_files
from agileir_export.calib.material import gather
from agileir_export.errors import ImageError, InputError
from agileir_export.export import OnnxArtifact
from agileir_export.images.files import Image, write_image
from agileir_export.parity.images import middle

from ..export import networks


def with_task(artifact: OnnxArtifact, **changes: Any) -> OnnxArtifact:
    return dataclasses.replace(artifact, spec=dataclasses.replace(artifact.spec, **changes))


def test_the_order_of_files_depends_on_the_seed_alone(pictures: Any) -> None:
    folder = pictures(12, (4, 4))
    names = [file.name for file in list_files([folder], 0)]
    assert names == [file.name for file in list_files(sorted(folder.iterdir(), reverse=True), 0)]
    assert names != [file.name for file in list_files([folder], 1)]
    assert sorted(names) == sorted(file.name for file in folder.iterdir())


def test_a_list_names_files_relative_to_itself(pictures: Any, tmp_path: Path) -> None:
    folder = pictures(3, (4, 4))
    listed = tmp_path / "list.txt"
    listed.write_text(f"# chosen\n\n{folder.name}/2.png\n{folder}/0.png\n", encoding="utf-8")
    assert {file.name for file in list_files([listed], 0)} == {"0.png", "2.png"}
    listed.write_text(f"{folder.name}/1.png\n", encoding="utf-8-sig")  # as Windows writes it
    assert {file.name for file in list_files([listed], 0)} == {"1.png"}
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="Cannot read the list"):
        list_files([listed], 0)
    listed.write_text("gone.png\n")
    with pytest.raises(ImageError, match=r"no file or folder .*gone\.png"):
        list_files([listed], 0)


def test_crops_spread_from_flat_to_busy() -> None:
    pixels = np.full((3, 64, 256), 0.5, np.float32)
    pixels[:, :, 128:] = np.random.default_rng(0).random((3, 64, 128), dtype=np.float32)
    spread = [float(crop.var()) for crop in choose_crops(pixels, (32, 32), 6, 0)]
    assert min(spread) < 1e-3
    assert max(spread) > 0.05
    continued = [float(choose_crops(pixels, (32, 32), 1, first)[0].var()) for first in range(6)]
    assert min(continued) < 1e-3 and max(continued) > 0.05


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (33, 47)])
def test_crops_of_any_picture_have_the_size_or_the_pictures(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).random((1, *size), dtype=np.float32)
    crops = choose_crops(pixels, (16, 16), 5, 3)
    assert 1 <= len(crops) <= 5
    assert all(crop.shape == (1, min(16, size[0]), min(16, size[1])) for crop in crops)
    assert middle(pixels, (16, 16)).shape == crops[0].shape


def test_odd_pictures_survive_and_broken_ones_are_counted(small: OnnxArtifact, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    random = np.random.default_rng(0)
    write_image(folder / "dot.png", Image(np.zeros((3, 1, 1), np.float32)))
    write_image(folder / "deep.png", Image(random.random((3, 30, 30), dtype=np.float32), bit_depth=16))
    write_image(folder / "grey.png", Image(random.random((1, 30, 30), dtype=np.float32)))
    alpha = random.random((1, 30, 30), dtype=np.float32)
    write_image(folder / "alpha.png", Image(random.random((3, 30, 30), dtype=np.float32), alpha=alpha))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "empty.jpg").write_bytes(b"")
    material = gather(small, [folder], [], 1, 0)
    inputs = list(material.inputs(small, 16))
    assert all(x.dtype == np.float32 and x.shape[:2] == (1, 3) and np.isfinite(x).all() for x in inputs)
    assert {name.name for name in material.reader.skipped} == {"broken.png", "empty.jpg"}
    assert material.images == 3  # four can be read, one of them is held out
    assert material.crops == len(inputs)


def test_no_readable_image_is_an_error(small: OnnxArtifact, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="no image to calibrate on") as caught:
        gather(small, [tmp_path], [], 8, 0)
    assert "1 files could not be read" in caught.value.why
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ImageError, match="no image in it"):
        gather(small, [empty], [], 8, 0)


def test_held_out_pictures_are_not_calibrated_on(small: OnnxArtifact, pictures: Any, samples: Any) -> None:
    material = gather(small, [], [pictures(10, (24, 24))], 8, 0)
    held_out = [picture.name for picture in material.pictures if picture.name.isdigit()]
    assert len(held_out) == 2  # a fifth of ten
    assert not {*held_out} & {file.stem for file in material.files}
    assert len(material.files) == 8
    judged = {picture.name: picture.truth is not None for picture in material.pictures}
    assert judged.pop("astronaut 1x1") is False  # what `verify` looks at
    assert sum(judged.values()) == len(held_out) + len(samples)
    assert {*dict(samples)} <= {*judged}


def test_ground_truth_is_shrunk_and_inputs_are_not(small: OnnxArtifact, pictures: Any) -> None:
    folder = pictures(6, (48, 48))
    as_truth = next(gather(small, [], [folder], 1, 0).inputs(small, 1))
    as_input = next(gather(small, [folder], [], 1, 0).inputs(small, 1))
    assert as_truth.shape == (1, 3, 24, 24)
    assert as_input.shape == (1, 3, 48, 48)
    picture = gather(small, [], [folder], 1, 0).pictures[0]
    assert picture.truth is not None and picture.truth.shape[1] == 2 * picture.given.shape[1]


def test_a_denoiser_gets_its_noise(small: OnnxArtifact, pictures: Any) -> None:
    denoiser = with_task(small, task="denoising", scale=1, noise_level=25.0)
    folder = pictures(6, (40, 40))
    other = with_task(small, task="jpeg", scale=1)
    clean = next(gather(other, [folder], [], 1, 0).inputs(other, 1))
    noisy = next(gather(denoiser, [folder], [], 1, 0).inputs(denoiser, 1))
    assert np.std(noisy - clean) == pytest.approx(25 / 255, rel=0.1)


def test_ground_truth_needs_a_task_with_a_known_degradation(small: OnnxArtifact, pictures: Any) -> None:
    with pytest.raises(InputError, match="task jpeg"):
        gather(with_task(small, task="jpeg", scale=1), [], [pictures()], 1, 0)


def test_random_weights_are_judged_by_parity(small: OnnxArtifact, pictures: Any) -> None:
    untrained = dataclasses.replace(small, provenance={**small.provenance, "random_weights": 0})
    material = gather(untrained, [], [pictures()], 1, 0)
    assert all(picture.truth is None for picture in material.pictures)
    assert any("random" in note for note in material.notes)


def test_a_fixed_size_is_filled(folder: Path, pictures: Any) -> None:
    fixed = networks.exported(folder, "swinir-light", static=(24, 32))
    material = gather(fixed, [], [pictures(6, (20, 90))], 1, 0)
    assert {x.shape for x in material.inputs(fixed, 4)} == {(1, 3, 24, 32)}


def test_many_tiny_files_are_not_all_read(small: OnnxArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "0.png", Image(np.full((3, 2, 2), 0.5, np.float32)))
    data = (tmp_path / "0.png").read_bytes()
    for number in range(1, 10_000):
        (tmp_path / f"{number}.png").write_bytes(data)
    material = gather(small, [tmp_path], [], 8, 0)
    assert len(material.files) == 10_000 - 8
    assert len(list(material.inputs(small, 16))) == 16
    assert material.images == 16


def test_pictures_are_read_one_at_a_time(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many files there are, only the picture in use is held."""
    import weakref

    from agileir_export.calib import crops

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    read, most = crops.read_image, 0

    class Tracked:
        def __init__(self, pixels: Any) -> None:
            self.pixels = pixels

    def tracked(path: Path) -> Tracked:
        nonlocal most
        found = Tracked(read(path).pixels)
        alive.add(found)
        most = max(most, len(alive))
        return found

    monkeypatch.setattr(crops, "read_image", tracked)
    assert len([file for file, _ in Reader(3).read(sorted(pictures(9, (8, 8)).iterdir()))]) == 9
    assert most <= 2
