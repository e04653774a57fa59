"""The training tool on images made here: resuming, safety of checkpoints, errors, warm starts."""

import csv
import errno
import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from agileir_export.errors import CheckpointError, ImageError, InputError, OutputError
from agileir_export.models import FAMILIES, build_preset, randomise
from agileir_export.parity.metrics import psnr

from ..scripts import load_script

TOOLS = Path(__file__).parents[2] / "tools"

SMALL = {"embed_dim": 8, "window_size": 4}
AGILE = {**SMALL, "depths": (2,), "num_heads": (2,), "key_dims": (4,), "upsampler": "pixelshuffledirect"}
UNET = {**SMALL, "depths": (1, 1), "final_depth": 1, "head_dim": 8, "top_k": 5, "task": "denoising"}


@pytest.fixture(scope="module")
def tool():
    return load_script(TOOLS / "train.py")


@pytest.fixture(autouse=True)
def micro_presets(monkeypatch):
    agile, semanir = FAMILIES["agileir"].presets, FAMILIES["semanir"].presets
    monkeypatch.setitem(agile, "micro_x2", {**AGILE, "scale": 2, "batch_norm": False})
    monkeypatch.setitem(agile, "micro_x4", {**AGILE, "scale": 4, "batch_norm": False})
    monkeypatch.setitem(agile, "micro_bn_x2", {**AGILE, "scale": 2})
    monkeypatch.setitem(semanir, "micro_dn", UNET)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Smooth colour waves with a few edges, in a folder and in a folder inside it."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "inner").mkdir()
    rows, columns = np.mgrid[:64, :80]
    for index in range(4):
        wave = np.stack([np.sin(rows / (3 + c + index)) + np.cos(columns / (4 + c)) for c in range(3)])
        wave[:, 10 + index : 30, 20:40] += 1.5
        pixels = ((wave - wave.min()) / np.ptp(wave) * 255).astype(np.uint8)
        place = folder / "inner" if index % 2 else folder
        Image.fromarray(pixels.transpose(1, 2, 0)).save(place / f"{index}.png")
    return folder


def arguments(images, out, *more, preset="micro_x2", steps=6):
    return [
        *(preset, "--data", str(images), "--out", str(out), "--steps", str(steps)),
        *("--batch", "2", "--patch", "8", "--warmup", "2", "--held-out", "1", "--device", "cpu"),
        *("--every", "2", "--validate-every", "4", *more),
    ]


def settings(tool, **named):
    return tool.Settings(patch=8, ema=0.9, clip=1.0, seed=0, attention="plain", amp=False, start="", **named)


def weights(folder, preset="micro_x2"):
    return load_file(folder / f"{preset}.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("preset", ["micro_x2", "micro_bn_x2", "micro_dn"])
def test_interrupted_and_resumed_equals_uninterrupted(tool, images, tmp_path, monkeypatch, preset):
    assert tool.main(arguments(images, tmp_path / "whole", preset=preset)) == 0

    advance = tool.Run.advance

    def interrupted(run):
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(run)

    monkeypatch.setattr(tool.Run, "advance", interrupted)
    broken = arguments(images, tmp_path / "broken", preset=preset)
    assert tool.main(broken) == tool.INTERRUPTED
    monkeypatch.setattr(tool.Run, "advance", advance)
    torch.manual_seed(99)
    assert tool.main([*broken, "--resume"]) == 0

    whole, resumed = weights(tmp_path / "whole", preset), weights(tmp_path / "broken", preset)
    assert same(whole, resumed)
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "broken")]
    assert states[0]["numpy"] == states[1]["numpy"]
    assert same(states[0]["model"], states[1]["model"])


