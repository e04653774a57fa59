"""The readers that `fuzz.py` tries, and the sound files that it mutates."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agileir_export.errors import AgileIRError

__all__ = ["READERS", "Reader"]

TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\1\x03\0\1\0\0\0\6\0\0\0\0\0\0\0"
"""EXIF with one entry, an orientation."""


def _pictures(folder: Path) -> Iterator[bytes]:
    import numpy as np
    import tifffile
    from PIL import Image

    steps = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    picture = Image.fromarray(steps)
    forms: list[tuple[Any, str, dict[str, Any]]] = [
        *((picture, kind, {}) for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "GIF", "TGA")),
        (picture.quantize(8), "PNG", {"transparency": 0, "dpi": (72, 72)}),
        (
            picture.convert("RGBA"),
            "PNG",
            {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\1\x03\0\1\0\0\0\6\0\0\0\0\0\0\0"},
        ),
        (picture.convert("RGBA"), "WEBP", {"lossless": True}),
        (picture, "JPEG", {"progressive": True, "dpi": (300, 300), "comment": b"words"}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
    ]
    for each, kind, options in forms:
        buffer = io.BytesIO()
        each.save(buffer, kind, **options)
        yield buffer.getvalue()
    for array, options in (
        (steps.astype(np.uint16) * 257, {"photometric": "rgb"}),
        (steps[..., 0] / np.float32(255), {"metadata": {"axes": "YX"}, "imagej": True}),
        (steps, {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, **options)
        yield buffer.getvalue()


def _checkpoints(folder: Path) -> Iterator[bytes]:
    import torch
    from safetensors.torch import save

    from agileir_export.models import FAMILIES

    small = {**FAMILIES["swinir"].presets["swinir_light_x2"], "embed_dim": 8, "depths": (1,), "num_heads": (2,)}
    network = FAMILIES["swinir"].build(**small)
    state = dict(network.state_dict())
    wrapped = {
        "params_ema": state,
        "params": state,
        "epoch": 3,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1}]},
    }
    for content in (state, wrapped):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            yield buffer.getvalue()
    torch.save({"of.nobody": torch.zeros(3)}, buffer := io.BytesIO())
    yield buffer.getvalue()
    with contextlib.suppress(ImportError):  # a network of spandrel
        from spandrel.architectures.Compact import Compact

        torch.save(Compact(num_feat=4, num_conv=1, upscale=2).state_dict(), buffer := io.BytesIO())
        yield buffer.getvalue()
    yield save({name: tensor.contiguous() for name, tensor in state.items()}, metadata={"agileir": "{}"})


def _onnx_files(folder: Path) -> Iterator[bytes]:
    from agileir_export import ConversionRequest, convert

    for request in (ConversionRequest(), ConversionRequest("float16"), ConversionRequest(decomposed=True)):
        yield convert("agileir_tiny_x2", request).data


def _engine(folder: Path) -> tuple[bytes, bytes]:
    """A plan and its sidecar."""
    from agileir_export import BuildOptions, ConversionRequest, build_engine, convert

    plan = folder / "sound.plan"
    artifact = convert("agileir_tiny_x2", ConversionRequest(decomposed=True, static=(16, 16)))
    build_engine(artifact, plan, BuildOptions(target="rtx", gpus=("sm86",)), operators="decomposed")
    return plan.read_bytes(), plan.with_name(plan.name + ".json").read_bytes()


def _journal(folder: Path) -> Iterator[bytes]:
    source = folder / "a.png"
    source.write_bytes(b"picture")
    from agileir_export.restore.journal import JOURNAL, Journal

    with Journal(folder, "key") as journal:
        for name in ("b.png", "more/c.png"):
            output = folder / name
            output.parent.mkdir(exist_ok=True)
            journal.begin(source, output)
            output.write_bytes(b"restored")
            journal.finish(output)
    yield (folder / JOURNAL).read_bytes()


def _recipe(folder: Path) -> Iterator[bytes]:
    from agileir_export.calib import Recipe
    from agileir_export.calib.equalise import Equalisation

    moved = Equalisation(("layers.0.fc1",), "layers.0.norm2", (1, 0, -2))
    known = {"method": "mse", "percentile": None, "crops": 4, "crops_sha256": "ab" * 32, "psnr_budget": 0.1}
    layers = {"int8": ("conv", "layers.0.fc1"), "thresholds": {"conv": 1.5, "layers.0.fc1": 2.0}}
    yield (
        Recipe("agileir_tiny_x2", "cd" * 32, rescaled=False, equalisations=(moved,), **known, **layers).text().encode()
    )


def _read_picture(path: Path) -> None:
    from agileir_export.images.files import read_image, read_size

    read_size(path)
    read_image(path)


def _tell(path: Path) -> None:
    """Shows the file with `info`, which looks at all that was read.

    Raises:
        AgileIRError: It was refused.
        AssertionError: It made a defect show.
    """
    from click.testing import CliRunner

    from agileir_export.cli import main

    result = CliRunner().invoke(main, ["info", str(path)])
    if result.exit_code == 0:
        return
    said = next((line for line in result.output.splitlines() if "error" in line.lower()), result.output)
    assert result.exit_code in (1, 2, 3, 4) and "Traceback" not in result.output, said
    raise AgileIRError(said)


def _read_engine(path: Path) -> None:
    from agileir_export.engines.artifact import read_engine

    read_engine(path)


def _read_sidecar(path: Path) -> None:
    """A plan lies beside it."""
    engine = path.with_suffix("")
    if not engine.exists():
        engine.write_bytes(path.with_name("sound.plan").read_bytes())
    _tell(engine)


def _read_journal(path: Path) -> None:
    from agileir_export.restore.journal import Journal, begun_outputs

    begun_outputs(path.parent)
    with Journal(path.parent, "key") as journal:
        for name in ("b.png", "more/c.png"):
            journal.is_ours(path.parent / name)
            journal.is_done(path.parent / "a.png", path.parent / name)


def _read_recipe(path: Path) -> None:
    from agileir_export.calib import read_recipe

    read_recipe(path).provenance()


@dataclass(frozen=True)
class Reader:
    """A reader of the package.

    Attributes:
        name: What the mutated file is called.
        sound: Sound files, made in a folder.
        read: Reads the file.
    """

    name: str
    sound: Callable[[Path], Iterator[bytes]]
    read: Callable[[Path], None]


READERS = {
    "pictures": Reader("picture", _pictures, _read_picture),
    "checkpoints": Reader("network.pth", _checkpoints, _tell),
    "onnx": Reader("model.onnx", _onnx_files, _tell),
    "plans": Reader("sound.plan", lambda folder: iter(_engine(folder)[:1]), _read_engine),
    "sidecars": Reader("mutated.plan.json", lambda folder: iter(_engine(folder)[1:]), _read_sidecar),
    "journals": Reader(".agileir-restore.jsonl", _journal, _read_journal),
    "recipes": Reader("recipe.json", _recipe, _read_recipe),
}
