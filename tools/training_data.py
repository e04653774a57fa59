"""Training images in memory: read and degraded once, then cut into random crops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agileir_export.errors import ImageError, InputError
from agileir_export.images.files import IMAGE_SUFFIXES, list_images, read_image
from agileir_export.images.resizing import resize_bicubic

__all__ = ["Pair", "TrainingImages", "add_noise", "degrade", "load_pictures"]

_Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """A picture and what the network sees of it.

    Attributes:
        clean: uint8 ``[C, s*H, s*W]``.
        degraded: uint8 ``[C, H, W]``; for denoising the clean picture itself, noise comes later.
        name: File it was read from.
    """

    clean: _Picture
    degraded: _Picture
    name: str


def load_pictures(folder: Path, channels: int) -> list[tuple[str, _Picture]]:
    """Reads every image of a folder and of the folders in it, sorted by path.

    Args:
        folder: Folder of images, or of folders of images.
        channels: 3 repeats grey pictures; 1 takes the mean of colours.

    Returns:
        ``(name relative to the folder, uint8 [channels, H, W])`` of every picture.

    Raises:
        InputError: There is no such folder, or no image in it.
        ImageError: A file in it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.", fix="Name the folder that holds the training images.")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(
            f"The folder {folder} holds no image, and neither do the folders in it.",
            fix="Files with these suffixes are taken: " + " ".join(IMAGE_SUFFIXES) + ".",
        )
    pictures = []
    for file in list_images(files):
        pixels = read_image(file).pixels
        if channels == 3:
            pixels = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
        elif pixels.shape[0] != channels:
            pixels = pixels.mean(0, keepdims=True)
        picture = np.rint(pixels * 255).astype(np.uint8)
        pictures.append((file.relative_to(folder).as_posix(), picture))
    return pictures


