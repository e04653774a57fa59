"""The folder that a server works from: a repository with the picture model as it is asked for, beside the bundle's own.

The bundle is not changed. The tensor models are links to it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bundle.picture_model import PictureModel, PictureSettings
from ..engines.artifact import EngineArtifact, read_engine
from ..errors import InputError
from ..json_form import parse_json
from .alive import sign_path
from .finding import STUB, Installation

__all__ = ["ServedBundle", "Workplace", "read_bundle"]


@dataclass(frozen=True)
class ServedBundle:
    """What a bundle has to serve.

    Attributes:
        folder: The bundle.
        name: Of the picture model.
        tensors: The tensor models with their platforms.
        onnx: The ONNX file, relative to the repository.
        plans: The engines that Triton runs, likewise.
        engines: What their sidecars say.
    """

    folder: Path
    name: str
    tensors: dict[str, str]
    onnx: str
    plans: tuple[str, ...]
    engines: tuple[EngineArtifact, ...]


def read_bundle(folder: Path) -> ServedBundle:
    """A bundle of `write_bundle`, as it lies there.

    Raises:
        InputError: It is none, or not whole.
    """
    try:
        names = parse_json((folder / "manifest.json").read_text(encoding="utf-8"))["triton"]
        onnx = next(name for name in names if name.endswith("_onnx"))
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise InputError(
            f"{folder} is no bundle: its manifest.json is missing or not one of ours.",
            fix="Make one: agileir-export bundle MODEL -o FOLDER.",
        ) from error
    name, repository = onnx.removesuffix("_onnx"), folder / "triton"
    tensors = {each: "onnxruntime_onnx" if each == onnx else "tensorrt_plan" for each in names if each != name}
    plans: list[str] = []
    for model in tensors:
        files = sorted(path for path in (repository / model / "1").glob("*") if path.suffix != ".json")
        if not files:
            raise InputError(f"{folder} is not whole: {repository / model / '1'} has no file.", fix="Write it again.")
        plans += [path.relative_to(repository).as_posix() for path in files if model != onnx]
    engines = tuple(read_engine(repository / plan) for plan in plans)
    return ServedBundle(folder, name, tensors, f"{onnx}/1/model.onnx", tuple(plans), engines)


@dataclass
class Workplace:
    """The folder, while a server runs.

    Args:
        settings: How pictures are restored; the files are filled in.
        at_once: Pictures in work at once.
        queue: Pictures that may wait.
        served: Tensor models that are served, too.
    """

    settings: dict[str, Any]
    at_once: int
    queue: int
    served: Sequence[str] = ()
    folder: Path = field(init=False)
    generation: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agileir-serve-"))

    @property
    def repository(self) -> Path:
        """What the server reads its models from."""
        return self.folder / "repository"

    @property
    def sign(self) -> Path:
        """By which the picture model's process of this generation is known to live."""
        return sign_path(self.folder, self.generation)

    def write(self, bundle: ServedBundle) -> None:
        """Writes the repository; what was there before is replaced, so that a server that is asked to load it does."""
        self.generation += 1
        settings = PictureSettings(bundle.onnx, bundle.plans, generation=self.generation, **self.settings)
        model = PictureModel(bundle.name, settings, self.at_once, self.queue)
        version = self.repository / bundle.name / "1"
        version.mkdir(parents=True, exist_ok=True)
        for name, content in model.files.items():
            (version / name).write_bytes(content)
        (version.parent / "config.pbtxt").write_text(model.config(), encoding="utf-8")
        for name in bundle.tensors:
            link = self.repository / name
            link.unlink(missing_ok=True)
            link.symlink_to((bundle.folder / "triton" / name).resolve(), target_is_directory=True)

    def backends(self, server: Installation) -> Path:
        """The folder of the server's backends, with the Python backend's program in its place."""
        if server.stub.parent == server.backends / "python":
            return server.backends
        made = self.folder / "backends"
        (made / "python").mkdir(parents=True)
        for backend in server.backends.iterdir():
            if backend.name != "python":
                (made / backend.name).symlink_to(backend)
        for file in (server.backends / "python").iterdir():
            (made / "python" / file.name).symlink_to(file)
        stub = made / "python" / STUB
        shutil.copyfile(server.stub, stub)  # which an installer may have left without the right to be run
        stub.chmod(0o755)
        return made

    def program(self, server: Installation) -> Path:
        """The server's program; a copy that may be run, where an installer has left it without that right."""
        if os.access(server.program, os.X_OK):
            return server.program
        copy = self.folder / server.program.name
        shutil.copyfile(server.program, copy)
        copy.chmod(0o755)
        return copy

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
