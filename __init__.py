"""agileir-export: AgileIR, SemanIR and SwinIR from a checkpoint to a verified ONNX file, an engine, a restored picture.

`import agileir_export` is instant: the public names are imported from their rooms when they are
first used, so that PyTorch and ONNX load only for the work that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_attributes

if TYPE_CHECKING:
    from .bundle import Bundle, write_bundle
    from .cache import Cache
    from .calib import CalibrationOptions, calibrate
    from .conversion import ConversionRequest, Int8Request, convert
    from .engines.artifact import EngineArtifact, read_engine
    from .engines.building.engine import build_engine
    from .engines.building.request import BuildOptions
    from .engines.opening import open_runner
    from .engines.profile_choice import read_sizes
    from .errors import AgileIRError
    from .export import OnnxArtifact, export_onnx, read_artifact
    from .models import LoadOptions, list_models, load_model
    from .parity import ParityReport, verify
    from .restore import Failed, Restoration, Restored, Skipped, restore_pictures
    from .restore.video import RestoredVideo, VideoOptions, restore_video
    from .version import __version__

_HOMES = {
    ".bundle": ("Bundle", "write_bundle"),
    ".cache": ("Cache",),
    ".calib": ("CalibrationOptions", "calibrate"),
    ".conversion": ("ConversionRequest", "Int8Request", "convert"),
    ".engines.artifact": ("EngineArtifact", "read_engine"),
    ".engines.building.engine": ("build_engine",),
    ".engines.building.request": ("BuildOptions",),
    ".engines.opening": ("open_runner",),
    ".engines.profile_choice": ("read_sizes",),
    ".errors": ("AgileIRError",),
    ".export": ("OnnxArtifact", "export_onnx", "read_artifact"),
    ".models": ("LoadOptions", "list_models", "load_model"),
    ".parity": ("ParityReport", "verify"),
    ".restore": ("Failed", "Restoration", "Restored", "Skipped", "restore_pictures"),
    ".restore.video": ("RestoredVideo", "VideoOptions", "restore_video"),
    ".version": ("__version__",),
}

__all__ = [
    "AgileIRError",
    "BuildOptions",
    "Bundle",
    "Cache",
    "CalibrationOptions",
    "ConversionRequest",
    "EngineArtifact",
    "Failed",
    "Int8Request",
    "LoadOptions",
    "OnnxArtifact",
    "ParityReport",
    "Restoration",
    "Restored",
    "RestoredVideo",
    "Skipped",
    "VideoOptions",
    "__version__",
    "build_engine",
    "calibrate",
    "convert",
    "export_onnx",
    "list_models",
    "load_model",
    "open_runner",
    "read_artifact",
    "read_engine",
    "read_sizes",
    "restore_pictures",
    "restore_video",
    "verify",
    "write_bundle",
]

__getattr__ = lazy_attributes(__name__, {name: home for home, names in _HOMES.items() for name in names})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
