"""Measures a model against ground truth: Y-PSNR of super-resolution, RGB PSNR of denoising.

Usage (from the root of the repository, with the package installed)::

    python tools/evaluate.py agileir_tiny_x2 --data DATA/test/Set5
    python tools/evaluate.py semanir_tiny_dn25 --data DATA/real/CBSD68

For super-resolution the folder holds ``HR`` and ``LR_bicubic/X2``, ``X3``, ``X4`` with the same
file names (an ``x2`` before the suffix is allowed), and the figure is the literature's: luma of
8-bit-rounded images without a border of `scale` pixels. For denoising the folder holds clean
images; noise is added here, from the same seed for every image, and the figure is RGB PSNR of the
output clamped to 0..1. The noisy input is neither clamped nor rounded unless ``--eight-bit`` is
given.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from agileir_export.errors import AgileIRError, ImageError, InputError
from agileir_export.images.files import list_images, read_image
from agileir_export.models import Restorer
from agileir_export.models.checkpoint import load_model
from agileir_export.parity.metrics import psnr, psnr_y

sys.path.insert(0, str(Path(__file__).parent))
from training_data import add_noise

_Array = npt.NDArray[np.float32]


def super_resolution_pairs(folder: Path, scale: int) -> Iterator[tuple[str, _Array, _Array]]:
    """Name, low-resolution ``[3, H, W]`` and true ``[3, s*H, s*W]`` of every image.

    Raises:
        InputError: The folder has no HR or LR_bicubic/Xs folder, or an image has no partner.
        ImageError: The sizes of a pair do not fit.
    """
    small = folder / "LR_bicubic" / f"X{scale}"
    for needed in (folder / "HR", small):
        if not needed.is_dir():
            raise InputError(
                f"There is no folder {needed}.",
                fix=f"Name a folder that holds HR and LR_bicubic/X{scale}.",
            )
    for file in list_images(folder / "HR"):
        names = (file.stem, f"{file.stem}x{scale}")
        partners = [f for f in list_images(small) if f.stem in names]
        if len(partners) != 1:
            raise InputError(f"{small} holds {len(partners)} images named {' or '.join(names)}.")
        truth, degraded = _colour(file), _colour(partners[0])
        height, width = (size * scale for size in degraded.shape[1:])
        if not (0 <= truth.shape[1] - height < scale and 0 <= truth.shape[2] - width < scale):
            raise ImageError(
                f"{partners[0]} has {degraded.shape[2]}x{degraded.shape[1]} pixels, {file} "
                f"{truth.shape[2]}x{truth.shape[1]}: not a pair at scale {scale}."
            )
        yield file.stem, degraded, truth[:, :height, :width]


def denoising_pairs(
    folder: Path, sigma: float, seed: int, eight_bit: bool, grey: bool
) -> Iterator[tuple[str, _Array, _Array]]:
    """Name, noisy and clean ``[C, H, W]`` of every image of a folder."""
    for file in list_images(folder):
        clean = _colour(file)
        if grey:
            clean = clean.mean(0, keepdims=True)
        generator = np.random.default_rng(seed)
        noisy = add_noise(torch.from_numpy(clean), sigma, generator, eight_bit)
        yield file.stem, noisy.numpy(), clean


def _colour(file: Path) -> _Array:
    pixels = read_image(file).pixels
    return np.array(np.broadcast_to(pixels, (3, *pixels.shape[1:])), np.float32)


@torch.inference_mode()
def restore(model: Restorer, degraded: _Array) -> _Array:
    """One image ``[C, H, W]`` in 0..1 through the network, clamped to 0..1."""
    output: _Array = model(torch.from_numpy(degraded)[None])[0].clamp(0, 1).numpy()
    return output


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line per image and the mean; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measures a model against ground truth.")
    add = parser.add_argument
    add("model", help="packaged model or file of weights")
    add("--data", required=True, type=Path, help="benchmark folder")
    add("--sigma", type=float, default=25.0, help="noise in 8-bit steps (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the noise (%(default)s)")
    add("--eight-bit", action="store_true", help="round and clamp the noisy input to 8 bits")
    add("--threads", type=int, help="CPU threads")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        model = load_model(options.model).eval()
        spec = model.spec
        denoising = spec.task == "denoising"
        if denoising:
            pairs = denoising_pairs(options.data, options.sigma, options.seed, options.eight_bit, spec.channels == 1)
        elif spec.task == "super-resolution":
            pairs = super_resolution_pairs(options.data, spec.scale)
        else:
            raise InputError(f"There is no protocol here for the task {spec.task!r}.")
        scores, inputs = [], []
        started = time.perf_counter()
        for name, degraded, truth in pairs:
            restored = restore(model, degraded)
            if denoising:
                scores.append(psnr(restored, truth))
                inputs.append(-10 * np.log10(np.mean((degraded - truth) ** 2)))
            else:
                scores.append(psnr_y(restored, truth, spec.scale))
            print(f"{name:16s} {scores[-1]:6.2f} dB", flush=True)
        unit = "RGB PSNR" if denoising else "Y-PSNR"
        noisy = f", noisy input {np.mean(inputs):.2f} dB" if denoising else ""
        seconds = time.perf_counter() - started
        print(f"{'mean':16s} {np.mean(scores):6.2f} dB {unit}{noisy} ({seconds:.1f} s)")
    except AgileIRError as error:
        print(f"Error [{error.code}]: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
