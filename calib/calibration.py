"""From a float32 file to an INT8 file within a budget in dB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..export import OnnxArtifact, read_artifact
from ..files import check_output, write_atomic
from .building import apply_recipe, load_graph
from .layers import count_macs, find_layers
from .material import gather
from .measuring import Calibration
from .options import CalibrationOptions, Progress
from .recipe import Recipe
from .report import CalibrationReport, layer_results

__all__ = ["calibrate"]


def calibrate(
    source: OnnxArtifact | str | Path,
    output: str | Path,
    images: Sequence[str | Path] = (),
    *,
    ground_truth: Sequence[str | Path] = (),
    options: CalibrationOptions | None = None,
    recipe: Recipe | None = None,
    cache: Path | None = None,
    progress: Progress = lambda step, done, total: None,
) -> tuple[OnnxArtifact, CalibrationReport]:
    """Writes an INT8 file (Q/DQ around convolutions and matrix products) that keeps within a budget in dB.

    Ranges are taken from crops of the images; the cost of every layer alone is measured on held-out pictures; the
    costliest stay float until the budget holds; the result is judged as it is written. Spec, provenance and block
    names are carried over. The same source, images and options give the same file, byte for byte.

    Args:
        source: A float32 file.
        output: File to write, whole or not at all; an existing file is replaced.
        images: Inputs of the model to calibrate on: files, folders, lists; see `material.gather`.
        ground_truth: Pictures of what is to be restored, for the loss; and for the ranges, where no images are given.
        options: How; all defaults where None.
        recipe: Of an earlier calibration of these weights: it is applied, nothing is measured.
        cache: Folder for what is known of each image, so that an interrupted run goes on where it was.
        progress: Called before each step, see `Progress`.

    Returns:
        The artifact, read back from the written file, and the report.

    Raises:
        InputError: An option is out of range, the source is not float32, no image can be read, the recipe does not fit.
        ParityMissed: The budget cannot be met.
        OutputError: The file cannot be written.
    """
    options = options or CalibrationOptions()
    options.check()
    artifact = source if isinstance(source, OnnxArtifact) else read_artifact(source)
    check_output(output, overwrite=True)
    graph, rescaled = load_graph(artifact, options.rest, progress)
    layers = find_layers(graph)
    if not layers:
        raise InputError(f"{artifact.path} has no convolution or matrix product with constant weights.")
    arithmetic = count_macs(graph, artifact, layers)
    if recipe is None:
        progress("reading pictures", 0, 0)
        material = gather(artifact, images, ground_truth, options.held_out, options.seed)
        found = Calibration(artifact, graph, rescaled, layers, arithmetic, options, material, cache, progress)
        result, report = found.run()
    else:
        recipe.check(artifact, [layer.name for layer in layers], rescaled)
        result = apply_recipe(graph, layers, recipe, options.rest)
        results = layer_results(layers, arithmetic, recipe.int8, {})
        report = CalibrationReport(recipe, options.rest, results, *arithmetic.share(recipe.int8))
    write_atomic(Path(output), result.SerializeToString(deterministic=True), overwrite=True)
    return read_artifact(output), report