def test_another_seed_gives_other_weights(tool, images, tmp_path):
    tool.main(arguments(images, tmp_path / "a"))
    tool.main(arguments(images, tmp_path / "b", "--seed", "1"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.parametrize("preset", ["micro_x2", pytest.param("micro_dn", marks=pytest.mark.slow)])
def test_loss_falls(tool, images, tmp_path, preset):
    how = dict(preset=preset, data=str(images), steps=60, batch=4, lr=5e-3, warmup=5, held_out=1)
    run = tool.Run(settings(tool, **how, sigma=25.0 if preset == "micro_dn" else 0.0), tmp_path)
    before = run.validate()
    losses = [run.advance()[0] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert run.validate() > before + 1


def test_log_has_one_row_per_interval_also_after_resuming(tool, images, tmp_path):
    assert tool.main(arguments(images, tmp_path, steps=4)) == 0
    assert tool.main(arguments(images, tmp_path, "--resume", steps=8)) == 0
    with (tmp_path / "log.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]
    assert [bool(row["validation_psnr"]) for row in rows] == [False, True, False, True]


def test_weights_carry_metadata_and_nothing_derived(tool, images, tmp_path):
    tool.main(arguments(images, tmp_path, preset="micro_bn_x2"))
    with safe_open(tmp_path / "micro_bn_x2.safetensors", "pt") as file:
        about = json.loads(file.metadata()["agileir"])
        names = set(file.keys())
        assert all(file.get_tensor(name).dtype == torch.float32 for name in names)
    assert about["preset"] == "micro_bn_x2" and about["step"] == 6 and about["seed"] == 0
    assert about["command"].startswith("python tools/train.py micro_bn_x2")
    assert not any(name.endswith("num_batches_tracked") for name in names)


def test_averages_follow_their_definition(tool):
    model = build_preset("micro_x2")
    averages = tool.Averages(model, 0.5)
    name = "conv_first.weight"
    expected = model.state_dict()[name].clone()
    for step in range(20):
        randomise(model, step)
        averages.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.state_dict()[name]
    torch.testing.assert_close(averages.state[name], expected)


def test_schedule_rises_then_falls_to_zero(tool):
    how = settings(tool, preset="", data="", steps=100, batch=1, lr=1.0, warmup=10, held_out=0, sigma=0.0)
    rates = [how.learning_rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 1e-3


def test_full_disk_keeps_the_last_checkpoint(tool, images, tmp_path, monkeypatch, capsys):
    assert tool.main(arguments(images, tmp_path, steps=2)) == 0
    before = (tmp_path / "last.pt").read_bytes()
    open_file = Path.open

    class Full(io.FileIO):
        def write(self, data):
            super().write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(path, mode="r", *rest, **named):
        return Full(path, mode) if "x" in mode else open_file(path, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", full)
    assert tool.main(arguments(images, tmp_path, "--resume", steps=4)) == OutputError.exit_code
    assert "No space left" in capsys.readouterr().err
    monkeypatch.setattr(Path, "open", open_file)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == [*("last.pt", "log.csv", "micro_x2.safetensors")]
    assert tool.main(arguments(images, tmp_path, "--resume", steps=4)) == 0


def test_bad_data_folders(tool, tmp_path):
    def refused(kind, message, place=tmp_path, scale=2, held_out=1, **more):
        with pytest.raises(kind, match=message):
            tool.TrainingImages(place, scale, 3, 8, 0.0, held_out, **more)

    refused(InputError, "no folder", tmp_path / "none")
    refused(InputError, "holds no image")
    (tmp_path / "broken.png").write_bytes(b"no image at all")
    refused(ImageError, r"broken\.png")
    Image.new("RGB", (40, 12)).save(tmp_path / "broken.png")
    refused(ImageError, r"broken\.png has 40x12 pixels.*16x16", held_out=0)
    refused(ImageError, "40x12", held_out=0, skip_small=True)
    Image.new("RGB", (40, 16)).save(tmp_path / "large.png")
    assert len(tool.TrainingImages(tmp_path, 2, 3, 8, 0.0, 0, skip_small=True).training) == 1
    (tmp_path / "large.png").unlink()
    refused(InputError, "1 images, and 1 are kept", scale=1)


def test_command_line_errors_have_exit_codes_and_no_traceback(tool, images, tmp_path, capsys):
    out = tmp_path / "run"
    assert tool.main(arguments(tmp_path / "none", out)) == 2
    assert tool.main(arguments(images, out, preset="micro_x3")) == 2
    assert tool.main(arguments(images, out, "--patch", "6")) == 2
    assert tool.main(arguments(images, out, "--resume")) == 2
    assert tool.main(arguments(images, out, steps=2)) == 0
    assert tool.main(arguments(images, out, steps=2)) == 2
    assert tool.main(arguments(images, out, "--resume", "--lr", "0.5")) == 2
    (out / "last.pt").write_bytes(b"damaged")
    assert tool.main(arguments(images, out, "--resume")) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_start_as_interpolation(tool):
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    smooth = (0.5 + 0.4 * torch.sin(rows / 6) * torch.cos(columns / 7)).expand(1, 3, 32, 32)
    truth = smooth[..., 4:-4, 4:-4].numpy()
    for name, scale in (("micro_x2", 2), ("micro_x4", 4)):
        model = build_preset(name)
        tool.start_as_interpolation(model)
        small = torch.nn.functional.avg_pool2d(smooth, scale)
        output = model(small).detach()[..., 4:-4, 4:-4].numpy()
        assert psnr(output, truth) > 33
        assert any(p.abs().sum() > 0 for n, p in model.named_parameters() if "layers" in n)


def test_start_from_another_scale(tool, tmp_path):
    from safetensors.torch import save_file

    small, large = build_preset("micro_x2"), build_preset("micro_x4")
    randomise(small, 1)
    save_file(small.state_dict(), tmp_path / "x2.safetensors")
    tool.start_from_weights(large, tmp_path / "x2.safetensors")
    body = {name for name in small.state_dict() if not name.startswith("upsample.")}
    assert all(torch.equal(small.state_dict()[n], large.state_dict()[n]) for n in body)
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    nearest = small(image).repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(large(image), nearest)
    with pytest.raises(CheckpointError, match="does not fit"):
        tool.start_from_weights(build_preset("micro_dn"), tmp_path / "x2.safetensors")
    with pytest.raises(CheckpointError, match="Cannot read"):
        tool.start_from_weights(large, tmp_path / "none.safetensors")


def test_batches_are_aligned_crops(tool, images):
    pictures = tool.TrainingImages(images, 2, 3, 8, 0.0, 1)
    assert len(pictures.training) == 3 and len(pictures.validation) == 1
    assert not {p.name for p in pictures.training} & {p.name for p in pictures.validation}
    degraded, clean = pictures.batch(np.random.default_rng(0), 16)
    assert degraded.shape == (16, 3, 8, 8) and clean.shape == (16, 3, 16, 16)
    means = torch.nn.functional.avg_pool2d(clean, 2)
    assert (means - degraded).abs().mean() < 0.03


def test_noise_has_the_asked_deviation_and_is_the_same_in_every_validation(tool, images):
    pictures = tool.TrainingImages(images, 1, 3, 32, 25.0, 1)
    noisy, clean = pictures.batch(np.random.default_rng(0), 8)
    assert (noisy - clean).std().item() * 255 == pytest.approx(25, rel=0.02)
    first, second = pictures.validation_pairs(), pictures.validation_pairs()
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


def test_noise_is_rounded_as_in_a_file_when_asked(tool, images):
    rounded = tool.TrainingImages(images, 1, 3, 16, 25.0, 1, eight_bit=1.0)
    noisy = rounded.batch(np.random.default_rng(0), 2)[0]
    assert noisy.min() >= 0 and noisy.max() <= 1
    torch.testing.assert_close(noisy * 255, (noisy * 255).round())
    exact = tool.TrainingImages(images, 1, 3, 16, 25.0, 1)
    noisy = exact.batch(np.random.default_rng(0), 2)[0]
    assert noisy.min() < 0 and noisy.max() > 1
