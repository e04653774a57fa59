"""What a file is by its first bytes, where it is a sound one of a kind that is not read."""

from __future__ import annotations

__all__ = ["foreign_format", "is_avif", "suffix_of"]

# Where the bytes stand, the bytes, and what the file is then.
_SIGNATURES = (
    (0, b"\xff\x0a", "a JPEG XL file"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (0, b"#?RADIANCE", "a Radiance HDR file"),
    (0, b"DDS ", "a DDS file"),
    (0, b"qoif", "a QOI file"),
    (0, b"\0\0\1\0", "an icon file"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"II\xbc\x01", "a JPEG XR file"),
    (0, b"FUJIFILM", "a camera's raw file"),
    (0, b"IIU\0", "a camera's raw file"),
    (0, b"IIRO", "a camera's raw file"),
    (0, b"SIMPLE  =", "a FITS file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (128, b"DICM", "a DICOM file"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"<!DOCTYPE html", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
)
# Major brands of ISO base media files (ISO/IEC 14496-12, the box "ftyp").
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}


def is_avif(data: bytes) -> bool:
    """Whether it is an AV1 image file, still or moving, by its brand or the compatible ones."""
    return data[4:8] == b"ftyp" and (data[8:12] in _AVIF or (data[8:12] in (b"mif1", b"msf1") and b"avif" in data[:64]))


_WRITTEN = (
    (0, b"\x89PNG", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"II*\0", ".tif"),
    (0, b"MM\0*", ".tif"),
    (0, b"II+\0", ".tif"),
    (0, b"MM\0+", ".tif"),
    (8, b"WEBP", ".webp"),
    (0, b"BM", ".bmp"),
)


def suffix_of(data: bytes) -> str:
    """The suffix of a file's format; ".png" of one that is only read, and where its first bytes say nothing."""
    return next((suffix for at, start, suffix in _WRITTEN if data[at : at + len(start)] == start), ".png")


def foreign_format(data: bytes) -> str | None:
    """What a file is that cannot be read ("a HEIC file"); None where its first bytes say nothing.

    Args:
        data: The file, or its first 256 bytes.
    """
    for start, signature, name in _SIGNATURES:
        if data[start : start + len(signature)] == signature:
            return name
    if data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3] in b"\n\r\t #":
        return "a portable anymap (PBM, PGM, PPM or PAM)"
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        return "an AVIF file" if is_avif(data) else "a HEIC file" if brand in _BRANDS else "a video or raw file"
    return None
