"""Pictures: files in and out, resizing, packaged samples."""

from .files import IMAGE_SUFFIXES, Image, list_images, read_image, sample_images, write_image
from .resizing import pad_to_multiple, resize_bicubic

__all__ = [
    "IMAGE_SUFFIXES",
    "Image",
    "list_images",
    "pad_to_multiple",
    "read_image",
    "resize_bicubic",
    "sample_images",
    "write_image",
]
