"""Static metadata of HDR video: read off a frame, told to encoders that write it into their stream."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .frames import side_data

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["hdr_options"]

MASTERING = struct.Struct("=20i2i")
"""FFmpeg's AVMasteringDisplayMetadata: ten rationals (x and y of red, green, blue and white; least and greatest
luminance in candela a square metre), and whether primaries and luminance are there."""

LIGHT = struct.Struct("=2I")
"""FFmpeg's AVContentLightMetadata: MaxCLL and MaxFALL in candela a square metre."""


def hdr_options(frame: VideoFrame, codec: str) -> dict[str, str]:
    """Options of an encoder by which a stream tells mastering display (SMPTE ST 2086) and light level (CTA-861.3).

    Args:
        frame: The first one.
        codec: Name of the encoder.

    Returns:
        Empty where the frame says nothing, or the encoder takes nothing.
    """
    said, parts = side_data(frame), []
    if codec not in ("libx264", "libx265", "libsvtav1"):
        return {}
    if "MASTERING_DISPLAY_METADATA" in said:
        numbers = MASTERING.unpack_from(said["MASTERING_DISPLAY_METADATA"])
        if numbers[20] and numbers[21]:
            values = [
                top / bottom if bottom else 0.0 for top, bottom in zip(numbers[:20:2], numbers[1:20:2], strict=True)
            ]
            parts.append(_mastering(values, codec))
    if "CONTENT_LIGHT_LEVEL" in said:
        name = {"libx264": "cll", "libx265": "max-cll"}.get(codec, "content-light")
        parts.append(f"{name}=%d,%d" % LIGHT.unpack_from(said["CONTENT_LIGHT_LEVEL"]))
    option = {"libx264": "x264-params", "libx265": "x265-params"}.get(codec, "svtav1-params")
    return {option: ":".join(parts)} if parts else {}


def _mastering(values: list[float], codec: str) -> str:
    """As the encoder spells it: x264 and x265 in steps of 0.00002 and of 0.0001 candela, SVT-AV1 in plain numbers."""
    red, green, blue, white = (values[place : place + 2] for place in (0, 2, 4, 6))
    least, greatest = values[8:]
    whole = codec != "libsvtav1"
    spelt = [
        f"{letter}(" + ",".join(f"{round(value * 50000)}" if whole else f"{value:.5f}" for value in point) + ")"
        for letter, point in (("G", green), ("B", blue), ("R", red), ("WP", white))
    ]
    level = ",".join(f"{round(value * 10000)}" if whole else f"{value:.4f}" for value in (greatest, least))
    name = "master-display" if codec == "libx265" else "mastering-display"
    return f"{name}={''.join(spelt)}L({level})"
