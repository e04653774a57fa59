"""The protocol every target implements, and what they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..export.artifact import OnnxArtifact, read_artifact
from ..images.resizing import pad_to_multiple
from ..models.spec import ModelSpec
from ..process_memory import give_back_large_blocks

__all__ = ["ExportedRunner", "Images", "Runner", "check_images"]

Images = NDArray[np.float32]


@runtime_checkable
class Runner(Protocol):
    """Something that restores images."""

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""

    def run(self, images: Images) -> Images:
        """Restores float32 images ``[B, C, H, W]`` in 0..1, any H, W >= 1, to ``[B, C, s*H, s*W]``, not clamped."""

    def describe(self) -> dict[str, Any]:
        """Target, versions and device, for reports."""


def check_images(images: Images, spec: ModelSpec) -> None:
    """Refuses what no runner of this model can take.

    Raises:
        InputError: Not float32 ``[B, C, H, W]`` with B, H, W >= 1 and the model's channels.
    """
    if images.ndim != 4 or images.dtype != np.float32 or 0 in images.shape:
        raise InputError(
            f"Images must be float32 [B, C, H, W] without empty dimensions, got {images.dtype} {list(images.shape)}."
        )
    if images.shape[1] != spec.channels:
        raise InputError(
            f"The model {spec.name} takes {spec.channels} channel(s), the images have {images.shape[1]}.",
            fix="Convert the images to grey or RGB.",
        )


class ExportedRunner:
    """What runners of an exported file share, whatever executes it; it can be pickled, and is opened anew then.

    Tensors that are freed go back to the system (`give_back_large_blocks`).

    Args:
        source: The file, or its artifact.
        threads: Threads, or None for the runtime's choice.

    Raises:
        OnnxFileError: The file is not one of ours.
    """

    def __init__(self, source: str | Path | OnnxArtifact, threads: int | None = None) -> None:
        self.artifact = source if isinstance(source, OnnxArtifact) else read_artifact(source)
        self._threads = threads
        give_back_large_blocks()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.artifact, self._threads)

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self.artifact.spec

    def run(self, images: Images) -> Images:
        """See `Runner.run`.

        Raises:
            InputError: The images do not fit the model, or the fixed size of a static file.
        """
        artifact = self.artifact
        check_images(images, artifact.spec)
        padded, (height, width) = pad_to_multiple(images, artifact.spec.pad_multiple)
        fixed, scale = artifact.fixed_sizes, artifact.spec.scale
        wanted = (fixed.get("height", padded.shape[2]), fixed.get("width", padded.shape[3]))
        if padded.shape[2:] != wanted:
            raise InputError(
                f"{artifact.name} was exported for {wanted[0]}x{wanted[1]} pixels, the image is "
                f"{height}x{width} (padded {padded.shape[2]}x{padded.shape[3]}).",
                fix="Export without --static, or for this size.",
            )
        step = fixed.get("batch", len(padded))
        parts = [self.infer(padded[start : start + step]) for start in range(0, len(padded), step)]
        output: Images = np.concatenate(parts)[..., : height * scale, : width * scale]
        return output

    def infer(self, images: Images) -> Images:
        """Executes the graph on images of sides and a batch that it takes."""
        raise NotImplementedError
