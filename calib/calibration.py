"""From a float32 model to an INT8 one within a budget in dB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..cache import Cache
from ..errors import InputError
from ..export.artifact import OnnxArtifact, artifact_of
from ..progress import Progress, silent
from .building import apply_recipe, load_graph
from .layers import count_macs, find_layers
from .material import gather
from .measuring import CalibrationRun
from .options import CalibrationOptions
from .recipe import Recipe
from .report import CalibrationReport, layer_results

__all__ = ["calibrate"]


def calibrate(
    source: OnnxArtifact,
    images: Sequence[str | Path] = (),
    *,
    ground_truth: Sequence[str | Path] = (),
    options: CalibrationOptions | None = None,
    recipe: Recipe | None = None,
    cache: Cache | None = None,
    progress: Progress = silent,
) -> tuple[OnnxArtifact, CalibrationReport]:
    """An INT8 model (Q/DQ around convolutions and matrix products) that keeps within a budget in dB.

    Ranges are taken from crops of the images; the loss of every layer alone is measured on held-out pictures; those
    that lose most stay float until the budget holds; the result is judged as it is written. Spec, provenance and block
    names are carried over. The same source, images and options give the same file, byte for byte.

    Args:
        source: A float32 model, as `read_artifact` and `export_onnx` give it.
        images: Inputs of the model to calibrate on: files, folders, lists; see `material.gather`.
        ground_truth: Pictures of what is to be restored, for the loss; and for the ranges, where no images are given.
        options: How; all defaults where None.
        recipe: Of an earlier calibration of these weights: it is applied, nothing is measured.
        cache: Where what is known of each image is kept, so that an interrupted run goes on where it was.
        progress: Told each step.

    Returns:
        The artifact, not written yet, and the report.

    Raises:
        InputError: An option is out of range, the source is not float32, no image can be read, the recipe does not fit.
        ParityMissed: The budget cannot be met.
    """
    options = options or CalibrationOptions()
    options.check()
    graph, rescaled = load_graph(source, options.rest, progress)
    layers = find_layers(graph)
    if not layers:
        raise InputError(f"{source.name} has no convolution or matrix product with constant weights.")
    arithmetic = count_macs(graph, source, layers)
    if recipe is None:
        progress("reading pictures")
        material = gather(source, images, ground_truth, options.held_out, options.seed)
        run = CalibrationRun(source, graph, rescaled, layers, arithmetic, options, material, cache, progress)
        result, report = run.run()
    else:
        recipe.check(source, [layer.name for layer in layers], rescaled)
        result = apply_recipe(graph, layers, recipe, options.rest)
        results = layer_results(layers, arithmetic, recipe.int8, {})
        report = CalibrationReport(recipe, options.rest, results, *arithmetic.share(recipe.int8))
    return artifact_of(result), report
