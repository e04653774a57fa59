"""The ONNX file an engine is built from: the file the user names, or one exported from the model the user names."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AgileIRError, InputError, OutputError
from .prepared import PreparedFiles, source_facts
from .terminal import Terminal

if TYPE_CHECKING:
    from ..calib import CalibrationOptions, Recipe
    from ..export import OnnxArtifact
    from ..models import LoadOptions

__all__ = ["Calibration", "Wanted", "check_onnx_output", "converted", "engine_source"]

OPSETS = {"bfloat16": 22}
"""First opset whose convolutions know bfloat16; other precisions take the exporter's own."""


@dataclass(frozen=True)
class Calibration:
    """How a float source becomes INT8; see `calib.calibrate`.

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
class Wanted:
    """What the engine's ONNX file shall be.

    Attributes:
        precision: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"``, or None for the source's own.
        static: Rows and columns (pixels) of the only size; None for free sizes.
        rescale: Whether streams that outgrow float16 may be rescaled.
        keep_opset: Whether the file's opset must stay, at the cost of nodes in float32.
        calibration: How a float source becomes INT8.
    """

    precision: str | None
    static: tuple[int, int] | None = None
    rescale: bool = True
    keep_opset: bool = False
    calibration: Calibration = field(default_factory=Calibration)


@contextlib.contextmanager
def engine_source(
    terminal: Terminal, source: str, options: LoadOptions, wanted: Wanted, keep: bool = True
) -> Iterator[OnnxArtifact]:
    """The file to build from, in the wanted precision; files made on the way are gone after the block.

    Args:
        terminal: Where steps are told.
        source: ONNX file of any precision, preset, packaged model or checkpoint.
        options: How to load a model.
        wanted: What the file shall be.
        keep: Whether a file made from a model is kept in the cache, and taken from there.

    Raises:
        InputError: Model options for an ONNX file, or a precision that the file is past.
        AgileIRError: What loading, exporting and converting raise.
    """
    from ..engines.opening import is_onnx

    with tempfile.TemporaryDirectory(prefix="agileir-", ignore_cleanup_errors=True) as scratch, _named(scratch):
        folder = Path(scratch)
        if is_onnx(source):
            yield converted(terminal, _file(source, options), wanted, folder)
            return
        files, facts = PreparedFiles(), source_facts(source, options, wanted)
        artifact = files.fetch(facts, folder) if keep else None
        if artifact is None:
            exported = _exported(terminal, source, options, wanted, folder)
            artifact = converted(terminal, exported, wanted, folder)
            if keep:
                files.keep(facts, artifact)
        else:
            terminal.note(f"{source} was exported before: its file comes from the cache")
        yield artifact


@contextlib.contextmanager
def _named(scratch: str) -> Iterator[None]:
    """Errors name a file made on the way by its name: its folder is gone when they are read."""
    try:
        yield
    except OutputError:  # where there is no room is what it says
        raise
    except AgileIRError as error:
        parts = (part.replace(scratch + os.sep, "") for part in (error.what, error.why, error.fix))
        error.what, error.why, error.fix = parts
        raise


def check_onnx_output(path: Path, source: str) -> None:
    """Says early that an ONNX file made from a source cannot be written there.

    Args:
        path: The file.
        source: Preset, checkpoint or ONNX file that it is made from.

    Raises:
        OutputError: Not the suffix of an ONNX file, the source itself; or see `files.check_output`.
    """
    from ..engines.opening import is_onnx
    from ..files import check_output

    if not is_onnx(path):
        raise OutputError(f"{path} does not end in .onnx, by which the other verbs know it.", fix="Add the suffix.")
    check_output(path, overwrite=True)
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise OutputError(
            f"{path} is the file that this one is made from.",
            why="Precision that is given up cannot be got back from the result.",
            fix="Choose another name.",
        )


def _file(source: str, options: LoadOptions) -> OnnxArtifact:
    from ..engines.opening import refuse_model_options
    from ..export import read_artifact

    refuse_model_options(source, options)
    return read_artifact(source)


def _exported(terminal: Terminal, source: str, options: LoadOptions, wanted: Wanted, folder: Path) -> OnnxArtifact:
    from ..export import DEFAULT_OPSET, export_onnx
    from ..export.provenance import describe_source
    from ..models import load_model

    with terminal.working(f"Loading {source}"):
        model = load_model(source, options)
    with terminal.working(f"Exporting {model.spec.name}"):
        return export_onnx(
            model,
            folder / f"{model.spec.name}.onnx",
            opset=OPSETS.get(wanted.precision or "", DEFAULT_OPSET),
            static=wanted.static,
            source=describe_source(source, options),
        )


def converted(terminal: Terminal, artifact: OnnxArtifact, wanted: Wanted, folder: Path) -> OnnxArtifact:
    """A file in the wanted precision: the same one, or one made from it in `folder`.

    Raises:
        InputError: The file is past that precision.
        Unsupported: A stream or a weight is beyond the precision's range.
        ParityMissed: INT8 does not keep within its budget.
    """
    if wanted.precision in (None, artifact.precision):
        if wanted.calibration != Calibration():
            raise InputError(
                f"{artifact.path} is in {artifact.precision} already: there is nothing to calibrate.",
                fix="Leave the options of the calibration out, or start from the float32 file.",
            )
        if not wanted.rescale:
            raise InputError(
                f"{artifact.path} is in {artifact.precision} already: its streams stay as they are.",
                fix="Leave --no-rescale out, or start from the float32 file.",
            )
        return artifact
    if artifact.precision != "float32":
        raise InputError(
            f"{artifact.path} is in {artifact.precision} already, and the engine is asked for in {wanted.precision}.",
            why="An engine computes in the types of its file.",
            fix="Leave the precision out, or start from the float32 file.",
        )
    if wanted.precision == "int8":
        return _calibrated(terminal, artifact, wanted.calibration, folder)
    from ..export.precision import write_precision

    if wanted.precision == "float16" and wanted.rescale:
        artifact = _rescaled(terminal, artifact, folder)
    with terminal.working(f"Converting {artifact.spec.name} to {wanted.precision}"):
        path = folder / f"{artifact.path.stem}.{wanted.precision}.onnx"
        return write_precision(artifact, path, wanted.precision, keep_opset=wanted.keep_opset)


def _calibrated(terminal: Terminal, artifact: OnnxArtifact, how: Calibration, folder: Path) -> OnnxArtifact:
    """The file in INT8, everything else in float16."""
    from ..calib import calibrate

    with terminal.counting(f"Calibrating {artifact.spec.name}") as progress:
        written, report = calibrate(
            artifact,
            folder / f"{artifact.path.stem}.int8.onnx",
            how.images,
            ground_truth=how.ground_truth,
            options=how.options(),
            recipe=how.recipe,
            progress=progress,
        )
    for note in report.notes:
        terminal.note(note)
    return written


def _rescaled(terminal: Terminal, artifact: OnnxArtifact, folder: Path) -> OnnxArtifact:
    from ..parity.rescaling import rescale_if_needed

    with terminal.working("Measuring ranges") as progress:
        rescaled, report = rescale_if_needed(
            artifact, folder / f"{artifact.path.stem}.rescaled.onnx", progress=progress
        )
    for note in report.notes():
        terminal.note(note)
    return rescaled
