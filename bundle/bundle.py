"""Writing a bundle: ONNX file, engines with sidecars, parity report, model card and Triton repository."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engines.artifact import EngineArtifact, sidecar_path
from ..errors import InputError, OutputError
from ..export.artifact import OnnxArtifact
from ..json_form import JsonForm
from ..parity.report import ParityReport
from ..version import __version__
from .model_card import model_card
from .picture_model import PictureModel, PictureSettings
from .triton_repository import TritonModel, onnx_model, tensorrt_models

__all__ = ["Bundle", "check_bundle", "write_bundle"]


@dataclass(frozen=True)
class Bundle(JsonForm):
    """A written bundle.

    Attributes:
        folder: Where it lies.
        files: SHA-256 by path inside it, without the manifest.
        triton: Names of the models in its Triton repository.
    """

    folder: Path
    files: dict[str, str]
    triton: tuple[str, ...]


def check_bundle(folder: Path, artifact: OnnxArtifact, engines: Sequence[EngineArtifact], overwrite: bool) -> None:
    """Refuses what cannot become a bundle, before anything is measured.

    Raises:
        InputError: An engine was built from other weights, or two engines have one file name.
        OutputError: The folder exists (without `overwrite`), is not a bundle, or its parent is missing.
    """
    weights = artifact.provenance.get("weights_sha256")
    for engine in engines:
        if engine.provenance.get("weights_sha256") != weights:
            raise InputError(
                f"{engine.path} was built from other weights than {artifact.file_name}.",
                fix="Bundle engines with the ONNX file of their own model.",
            )
    names = [engine.path.name for engine in engines]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"Two engines are named {twice}.", fix="Rename one, together with its sidecar.")
    if not folder.parent.is_dir():
        raise OutputError(f"Cannot write {folder}: there is no folder {folder.parent}.", fix="Create it first.")
    if folder.exists() or folder.is_symlink():
        if not overwrite:
            raise OutputError(f"{folder} exists already.", fix="Name another, or use --overwrite.")
        if not (folder / "manifest.json").is_file():
            raise OutputError(
                f"{folder} exists and is not a bundle: it has no manifest.json.",
                why="Replacing it would delete what is not ours.",
                fix="Name another folder.",
            )


def write_bundle(
    folder: str | Path,
    artifact: OnnxArtifact,
    engines: Sequence[EngineArtifact] = (),
    report: ParityReport | None = None,
    *,
    page: str = "",
    name: str | None = None,
    batch: int = 8,
    instances: int = 1,
    overwrite: bool = False,
) -> Bundle:
    """Writes the folder, whole or not at all.

    Args:
        folder: Folder to make.
        artifact: The ONNX file.
        engines: Engines built from the same weights.
        report: Parity of the ONNX file.
        page: The report as a page with pictures (HTML); empty for none.
        name: Name of the model; that of its spec where None, or of the file for a custom model.
        batch: Largest batch of the ONNX file under Triton.
        instances: Triton's execution instances on every device.
        overwrite: Replace an older bundle.

    Raises:
        InputError: See `check_bundle`; a name Triton does not take; or two plans cannot be told apart by Triton.
        OutputError: The folder cannot be written.
    """
    folder = Path(folder)
    check_bundle(folder, artifact, engines, overwrite)
    name = name or (Path(artifact.file_name).stem if artifact.spec.name == "custom" else artifact.spec.name)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) is None:
        raise InputError(
            f"{name!r} cannot be the name of a model under Triton.",
            fix="Use letters, digits, '_', '-' and '.': --name NAME.",
        )
    onnx, plans = onnx_model(artifact, f"{name}_onnx", batch, instances), tensorrt_models(engines, name, instances)
    triton: list[TritonModel | PictureModel] = [picture_model(name, onnx, plans), onnx, *plans]
    temporary = folder.parent / f".agileir-{secrets.token_hex(8)}.tmp"
    try:
        _fill(temporary, artifact, engines, report, page, triton)
        files = _digests(temporary)
        manifest = {
            "package": "agileir-export",
            "version": __version__,
            "model": artifact.to_json() | {"path": f"onnx/{artifact.file_name}"},
            "engines": [engine.to_json() for engine in engines],
            "triton": [model.name for model in triton],
            "parity": None if report is None else report.passed,
            "files": files,
        }
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        _put_in_place(temporary, folder)
    except OSError as error:
        raise OutputError(
            f"Cannot write {folder}: {error.strerror or error}.",
            fix="Check free space, quota and permissions of the folder.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle(folder, files, tuple(model.name for model in triton))


def picture_model(name: str, onnx: TritonModel, plans: Sequence[TritonModel]) -> PictureModel:
    """The model that takes pictures, which runs the files of the tensor models.

    Args:
        name: Of the model.
        onnx: The model of the ONNX file.
        plans: Those of the engines.
    """
    files = [f"{model.name}/1/{file}" for model in (onnx, *plans) for file in model.served]
    return PictureModel(name, PictureSettings(files[0], tuple(files[1:])))


def _fill(
    folder: Path,
    artifact: OnnxArtifact,
    engines: Sequence[EngineArtifact],
    report: ParityReport | None,
    page: str,
    triton: Sequence[TritonModel | PictureModel],
) -> None:
    for below in ("onnx", "triton"):
        (folder / below).mkdir(parents=True)
    (folder / "onnx" / artifact.file_name).write_bytes(artifact.data)
    if engines:
        (folder / "engines").mkdir()
    for engine in engines:
        for file in (engine.path, sidecar_path(engine.path)):
            shutil.copyfile(file, folder / "engines" / file.name)
    if report is not None:
        (folder / "parity.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    if page:
        (folder / "parity.html").write_text(page, encoding="utf-8")
    for model in triton:
        version = folder / "triton" / model.name / "1"
        version.mkdir(parents=True)
        for target, source in model.files.items():
            if isinstance(source, bytes):
                (version / target).write_bytes(source)
            else:
                shutil.copyfile(source, version / target)
        (version.parent / "config.pbtxt").write_text(model.config(), encoding="utf-8")
    (folder / "README.md").write_text(model_card(artifact, engines, report, triton), encoding="utf-8")


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Renames the finished folder to its name; an older bundle goes only when the new one stands."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = temporary.with_suffix(".old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
