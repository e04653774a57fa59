"""How well tiles fit together, in dB against the whole picture, by overlap: on the window grid and off it.

    python benchmarks/seams.py --output benchmarks/results/seams_DATE.json
    python benchmarks/seams.py --chart docs/images/seams.svg --of benchmarks/results/seams_DATE.json

Packaged samples are restored whole and in two by two tiles by ONNX Runtime in float32. Off the grid, every tile begins
half the model's multiple earlier or later than it should: what naive tiling does wherever its stride is no multiple.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import surroundings

from agileir_export import convert
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.engines.runner import Images
from agileir_export.images.charts import Bar, bar_chart
from agileir_export.images.files import read_image, sample_images
from agileir_export.json_form import json_number
from agileir_export.parity.metrics import psnr
from agileir_export.restore.seams import SeamTable, measure_seams, seam_psnr
from agileir_export.restore.tiled_runner import MARGIN
from agileir_export.restore.tiles import Cuts, TilePlan
from agileir_export.restore.tiling import run_in_tiles

MODELS = ("agileir_tiny_x2", "agileir_tiny_x4", "semanir_tiny_x2", "semanir_tiny_dn25")
SAMPLES = ("astronaut", "coffee")
SIDES = (144, 160)
OVERLAPS = (0, 8, 16, 24, 32, 48)
TARGET, TOP = 60.0, 100.0
"""dB that are asked for by default, and where the bars of the chart end."""
COLOURS = {"seams": "#4477aa", "seams_off_the_grid": "#ccbb44"}


def two_by_two(picture: Images, overlap: int, multiple: int) -> tuple[Images, TilePlan]:
    """Two by two equal tiles, on the grid, of as much of a picture as makes the overlap exact."""
    tiles = [(side + overlap) // 2 // multiple * multiple for side in picture.shape[2:]]
    rows, columns = (2 * tile - overlap for tile in tiles)
    plan = TilePlan(*(Cuts(2 * tile - overlap, tile, (0, tile - overlap)) for tile in tiles))
    return np.ascontiguousarray(picture[..., :rows, :columns]), plan


def off_the_grid(cuts: Cuts, multiple: int) -> Cuts:
    """The second tile half a multiple earlier, and larger by that much: the overlap is no smaller."""
    first, second = cuts.origins
    return replace(cuts, tile=cuts.tile + multiple // 2, origins=(first, second - multiple // 2))


def measure(name: str, overlaps: list[int]) -> dict[str, Any]:
    """Seam dB of a model, the worst of the samples, by overlap."""
    runner = OnnxRuntimeRunner(convert(name))
    scale, multiple = runner.spec.scale, runner.spec.pad_multiple
    files = dict(sample_images())
    pictures = [read_image(files[sample]).pixels[None, :, : SIDES[0], : SIDES[1]] for sample in SAMPLES]
    rows = []
    for overlap in (each for each in overlaps if each % multiple == 0):
        on, off, all_over = [], [], []
        for sample in pictures:
            picture, plan = two_by_two(sample, overlap, multiple)
            whole = runner.run(picture)
            found = run_in_tiles(runner, picture, plan)
            on.append(seam_psnr(whole, found, plan, scale))
            all_over.append(psnr(whole, found))
            plan = TilePlan(off_the_grid(plan.rows, multiple), off_the_grid(plan.columns, multiple))
            off.append(seam_psnr(whole, run_in_tiles(runner, picture, plan), plan, scale))
        figures = {"seams": min(on), "picture": min(all_over), "seams_off_the_grid": min(off)}
        rows.append({"overlap": overlap} | {key: json_number(found) for key, found in figures.items()})
        print(name, rows[-1], flush=True)
    table: SeamTable = measure_seams(runner)
    chosen = table.choose(TARGET + MARGIN)
    print(name, table.to_json(), chosen, flush=True)
    return {"multiple": multiple, "rows": rows, "measured_by_restore": table.to_json(), "chosen": chosen}


def chart(found: dict[str, Any]) -> str:
    """The seams of every model by overlap, on the grid and off it, as bars of dB."""
    groups: dict[str, list[Bar]] = {}
    for name, model in found["models"].items():
        for row in model["rows"]:
            overlap = f"overlap {row['overlap']}" + (" (chosen)" if row["overlap"] == model["chosen"] else "")
            for key, colour in COLOURS.items():
                decibels = float(row[key])
                label = overlap if key == "seams" else ""
                groups.setdefault(name, []).append(Bar(label, decibels / TOP, f"{decibels:.1f} dB", colour))
    legend = [(COLOURS["seams"], "on the window grid"), (COLOURS["seams_off_the_grid"], "off the grid")]
    title = "PSNR at the seams of tiles, against the whole picture"
    return bar_chart(title, groups, legend=legend, mark=(TARGET / TOP, f"{TARGET:g} dB, the default"))


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--overlaps", nargs="+", type=int, default=OVERLAPS)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--chart", type=Path, help="draw the results of --of instead of measuring")
    parser.add_argument("--of", type=Path)
    arguments = parser.parse_args()
    if arguments.chart:
        arguments.chart.write_text(chart(json.loads(arguments.of.read_text())))
        return
    found = {
        **surroundings(["onnxruntime", "numpy", "agileir-export"]),
        "samples": SAMPLES,
        "sides": SIDES,
        "target": TARGET,
        "models": {name: measure(name, list(arguments.overlaps)) for name in arguments.models},
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