def degrade(picture: _Picture, scale: int, name: str = "") -> Pair:
    """Crops to a multiple of the scale and shrinks as MATLAB's imresize does on 8-bit images.

    Args:
        picture: uint8 ``[C, H, W]``.
        scale: 1 leaves the picture as it is.
        name: File name to remember.
    """
    if scale == 1:
        return Pair(picture, picture, name)
    height, width = (size // scale * scale for size in picture.shape[1:])
    clean = np.ascontiguousarray(picture[:, :height, :width])
    small = resize_bicubic(clean.astype(np.float64) / 255, 1 / scale, quantize=True)
    return Pair(clean, np.rint(small * 255).astype(np.uint8), name)


def add_noise(images: Tensor, sigma: float, generator: np.random.Generator, eight_bit: bool = False) -> Tensor:
    """Adds white Gaussian noise of standard deviation `sigma` / 255, rounding to 8 bits on demand.

    The noise is drawn by numpy on the CPU, so that it is the same on every device.
    """
    noise = generator.standard_normal(tuple(images.shape), dtype=np.float32) * (sigma / 255)
    noisy = images + torch.from_numpy(noise).to(images.device)
    return (noisy.clamp(0, 1) * 255).round() / 255 if eight_bit else noisy


class TrainingImages:
    """Random crops of a folder of images, and a few whole images held out for validation.

    Args:
        folder: Folder of images; folders in it are searched too.
        scale: Up-scaling factor; 1 for denoising.
        channels: Channels of the network.
        patch: Side of a crop of the degraded image, in pixels.
        sigma: Standard deviation of the noise added to the degraded image, in 8-bit steps.
        held_out: Number of images kept for validation: evenly spaced among the larger half.
        skip_small: Leave out images that are smaller than a crop.
        eight_bit: Share of batches whose noisy images are clamped and rounded, as in a file.

    Raises:
        InputError: No such folder, no image in it, or fewer than `held_out` + 1 images.
        ImageError: An image cannot be read, or is smaller than a crop.
    """

    def __init__(
        self,
        folder: Path,
        scale: int,
        channels: int,
        patch: int,
        sigma: float,
        held_out: int,
        skip_small: bool = False,
        eight_bit: float = 0.0,
    ) -> None:
        pictures = load_pictures(folder, channels)
        if skip_small:
            needed = patch * scale
            large = [item for item in pictures if min(item[1].shape[1:]) >= needed]
            pictures = large or pictures  # if none is left, the error below says why
        smallest_name, smallest = min(pictures, key=lambda item: min(item[1].shape[1:]))
        if min(smallest.shape[1:]) < patch * scale:
            height, width = smallest.shape[1:]
            small = sum(min(picture.shape[1:]) < patch * scale for _, picture in pictures)
            raise ImageError(
                f"{small} of {len(pictures)} images are too small to train with; {smallest_name} "
                f"has {width}x{height} pixels.",
                why=f"A crop of {patch}x{patch} pixels before up-scaling by {scale} needs "
                f"{patch * scale}x{patch * scale}.",
                fix="Choose a smaller --patch, or leave these images out with --skip-small.",
            )
        if len(pictures) <= held_out:
            raise InputError(
                f"{folder} holds {len(pictures)} images, and {held_out} are kept for validation.",
                fix="Add images or lower --held-out.",
            )
        by_size = sorted(pictures, key=lambda item: item[1].size, reverse=True)
        spaced = np.linspace(0, max(len(pictures) // 2, held_out) - 1, held_out).round()
        kept = {by_size[int(index)][0] for index in spaced}
        pairs = [degrade(picture, scale, name) for name, picture in pictures]
        self.validation = [pair for pair in pairs if pair.name in kept]
        self.training = [pair for pair in pairs if pair.name not in kept]
        self.scale, self.patch, self.sigma, self.eight_bit = scale, patch, sigma, eight_bit
        area = np.array([pair.degraded[0].size for pair in self.training], np.float64)
        self._share = np.cumsum(area / area.sum())

    def batch(self, generator: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Random crops: degraded ``[B, C, p, p]`` and clean ``[B, C, s*p, s*p]``, both in 0..1.

        They are flipped and turned at random. An image is drawn with a chance proportional to its
        area, so that every pixel counts the same.
        """
        inputs, targets = [], []
        for pick in generator.random(size):
            index = min(int(np.searchsorted(self._share, pick)), len(self.training) - 1)
            pair = self.training[index]
            _, height, width = pair.degraded.shape
            top = int(generator.integers(height - self.patch + 1))
            left = int(generator.integers(width - self.patch + 1))
            way = int(generator.integers(8))
            inputs.append(_turn(_cut(pair.degraded, top, left, self.patch, 1), way))
            targets.append(_turn(_cut(pair.clean, top, left, self.patch, self.scale), way))
        degraded, clean = _to_tensor(np.stack(inputs)), _to_tensor(np.stack(targets))
        if self.sigma:
            as_file = self.eight_bit > 0 and generator.random() < self.eight_bit
            degraded = add_noise(degraded, self.sigma, generator, as_file)
        return degraded, clean

    def validation_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The held-out images, degraded and clean, in 0..1; the noise never changes."""
        generator = np.random.default_rng(0)
        pairs = []
        for pair in self.validation:
            degraded, clean = _to_tensor(pair.degraded[None]), _to_tensor(pair.clean[None])
            if self.sigma:
                degraded = add_noise(degraded, self.sigma, generator)
            pairs.append((degraded, clean))
        return pairs


def _cut(picture: _Picture, top: int, left: int, patch: int, scale: int) -> _Picture:
    side = patch * scale
    return picture[:, top * scale : top * scale + side, left * scale : left * scale + side]


def _turn(crop: _Picture, way: int) -> _Picture:
    """One of the eight symmetries of the square."""
    turned = np.rot90(crop, way % 4, (1, 2))
    return turned[:, :, ::-1] if way >= 4 else turned


def _to_tensor(pictures: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255
