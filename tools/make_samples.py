"""Makes the packaged sample images again: crops of the pictures in scikit-image's own wheel.

Run from anywhere, with scikit-image and imagecodecs installed: ``python tools/make_samples.py``.
"""

from __future__ import annotations

from pathlib import Path

import imagecodecs
from skimage import data

FOLDER = Path(__file__).resolve().parents[1] / "parity" / "samples"

# name: (top, left, height, width); one is odd-sized, so that padding is always exercised
CROPS = {
    "astronaut": (10, 130, 192, 192),
    "chelsea": (60, 120, 160, 256),
    "coffee": (190, 300, 192, 256),
    "rocket": (286, 215, 141, 187),
}


def main() -> None:
    """Write one PNG per crop and say how large it became."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (top, left, height, width) in CROPS.items():
        picture = getattr(data, name)()
        crop = picture[top : top + height, left : left + width, :3]
        if crop.shape != (height, width, 3):
            raise ValueError(f"{name}: the crop leaves the {picture.shape} picture")
        file = FOLDER / f"{name}.png"
        file.write_bytes(imagecodecs.png_encode(crop.copy(), level=9))
        print(f"{file.name}: {width}x{height}, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
