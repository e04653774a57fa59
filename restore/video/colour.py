"""Y'CbCr code values to R'G'B' and back, by what a stream says of its colours; in float32, so that little is rounded.

libswscale errs there by up to one code value of 8 bits, of 10 bits in limited range, too (benchmarks/video.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import Unsupported

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["FULL", "LIMITED", "MIDDLE", "RGB", "UNSPECIFIED", "Colour", "colour_of", "from_rgb", "to_rgb"]

MATRICES = {
    1: (0.2126, 0.0722),  # ITU-R BT.709
    4: (0.30, 0.11),  # FCC 73.682
    5: (0.299, 0.114),  # ITU-R BT.601, 625 lines
    6: (0.299, 0.114),  # ITU-R BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # ITU-R BT.2020, non-constant luminance
}
"""Kr and Kb by MatrixCoefficients of ITU-T H.273, table 4, which FFmpeg's AVColorSpace numbers are."""

RGB, UNSPECIFIED = 0, 2
LIMITED, FULL = 1, 2
"""FFmpeg's AVColorRange."""

MIDDLE = 32768
"""Code of no colour in the chroma planes, of 16 bits."""


@dataclass(frozen=True)
class Colour:
    """What the samples of a stream mean; numbers of ITU-T H.273.

    Attributes:
        matrix: MatrixCoefficients, the assumed ones where the stream says nothing; 0 for RGB.
        full: Whether codes use the full range, as in JPEG, or leave head and foot room.
        depth: Bits of a sample, 8 to 16.
        primaries: ColourPrimaries, as the stream says; nothing is computed from them.
        transfer: TransferCharacteristics, likewise.
    """

    matrix: int
    full: bool
    depth: int
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @property
    def scales(self) -> tuple[float, float, float]:
        """Code of black, and codes from black to white and from the least to the greatest chroma, of 16 bits."""
        if self.full:
            span = 65536.0 - 2 ** (16 - self.depth)
            return 0.0, span, span
        return 16 * 256.0, 219 * 256.0, 224 * 256.0


def colour_of(frame: VideoFrame) -> Colour:
    """The colour of a decoded frame.

    Where the matrix is unspecified it is that of BT.709 for 1280 columns or 577 rows and more, else of BT.601, as
    players guess.

    Raises:
        Unsupported: A matrix that is no linear one of R'G'B' (constant luminance, ICtCp, YCgCo).
    """
    kind = frame.format
    matrix = RGB if kind.is_rgb or kind.has_palette else int(frame.colorspace)
    if matrix in (UNSPECIFIED, RGB, 3) and not (kind.is_rgb or kind.has_palette):
        matrix = 1 if frame.width >= 1280 or frame.height > 576 else 6
    if matrix not in MATRICES and matrix != RGB:
        raise Unsupported(
            f"The video's colours have matrix {matrix} of ITU-T H.273, which is not computed here.",
            fix="Convert it first, for instance with ffmpeg's filter scale=out_color_matrix=bt2020nc.",
        )
    told = int(frame.color_range)
    full = told == FULL or kind.name.startswith("yuvj") or matrix == RGB
    full |= told != LIMITED and kind.name.startswith("gray")
    depth = min(max(kind.components[0].bits, 8), 16)
    return Colour(matrix, full, depth, int(frame.color_primaries), int(frame.color_trc))


def to_rgb(codes: NDArray[np.uint16], colour: Colour) -> NDArray[np.float32]:
    """R'G'B' of Y'CbCr, clipped to 0..1.

    Args:
        codes: ``[3, H, W]``: Y', Cb, Cr; codes of `Colour.depth` bits times 2^(16 - depth).
        colour: What they mean. Its matrix is not that of RGB.

    Returns:
        float32 ``[3, H, W]``. Equations of ITU-T H.273, clause 8.3.
    """
    black, luma_span, chroma_span = colour.scales
    kr, kb = MATRICES[colour.matrix]
    luma = (codes[0].astype(np.float32) - np.float32(black)) / np.float32(luma_span)
    blue, red = ((plane.astype(np.float32) - MIDDLE) / np.float32(chroma_span) for plane in codes[1:])
    rgb = np.empty(codes.shape, np.float32)
    rgb[0] = luma + np.float32(2 * (1 - kr)) * red
    rgb[2] = luma + np.float32(2 * (1 - kb)) * blue
    green = 1 - kr - kb
    rgb[1] = luma - np.float32(2 * (1 - kr) * kr / green) * red - np.float32(2 * (1 - kb) * kb / green) * blue
    return np.clip(rgb, 0, 1, out=rgb)


def from_rgb(rgb: NDArray[np.float32], colour: Colour) -> NDArray[np.uint16]:
    """The way back from `to_rgb`.

    Args:
        rgb: ``[3, H, W]`` in 0..1.
        colour: What the codes shall mean. Its matrix is not that of RGB.

    Returns:
        ``[3, H, W]`` Y', Cb, Cr, codes of 16 bits: not rounded to the depth yet.
    """
    black, luma_span, chroma_span = colour.scales
    kr, kb = MATRICES[colour.matrix]
    luma = np.float32(kr) * rgb[0] + np.float32(1 - kr - kb) * rgb[1] + np.float32(kb) * rgb[2]
    codes = np.empty(rgb.shape, np.uint16)
    codes[0] = _rounded(luma * np.float32(luma_span) + np.float32(black))
    codes[1] = _rounded((rgb[2] - luma) * np.float32(chroma_span / (2 * (1 - kb))) + MIDDLE)
    codes[2] = _rounded((rgb[0] - luma) * np.float32(chroma_span / (2 * (1 - kr))) + MIDDLE)
    return codes


def _rounded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.clip(np.rint(values, out=values), 0, 65535, out=values).astype(np.uint16)
