"""The model of the repository that takes pictures: a few lines for Triton's Python backend, and its settings.

What it does is in `serving`; the process that runs it needs this package. Its settings are parameters of
``config.pbtxt``, which may be edited by hand: `PictureSettings` says what each means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import InputError
from ..restore.tiled_runner import Tile
from ..restore.wire import ABOUT, PICTURE, RESTORED

__all__ = ["PictureModel", "PictureSettings"]

MODEL_FILE = 'from agileir_export.serving.backend import TritonPythonModel\n\n__all__ = ["TritonPythonModel"]\n'
"""``model.py``: all that the Python backend looks for."""

RUNTIMES = ("auto", "onnxruntime", "openvino", "plan", "tensors")
"""What runs the network: on a GPU the tensor model of the plans, else the ONNX file by the quicker of the next two;
ONNX Runtime; OpenVINO; a plan in the model's own process; a tensor model of the same server, by its own runtime."""

QUEUE_DELAY = 0
"""Microseconds a picture waits for others: none, for reading it takes longer."""


@dataclass(frozen=True)
class PictureSettings:
    """How a picture model restores; every value is a parameter of its configuration, as text.

    Attributes:
        onnx: The ONNX file, relative to the repository.
        plans: Engines, relative to the repository.
        runtime: One of `RUNTIMES`.
        tensors: The tensor model to call; empty for the first of the plans', else the ONNX file's.
        tile: ``auto``, ``off``, a side or ``HxW``, as of ``restore --tile``.
        overlap: Pixels that tiles share; None for what is measured.
        seam_psnr: dB at the seams.
        memory: Most bytes that the process may hold; None for all that is free.
        together: Tiles of one size that are run together; None for what suits the runtime.
        pixels: Most pixels of a picture; 0 for what fits the memory.
        bytes: Most bytes of its file.
        seconds: That it may take, and before that wait.
        generation: How often `serve` has written it: by this it knows which of two processes lives.
    """

    onnx: str
    plans: tuple[str, ...] = ()
    runtime: str = "auto"
    tensors: str = ""
    tile: str = "auto"
    overlap: int | None = None
    seam_psnr: float = 60.0
    memory: int | None = None
    together: int | None = None
    pixels: int = 0
    bytes: int = 2**28
    seconds: float = 300.0
    generation: int = 0

    @property
    def tile_choice(self) -> Tile:
        """The tile as `TiledRunner` takes it."""
        if self.tile in ("auto", "off"):
            return self.tile  # type: ignore[return-value]
        rows, _, columns = self.tile.partition("x")
        return int(rows), int(columns or rows)

    def parameters(self) -> dict[str, str]:
        """Text by name, without what is as it is by default."""
        told = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                told[field.name] = ",".join(value) if isinstance(value, tuple) else str(value)
        return told

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> PictureSettings:
        """Those of a configuration in JSON, as the backend hands it over.

        Raises:
            InputError: A parameter that is not known, or has no such value.
        """
        known = {field.name: field for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, given in config.get("parameters", {}).items():
            if name not in known:
                raise InputError(f"config.pbtxt has a parameter {name!r}.", fix=f"There are {', '.join(known)}.")
            text, kind = given["string_value"].strip(), str(known[name].type)
            try:
                values[name] = _read(text, kind)
                if name == "tile":
                    _ = cls("", tile=text).tile_choice
            except ValueError as error:
                raise InputError(f"config.pbtxt: {name} is {text!r}.", fix=f"It is of the type {kind}.") from error
        if values.get("runtime", "auto") not in RUNTIMES:
            raise InputError(f"config.pbtxt: there is no runtime {values['runtime']!r}.", fix=", ".join(RUNTIMES))
        if "onnx" not in values:
            raise InputError("config.pbtxt names no ONNX file.", fix="Write the bundle again.")
        return cls(**values)


def _read(text: str, kind: str) -> Any:
    if kind.startswith("tuple"):
        return tuple(filter(None, text.split(",")))
    if "None" in kind and not text:
        return None
    number = {"int": int, "float": float}.get(kind.partition(" ")[0])
    return text if number is None else number(text)


@dataclass(frozen=True)
class PictureModel:
    """The picture model of a repository.

    Attributes:
        name: Of the model and its folder.
        settings: How it restores.
        at_once: Pictures in work at once.
        queue: Pictures that may wait; more are refused at once.
    """

    name: str
    settings: PictureSettings
    at_once: int = 8
    queue: int = 64
    platform: str = "python"

    @property
    def files(self) -> dict[str, bytes]:
        """Content of version 1 by name."""
        return {"model.py": MODEL_FILE.encode()}

    def config(self) -> str:
        """The text of ``config.pbtxt``."""
        gpu = self.settings.plans and self.settings.runtime in ("auto", "plan", "tensors")
        wait = round(self.settings.seconds * 1e6)
        parts = [
            f"name: {json.dumps(self.name)}",
            'backend: "python"',
            f"max_batch_size: {self.at_once}",
            *_tensors("input", [PICTURE], "\n  allow_ragged_batch: true"),
            *_tensors("output", [RESTORED, ABOUT]),
            f"instance_group {{\n  count: 1\n  kind: {'KIND_AUTO' if gpu else 'KIND_CPU'}\n}}",
            "dynamic_batching {\n"
            f"  max_queue_delay_microseconds: {QUEUE_DELAY}\n"
            "  default_queue_policy {\n"
            f"    timeout_action: REJECT\n    default_timeout_microseconds: {wait}\n"
            f"    max_queue_size: {self.queue}\n"
            "  }\n"
            "}",
            *(
                f"parameters {{\n  key: {json.dumps(name)}\n  value {{ string_value: {json.dumps(value)} }}\n}}"
                for name, value in self.settings.parameters().items()
            ),
        ]
        return "\n".join(parts) + "\n"


def _tensors(field: str, names: Iterable[str], more: str = "") -> list[str]:
    return [
        f"{field} {{\n  name: {json.dumps(name)}\n  data_type: TYPE_UINT8\n  dims: [ -1 ]{more}\n}}" for name in names
    ]
