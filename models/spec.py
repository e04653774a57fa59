"""What the other rooms need to know of a model: the frozen `ModelSpec` and its JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..json_form import JsonForm

__all__ = ["CHECKPOINT_SUFFIXES", "ModelSpec"]

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".tar")
"""File names that mean a checkpoint; ``.tar`` is for ``.pth.tar``."""


@dataclass(frozen=True)
class ModelSpec(JsonForm):
    """Facts of a restoration model that its ONNX file and its runners carry.

    Attributes:
        family: Registry name of the architecture, such as ``"agileir"``; ``"spandrel/HAT"`` for one of a library.
        name: Preset or packaged name, ``"custom"`` where the shape matches no preset, or a library's own.
        task: ``"super-resolution"``, ``"denoising"``, ``"jpeg"`` or another task name.
        scale: Output pixels per input pixel along each side, >= 1.
        channels: Image channels in and out (1 grey, 3 RGB).
        window_size: Attention window in tokens; 1 where there is none.
        pad_multiple: Height and width of the network input must be multiples of this (pixels).
        img_range: Factor between 0..1 images and the network's inner range (1 or 255).
        top_k: Keys per query of a key-semantic model, else None.
        noise_level: Standard deviation of the Gaussian noise a denoiser was trained for (of 255), None where unknown.
        tiling: Whether pictures may be restored in tiles: ``"supported"``, ``"discouraged"`` where the network looks at
            the whole picture, or ``"internal"`` where it cuts tiles itself.
    """

    family: str
    name: str
    task: str
    scale: int
    channels: int
    window_size: int
    pad_multiple: int
    img_range: float = 1.0
    top_k: int | None = None
    noise_level: float | None = None
    tiling: str = "supported"

    @property
    def library(self) -> str:
        """The library that built the network; empty for a family of this package."""
        library, slash, _ = self.family.partition("/")
        return library if slash else ""

    @classmethod
    def from_json(cls, data: Any) -> ModelSpec:
        """Inverse of `to_json`.

        Raises:
            ValueError: `data` is not the JSON of a spec.
        """
        try:
            spec = cls(**data)
        except TypeError as error:
            raise ValueError(f"not a ModelSpec: {error}") from error
        for name in ("family", "name", "task", "tiling"):
            if not isinstance(getattr(spec, name), str):
                raise ValueError(f"not a ModelSpec: {name} is {getattr(spec, name)!r}, not a text")
        for name in ("scale", "channels", "window_size", "pad_multiple", "top_k"):
            value = getattr(spec, name)
            absent = name == "top_k" and value is None
            if not absent and (type(value) is not int or value < 1):
                raise ValueError(f"not a ModelSpec: {name} is {value!r}, not a whole number >= 1")
        if type(spec.img_range) not in (int, float) or not spec.img_range > 0:
            raise ValueError(f"not a ModelSpec: img_range is {spec.img_range!r}, not a number > 0")
        return spec
