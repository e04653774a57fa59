"""From whatever a user names to an ONNX artifact: loaded, exported, rescaled, in half precision or INT8; in memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.opening import is_onnx, refuse_model_options
from ..errors import InputError
from ..export.artifact import OnnxArtifact, read_artifact
from ..models.options import LoadOptions
from ..progress import Progress, entitled, silent
from .prepared import PreparedFiles, source_facts

if TYPE_CHECKING:
    from ..calib import CalibrationOptions, Recipe
    from ..models import Restorer

__all__ = ["ConversionRequest", "Int8Request", "convert", "export", "in_precision"]

LOGGER = logging.getLogger(__name__)

OPSETS = {"bfloat16": 22}
"""First opset whose convolutions know bfloat16; other precisions take the exporter's own."""


@dataclass(frozen=True)
class Int8Request:
    """How a float32 source becomes INT8 with everything else in float16; see `calib.calibrate`.

    Attributes:
        images: Inputs of the model.
        ground_truth: Pictures of what is to be restored.
        psnr_budget: Greatest loss in dB; None for the default.
        recipe: Of an earlier calibration.
    """

    images: tuple[Path, ...] = ()
    ground_truth: tuple[Path, ...] = ()
    psnr_budget: float | None = None
    recipe: Recipe | None = None

    def check(self) -> None:
        """Refuses what no file can be calibrated with.

        Raises:
            InputError: A budget out of range.
            ImageError: A picture is missing.
        """
        from ..calib.crops import list_files

        self.options().check()
        for paths in filter(None, (self.images, self.ground_truth)):
            list_files(paths, seed=0)

    def options(self) -> CalibrationOptions:
        """The options of `calib.calibrate`: everything that does not become INT8 is in float16."""
        from ..calib import CalibrationOptions

        options = CalibrationOptions(rest="float16", every_layer=False)
        return options if self.psnr_budget is None else replace(options, psnr_budget=self.psnr_budget)


@dataclass(frozen=True)
class ConversionRequest:
    """What the artifact is to be.

    Attributes:
        precision: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"``, or None for the source's own.
        opset: ONNX opset of an export; None for the precision's own.
        static: Rows and columns (pixels) of the only size of an export; None for free sizes.
        decomposed: Export plain ONNX only, without functions.
        rescale: Whether streams that outgrow float16 may be rescaled.
        int8: How a float source becomes INT8.
    """

    precision: str | None = None
    opset: int | None = None
    static: tuple[int, int] | None = None
    decomposed: bool = False
    rescale: bool = True
    int8: Int8Request = field(default_factory=Int8Request)


def convert(
    source: str | Path | OnnxArtifact,
    request: ConversionRequest | str | None = None,
    options: LoadOptions | None = None,
    *,
    keep: bool = False,
    progress: Progress = silent,
) -> OnnxArtifact:
    """The artifact of a file or a model, in the precision asked for; nothing is written but into the cache.

    Args:
        source: ONNX file of any precision, preset, packaged model or checkpoint; or an artifact.
        request: What it is to be, or only its precision; the source's own where None.
        options: How to load a model.
        keep: Whether an artifact made from a model is kept in the cache, and taken from there.
        progress: Told each step.

    Raises:
        InputError: Model options for an ONNX file, or a precision that the file is past.
        AgileIRError: What loading, exporting and converting raise.
    """
    if not isinstance(request, ConversionRequest):
        request = ConversionRequest(request)
    options = options or LoadOptions()
    if isinstance(source, OnnxArtifact):
        return in_precision(source, request, progress)
    if is_onnx(source):
        refuse_model_options(source, options)
        return in_precision(read_artifact(source), request, progress)
    files, facts = PreparedFiles(), source_facts(str(source), options, request) if keep else {}
    artifact = files.fetch(facts) if keep else None
    if artifact is not None:
        LOGGER.info("%s was exported before: its file comes from the cache", source)
        return artifact
    from ..models import load_model

    progress(f"Loading {source}")
    model = load_model(source, options)
    artifact = in_precision(export(model, request, progress), request, progress)
    if keep:
        files.keep(facts, artifact)
    return artifact


def export(model: Restorer, request: ConversionRequest, progress: Progress = silent) -> OnnxArtifact:
    """A loaded model as float32 ONNX, in the opset and sizes of a request.

    Args:
        model: The model.
        request: What it becomes.
        progress: Told each step.
    """
    from ..export import DEFAULT_OPSET, export_onnx

    progress(f"Exporting {model.spec.name}")
    own = OPSETS.get(request.precision or "", DEFAULT_OPSET)
    opset = own if request.opset is None else request.opset
    if request.static is None and model.spec.library:
        from .free_sizes import export_free_or_fixed

        return export_free_or_fixed(model, opset=opset, decomposed=request.decomposed, progress=progress)
    return export_onnx(model, opset=opset, static=request.static, decomposed=request.decomposed)


def in_precision(artifact: OnnxArtifact, request: ConversionRequest, progress: Progress = silent) -> OnnxArtifact:
    """An artifact in the precision asked for: the same one, or one made from it.

    Raises:
        InputError: The artifact is past that precision.
        Unsupported: A stream or a weight is beyond the precision's range.
        ParityMissed: INT8 does not keep within its budget.
    """
    if request.precision in (None, artifact.precision):
        if request.int8 != Int8Request():
            raise InputError(
                f"{artifact.name} is in {artifact.precision} already: there is nothing to calibrate.",
                fix="Leave the options of the calibration out, or start from the float32 file.",
            )
        if not request.rescale:
            raise InputError(
                f"{artifact.name} is in {artifact.precision} already: its streams stay as they are.",
                fix="Leave --no-rescale out, or start from the float32 file.",
            )
        return artifact
    if artifact.precision != "float32":
        raise InputError(
            f"{artifact.name} is in {artifact.precision} already, and the engine is asked for in {request.precision}.",
            why="An engine computes in the types of its file.",
            fix="Leave the precision out, or start from the float32 file.",
        )
    if request.precision == "int8":
        return _calibrated(artifact, request.int8, progress)
    from ..export.precision import to_precision

    precision, keep_opset = str(request.precision), request.opset is not None
    if artifact.spec.library:
        from ..parity.half_by_need import half_by_need

        progress(f"Converting {artifact.spec.name} to {precision}")
        titled = entitled(progress, f"Converting {artifact.spec.name} to {precision}")
        return half_by_need(artifact, precision, rescaling=request.rescale, keep_opset=keep_opset, progress=titled)
    if precision == "float16" and request.rescale:
        artifact = _rescaled(artifact, progress)
    progress(f"Converting {artifact.spec.name} to {precision}")
    return to_precision(artifact, precision, keep_opset=keep_opset)


def _calibrated(artifact: OnnxArtifact, how: Int8Request, progress: Progress) -> OnnxArtifact:
    """The artifact in INT8, everything else in float16."""
    from ..calib import calibrate

    made, report = calibrate(
        artifact,
        how.images,
        ground_truth=how.ground_truth,
        options=how.options(),
        recipe=how.recipe,
        progress=entitled(progress, f"Calibrating {artifact.spec.name}"),
    )
    for note in report.notes:
        LOGGER.info("%s", note)
    return made


def _rescaled(artifact: OnnxArtifact, progress: Progress) -> OnnxArtifact:
    """The artifact with streams that fit into float16."""
    from ..parity.rescaling import rescale_if_needed

    rescaled, report = rescale_if_needed(artifact, progress=entitled(progress, "Measuring ranges"))
    for note in report.notes():
        LOGGER.info("%s", note)
    return rescaled
