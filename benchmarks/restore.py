"""A folder of photographs: `restore` against plain loops over the same ONNX file, in pictures a second and peak memory.

    python benchmarks/restore.py --output benchmarks/results/restore_DATE.json

Ways: ``whole`` reads a picture with Pillow, runs it whole under ONNX Runtime, writes it with Pillow, and takes the
next; ``naive`` runs it in tiles of 256 pixels without overlap; ``ours`` is `restore_pictures` under ONNX Runtime,
``openvino`` the same under OpenVINO (where that is installed). Every run is a process of its own, and the ways take
turns, so that a busy machine is as bad for all; of each the fastest run counts, from the first picture to the last
file. Peak memory is that of the process (VmHWM). Seams are those of naive tiles and of ours of the same size, against
the whole picture.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as pillow
from surroundings import surroundings

from agileir_export import convert, open_runner, restore_pictures
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.engines.runner import Images
from agileir_export.images.files import read_image, sample_images
from agileir_export.images.resizing import pad_to_multiple
from agileir_export.json_form import json_number
from agileir_export.process_memory import PEAK, process_memory
from agileir_export.restore.seams import seam_psnr
from agileir_export.restore.tiles import plan_tiles
from agileir_export.restore.tiling import run_in_tiles

MODELS = ("agileir_tiny_x2", "semanir_tiny_x2")
WAYS = ("whole", "naive", "ours", "openvino")
NAIVE = 256
PACKAGES = ("onnxruntime", "openvino", "numpy", "pillow", "agileir-export")
MIB = 2**20


def make_photographs(folder: Path, count: int, rows: int, columns: int) -> None:
    """JPEG pictures put together from the packaged samples."""
    for number in range(count):
        make_photograph(folder / f"{number:03}.jpg", rows, columns, number)


def make_photograph(file: Path, rows: int, columns: int, seed: int = 0) -> None:
    """A JPEG picture put together from the packaged samples, mirrored at random."""
    samples = [np.rint(read_image(path).pixels * 255).astype(np.uint8) for _, path in sample_images()]
    generator = np.random.default_rng(seed)
    picture = np.zeros((rows, columns, 3), np.uint8)
    for top in range(0, rows, 128):
        for left in range(0, columns, 128):
            sample = samples[generator.integers(len(samples))].transpose(1, 2, 0)
            y, x = (generator.integers(side - 127) for side in sample.shape[:2])
            down, across = generator.choice((1, -1), 2)
            patch = sample[y : y + 128, x : x + 128][::down, ::across]
            picture[top : top + 128, left : left + 128] = patch[: rows - top, : columns - left]
    pillow.fromarray(picture).save(file, quality=92)


def plain_loop(model: Path, pictures: Path, output: Path, tile: int | None) -> None:
    """What one writes without this package: a session, a loop, and padding to what the model needs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    spec = OnnxRuntimeRunner(model).spec
    scale = spec.scale

    def run(images: Images) -> Images:
        padded, (height, width) = pad_to_multiple(images, spec.pad_multiple)
        found: Images = session.run(None, {session.get_inputs()[0].name: padded})[0]
        return found[..., : height * scale, : width * scale]

    for file in sorted(pictures.iterdir()):
        pixels = np.asarray(pillow.open(file).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
        _, _, height, width = pixels.shape
        restored = np.empty((3, height * scale, width * scale), np.float32)
        side = tile or max(height, width)
        for top in range(0, height, side):
            for left in range(0, width, side):
                part = run(np.ascontiguousarray(pixels[..., top : top + side, left : left + side]))[0]
                place = np.s_[:, top * scale : top * scale + part.shape[1], left * scale : left * scale + part.shape[2]]
                restored[place] = part
        samples = np.rint(np.clip(restored, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        pillow.fromarray(samples).save(output / file.name, quality=95, subsampling=0)


def ours(model: Path, pictures: Path, output: Path, runtime: str) -> None:
    """The library's road."""
    restore_pictures(open_runner(model, runtime=runtime), pictures, output)


ROADS: dict[str, Callable[[Path, Path, Path], None]] = {
    "whole": lambda *paths: plain_loop(*paths, None),
    "naive": lambda *paths: plain_loop(*paths, NAIVE),
    "ours": lambda *paths: ours(*paths, "onnxruntime"),
    "openvino": lambda *paths: ours(*paths, "openvino"),
}


def run_one(way: str, model: Path, pictures: Path) -> dict[str, float]:
    """Seconds and peak memory of one way, in this process."""
    with tempfile.TemporaryDirectory() as output:
        ROADS[way](model, first_of(pictures), Path(output))  # loads what is loaded once
        for file in Path(output).iterdir():
            file.unlink()
        wall, processor = time.perf_counter(), time.process_time()
        ROADS[way](model, pictures, Path(output))
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        made = sum(file.suffix == ".jpg" for file in Path(output).iterdir())
    assert made == len(list(pictures.iterdir()))
    return {"seconds": wall, "processor_seconds": processor, "peak_bytes": process_memory(PEAK) or 0}


def first_of(pictures: Path) -> Path:
    """A folder with the smallest start: one small picture, beside those that are measured."""
    folder = pictures.parent / "first"
    if not folder.exists():
        folder.mkdir()
        with pillow.open(min(pictures.iterdir())) as opened:
            opened.crop((0, 0, 64, 64)).save(folder / "first.jpg")
    return folder


def measure(name: str, folder: Path, ways: list[str], rounds: int) -> dict[str, Any]:
    """Pictures a second and peak memory of every way; the fastest of the rounds."""
    model, pictures = folder / f"{name}.onnx", folder / "pictures"
    convert(name).write(model)
    count = len(list(pictures.iterdir()))
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            command = [sys.executable, __file__, "--one", way, str(model), str(pictures)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, way, found[way][-1], file=sys.stderr, flush=True)
    best = {way: min(runs, key=lambda run: run["seconds"]) for way, runs in found.items()}
    return {
        way: {
            "pictures_a_second": count / run["seconds"],
            "against_whole": best["whole"]["seconds"] / run["seconds"],
            "processor_against_whole": best["whole"]["processor_seconds"] / run["processor_seconds"],
            "peak_MiB": run["peak_bytes"] / MIB,
        }
        for way, run in best.items()
    }


def seams(name: str, picture: Path, tile: int, overlap: int) -> dict[str, Any]:
    """DB at the seams of tiles of a size, without overlap and with one, against the whole picture."""
    runner = OnnxRuntimeRunner(convert(name))
    pixels = read_image(picture).pixels[None]
    whole = runner.run(pixels)
    found: dict[str, Any] = {}
    for kind, share in (("naive", 0), ("ours", overlap)):
        plan = plan_tiles(pixels.shape[2:], (tile, tile), share, runner.spec.pad_multiple)
        found[kind] = json_number(seam_psnr(whole, run_in_tiles(runner, pixels, plan), plan, runner.spec.scale))
    return {"tile": tile, "overlap": overlap, **found}


def table(models: dict[str, Any]) -> str:
    """The Markdown table."""
    lines = ["| model | way | pictures/s | against whole | processor time | peak MiB |", "|---|---|--:|--:|--:|--:|"]
    for name, found in models.items():
        for way, row in found["ways"].items():
            figures = (f"{row['pictures_a_second']:.3f}", f"{row['against_whole']:.2f}")
            more = (f"{row['processor_against_whole']:.2f}", f"{row['peak_MiB']:.0f}")
            lines.append(f"| `{name}` | {way} | {' | '.join((*figures, *more))} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("WAY", "MODEL", "PICTURES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments.one[0], *map(Path, arguments.one[1:]))))
        return
    ways = [way for way in arguments.ways if way != "openvino" or importlib.util.find_spec("openvino")]
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(scratch, "pictures")
        pictures.mkdir()
        make_photographs(pictures, arguments.pictures, *arguments.size)
        models = {
            name: {
                "ways": measure(name, Path(scratch), ways, arguments.rounds),
                "seams": seams(name, min(pictures.iterdir()), NAIVE, arguments.overlap),
            }
            for name in arguments.models
        }
    print(table(models))
    if arguments.output:
        found = {
            **surroundings(PACKAGES),
            "pictures": arguments.pictures,
            "size": list(arguments.size),
            "rounds": arguments.rounds,
            "models": models,
        }
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
