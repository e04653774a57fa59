"""Finding a recipe: ranges, the loss of every layer, and what the budget allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..parity.probe import OnnxProbe, dictionary_tensors
from ..progress import Progress
from .building import apply_recipe
from .equalise import Equalisation, apply_equalisation, find_equalisation
from .layers import Arithmetic, Layer
from .material import Material
from .options import CalibrationOptions
from .quality import Judge, Quality, Run
from .recipe import Recipe
from .report import FEW, CalibrationReport, layer_results
from .search import fewest_promotions, greatest_loss_first
from .simulation import Simulation
from .statistics import Statistics, collect

if TYPE_CHECKING:
    import onnx

    from ..cache import Cache
    from ..export import OnnxArtifact

__all__ = ["CalibrationRun"]


def _runner(graph: onnx.ModelProto) -> Run:
    """Runs a graph as a GPU would round it."""
    return OnnxProbe(graph, dictionary_tensors(graph)).run


@dataclass(frozen=True)
class _Candidate:
    """A float graph that is ready to be quantised.

    Attributes:
        equalisations: What was moved into its weights.
        thresholds: By layer name.
        simulation: Runs it with any of its layers in INT8.
        quality: With all layers that may be in INT8.
    """

    equalisations: tuple[Equalisation, ...]
    thresholds: Mapping[str, float]
    simulation: Simulation
    quality: Quality


@dataclass(frozen=True)
class CalibrationRun:
    """One calibration that measures.

    Attributes:
        artifact: The float file.
        graph: Its graph, see `load_graph`.
        rescaled: Whether that was rescaled.
        layers: The layers of the graph.
        arithmetic: Their multiplications.
        options: How to calibrate.
        material: On what.
        cache: Where statistics are kept, or None.
        progress: Told each step.
    """

    artifact: OnnxArtifact
    graph: onnx.ModelProto
    rescaled: bool
    layers: Sequence[Layer]
    arithmetic: Arithmetic
    options: CalibrationOptions
    material: Material
    cache: Cache | None
    progress: Progress

    def run(self) -> tuple[onnx.ModelProto, CalibrationReport]:
        """The graph to write, and the report.

        Raises:
            ParityMissed: The budget cannot be met.
            InputError: No image can be read, or the model overflows on one.
        """
        options, material = self.options, self.material
        self.progress("judging the float file")
        judge = Judge(self.artifact, material.pictures, _runner(self.graph))
        plain, equalised = self._candidates(judge)
        chosen = equalised if equalised is not None and self._prefers(equalised, plain) else plain
        known = options.every_layer or not chosen.quality.holds(options)
        losses = self._losses(chosen.simulation, judge) if known else {}
        result, recipe, quality = self._within_budget(judge, chosen, losses)
        share, outside = self.arithmetic.share(recipe.int8)
        notes = list(material.notes)
        if share < FEW:
            notes.append(f"only {share:.1%} of all multiplications are INT8: FP16 is the better choice for this model")
        report = CalibrationReport(
            recipe=recipe,
            rest=options.rest,
            layers=layer_results(self.layers, self.arithmetic, recipe.int8, losses),
            share=share,
            share_outside=outside,
            quality=quality,
            plain=plain.quality,
            equalised=None if equalised is None else equalised.quality,
            floor=options.min_parity,
            images=material.images,
            skipped=len(material.reader.skipped),
            pictures=tuple((picture.name, picture.truth is not None) for picture in material.pictures),
            notes=tuple(notes),
        )
        return result, report

    @property
    def _names(self) -> list[str]:
        """The layers that may become INT8."""
        return [layer.name for layer in self.layers if self.options.ends or not layer.end]

    def _prefers(self, equalised: _Candidate, plain: _Candidate) -> bool:
        """Whether to equalise: as the options say, else where the mean loss is lower."""
        wanted = self.options.equalise
        return equalised.quality.rank < plain.quality.rank if wanted is None else wanted

    def _candidates(self, judge: Judge) -> tuple[_Candidate, _Candidate | None]:
        """The graph as it is, and equalised where there is something to equalise."""
        statistics = self._statistics(self.graph, "ranges")
        plain = self._candidate(self.graph, (), statistics, judge)
        unwanted = self.options.equalise is False
        found = () if unwanted else tuple(find_equalisation(self.graph, self.layers, statistics))
        if not found:
            return plain, None
        graph = apply_equalisation(self.graph, self.layers, found)
        return plain, self._candidate(graph, found, self._statistics(graph, "ranges when equalised"), judge)

    def _statistics(self, graph: onnx.ModelProto, step: str) -> dict[str, Statistics]:
        wanted = self.options.crops
        inputs = self.material.inputs(self.artifact, wanted)
        return collect(graph, self.layers, inputs, self.cache, lambda done: self.progress(step, done, wanted))

    def _candidate(
        self,
        graph: onnx.ModelProto,
        equalisations: tuple[Equalisation, ...],
        statistics: Mapping[str, Statistics],
        judge: Judge,
    ) -> _Candidate:
        method, percentile = self.options.method, self.options.percentile
        thresholds = {layer.name: statistics[layer.input].threshold(method, percentile) for layer in self.layers}
        simulation = Simulation(graph, self.layers, thresholds)
        self.progress("judging all layers in INT8")
        quality = judge.judge(lambda images: simulation.run(images, self._names))
        return _Candidate(equalisations, thresholds, simulation, quality)

    def _losses(self, simulation: Simulation, judge: Judge) -> dict[str, Quality]:
        """Quality with each layer alone in INT8, the ends as well."""
        losses = {}
        for number, layer in enumerate(self.layers, 1):
            self.progress("cost of every layer", number, len(self.layers))
            alone = [layer.name]
            losses[layer.name] = judge.judge(lambda images, alone=alone: simulation.run(images, alone))  # type: ignore[misc]
        return losses

    def _within_budget(
        self, judge: Judge, chosen: _Candidate, losses: dict[str, Quality]
    ) -> tuple[onnx.ModelProto, Recipe, Quality]:
        """Promotes layers until the simulation holds the budget, then until the file itself does.

        Where the losses are not known, because all layers hold it, they are measured as soon as the file does not.
        """
        options, material = self.options, self.material
        recipe = Recipe(
            model=self.artifact.spec.name,
            weights_sha256=self.artifact.provenance.get("weights_sha256"),
            method=options.method,
            percentile=options.percentile if options.method == "percentile" else None,
            crops=material.crops,
            crops_sha256=material.digest,
            psnr_budget=options.psnr_budget,
            rescaled=self.rescaled,
            int8=(),
            thresholds=dict(chosen.thresholds),
            equalisations=chosen.equalisations,
        )
        built: dict[frozenset[str], tuple[onnx.ModelProto, Recipe]] = {}

        def simulated(kept: Collection[str]) -> Quality:
            self.progress(f"trying {len(kept)} of {len(self.layers)} layers in INT8")
            return judge.judge(lambda images: chosen.simulation.run(images, kept))

        def written(kept: Collection[str]) -> Quality:
            self.progress(f"judging the file with {len(kept)} of {len(self.layers)} layers in INT8")
            exact = dataclasses.replace(recipe, int8=tuple(name for name in self._names if name in set(kept)))
            graph = apply_recipe(self.graph, self.layers, exact, options.rest)
            built[frozenset(kept)] = graph, exact
            return judge.judge(_runner(graph))

        kept, quality = self._names, None
        if not losses:
            quality = written(kept)
            if not quality.holds(options):
                losses |= self._losses(chosen.simulation, judge)
                quality = None
        if quality is None:
            order = greatest_loss_first(self._names, losses, options)
            kept, _ = fewest_promotions(order, simulated, options)
            kept, quality = fewest_promotions(order, written, options, at_least=len(order) - len(kept))
        graph, exact = built[frozenset(kept)]
        return graph, exact, quality
