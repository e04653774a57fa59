"""Which encoder writes a video, with which quality and which pixel format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from .colour import RGB, Colour
from .files import PIPE
from .frames import format_depth, like
from .reader import load_av

if TYPE_CHECKING:
    from av.video.format import VideoFormat

__all__ = ["RAW", "VideoOptions", "Written", "check_options", "is_uncoded", "quality_options", "what_is_written"]

QUALITY = {"libx264": 16, "libx264rgb": 16, "libx265": 18, "libsvtav1": 22, "libvpx-vp9": 20}
"""Encoders that take a constant rate factor, and the one taken unless another is asked for: docs/video.md says what is
lost by it."""

RAW = "rawvideo"
Y4M = {
    f"yuv{share}p{depth}" for share in ("420", "422", "444") for depth in ("", "9le", "10le", "12le", "14le", "16le")
}
Y4M |= {"yuv411p", "gray", "gray9le", "gray10le", "gray12le", "gray16le"}
"""What the format of MJPEG tools holds."""


@dataclass(frozen=True)
class VideoOptions:
    """How a video is written.

    Attributes:
        codec: Name of FFmpeg's encoder; None for libx264, for libx265 above 8 bits, and in WebM for libvpx-vp9 and
            libsvtav1.
        crf: Its constant rate factor, less is better; None for the encoder's own in `QUALITY`.
        drop: Whether sound and subtitles that the output's format cannot hold are left out, instead of refused.
        raw: Whether a pipe gets samples alone, instead of YUV4MPEG2.
    """

    codec: str | None = None
    crf: float | None = None
    drop: bool = False
    raw: bool = False


def check_options(options: VideoOptions, target: str | Path) -> None:
    """Says before any work what cannot be.

    Raises:
        InputError: No such encoder here, one without a constant rate factor, or an option that has nothing to do.
    """
    av = load_av()
    uncoded = is_uncoded(target)
    if uncoded and (options.codec is not None or options.crf is not None):
        raise InputError("Frames go uncoded into a pipe or a .y4m file.", fix="Leave out --codec and --crf.")
    if options.raw and str(target) != PIPE:
        raise InputError("--raw is for frames to standard output.", fix="Give -o -, or leave out --raw.")
    if options.codec is None:
        name = "libx264"
    else:
        try:
            found = av.Codec(options.codec, "w")
        except (av.FFmpegError, ValueError) as error:
            raise InputError(
                f"There is no encoder {options.codec!r} in this FFmpeg.", fix=f"Take one of {_choice()}."
            ) from error
        if found.type != "video":
            raise InputError(f"{options.codec!r} encodes {found.type}.", fix=f"Take one of {_choice()}.")
        name = found.name
    if options.crf is not None:
        if name not in QUALITY:
            raise InputError(
                f"The encoder {name} takes no constant rate factor.",
                fix=f"Leave out --crf, or take {_choice(QUALITY)}.",
            )
        if not 0 <= options.crf <= 63:
            raise InputError(
                f"A constant rate factor of {options.crf:g} cannot be.", fix="Give 0 to 51 (AV1, VP9: 63)."
            )


def _choice(names: object = None) -> str:
    av = load_av()
    common = (*QUALITY, "ffv1", "prores_ks", "dnxhd", "h264_nvenc", "hevc_nvenc", "av1_nvenc")
    return ", ".join(name for name in common if name in av.codecs_available and (names is None or name in QUALITY))


def is_uncoded(target: str | Path) -> bool:
    """Whether frames go out as they are."""
    return str(target) == PIPE or Path(target).suffix.lower() == ".y4m"


@dataclass(frozen=True)
class Written:
    """What becomes of the frames.

    Attributes:
        encoder: FFmpeg's name of the encoder; `RAW` for none.
        pixel_format: FFmpeg's name of the format that frames are made in, a planar one.
        own_format: That of the format the encoder takes, which holds the same.
        size: (columns, rows): even ones where chroma is subsampled and a codec wants it.
        colour: What the samples mean.
    """

    encoder: str
    pixel_format: str
    own_format: str
    size: tuple[int, int]
    colour: Colour


def what_is_written(
    target: str | Path, options: VideoOptions, kind: VideoFormat, colour: Colour, size: tuple[int, int]
) -> Written:
    """Chooses the encoder, and of what it takes the nearest to the source.

    Args:
        target: The output.
        options: What was asked for.
        kind: The source's pixel format.
        colour: The source's colour.
        size: (columns, rows) of the restored frames.

    Raises:
        InputError: The encoder takes nothing that frames are made in.
    """
    if is_uncoded(target):
        encoder = RAW
    elif options.codec is not None:
        encoder = load_av().Codec(options.codec, "w").name
    elif Path(target).suffix.lower() == ".webm":
        encoder = "libvpx-vp9" if colour.depth == 8 else "libsvtav1"
    else:
        encoder = "libx264" if colour.depth == 8 else "libx265"
    chosen, own = _pixel_formats(encoder, kind, options.raw)
    if chosen.startswith("gbrp"):
        colour = replace(colour, matrix=RGB, full=True)
    elif colour.matrix == RGB:
        colour = replace(colour, matrix=1, full=False)
    if encoder != RAW and chosen.startswith(("yuv420", "yuv422")):
        size = size[0] + size[0] % 2, size[1] + size[1] % 2
    return Written(encoder, chosen, own, size, replace(colour, depth=format_depth(chosen)))


def _pixel_formats(encoder: str, kind: VideoFormat, raw: bool) -> tuple[str, str]:
    """The planar format nearest to that of the source, and what the encoder calls it: the same where it can be."""
    av = load_av()
    wanted = like(kind)
    if encoder == RAW:
        taken = {name: name for name in ((wanted,) if raw else Y4M)}
    else:
        taken = {}
        for each in av.Codec(encoder, "w").video_formats or ():
            if each.components and not any(part.is_alpha or part.bits > 16 for part in each.components):
                planar = like(each)  # NV12, P010 and packed RGB are made from planes by PyAV
                taken[planar] = planar if planar == each.name else taken.get(planar, each.name)
    if not taken:
        raise InputError(f"The encoder {encoder} takes no format of pixels known here.", fix=f"Take {_choice()}.")
    if wanted not in taken:
        from av.codec import find_best_pix_fmt_of_list

        best = find_best_pix_fmt_of_list(sorted(taken), wanted)[0]
        wanted = min(taken) if best is None else best.name
    return wanted, taken[wanted]


def quality_options(encoder: str, options: VideoOptions) -> dict[str, str]:
    """Options of the encoder for its quality, and for its silence."""
    found = {}
    if encoder in QUALITY:
        found["crf"] = f"{options.crf if options.crf is not None else QUALITY[encoder]:g}"
    if encoder == "libx265":
        found["x265-params"] = "log-level=error"
    return found
