"""Argument checks shared by the operators: every refusal is a ValueError with the numbers in it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_heads", "check_shape", "check_table", "check_tensors", "check_window"]

SUPPORTED_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def _concrete(*sizes: object) -> bool:
    """True when all sizes are plain numbers; symbolic sizes (during export) cannot be compared."""
    return all(isinstance(size, int) for size in sizes)


def check_window(operator: str, image: Tensor, window_size: int, shift_size: int) -> None:
    """The image is ``[B, H, W, C]`` with H and W multiples of the window, and ``0 <= s < w``."""
    if image.dim() != 4:
        raise ValueError(
            f"{operator}: the image must be [B, H, W, C], got {image.dim()} dimensions {tuple(image.shape)}"
        )
    if window_size < 1:
        raise ValueError(f"{operator}: window_size must be at least 1, got {window_size}")
    if not 0 <= shift_size < window_size:
        raise ValueError(f"{operator}: shift_size must be in 0..{window_size - 1} (window_size - 1), got {shift_size}")
    _, height, width, channels = image.shape
    if channels == 0:
        raise ValueError(f"{operator}: the image has no channels {tuple(image.shape)}")
    if _concrete(height, width) and (height < 1 or width < 1 or height % window_size or width % window_size):
        raise ValueError(
            f"{operator}: H and W must be positive multiples of window_size {window_size}, "
            f"got {height}x{width}; pad the image first"
        )


def check_tensors(operator: str, **tensors: Tensor) -> None:
    """All tensors share one floating type and one device."""
    first = next(iter(tensors.values()))
    if first.dtype not in SUPPORTED_TYPES:
        raise ValueError(f"{operator}: tensors must be float32, float16 or bfloat16, got {first.dtype}")
    for what, attribute in (("type", "dtype"), ("device", "device")):
        found = {name: getattr(tensor, attribute) for name, tensor in tensors.items()}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} {value}" for name, value in found.items())
            raise ValueError(f"{operator}: tensors must share one {what}, got {listed}")


def check_shape(operator: str, name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    """The tensor has exactly the expected shape (symbolic sizes are let pass)."""
    shape = tuple(tensor.shape)
    agree = len(shape) == len(expected) and all(a == b for a, b in zip(shape, expected, strict=True) if _concrete(a, b))
    if not agree:
        raise ValueError(f"{operator}: {name} must have shape {expected}, got {shape}")


def check_table(operator: str, table: Tensor, window_size: int, heads: int) -> None:
    """The bias table is ``[(2w-1)^2, heads]``."""
    check_shape(operator, "bias_table", table, ((2 * window_size - 1) ** 2, heads))


def check_heads(operator: str, channels: int, num_heads: int, parts: int = 1) -> None:
    """`channels` splits into `parts` equal parts of `num_heads` equal heads."""
    if num_heads < 1:
        raise ValueError(f"{operator}: num_heads must be at least 1, got {num_heads}")
    if channels < 1 or channels % (parts * num_heads):
        need = f"{parts} x {num_heads} heads" if parts > 1 else f"{num_heads} heads"
        raise ValueError(f"{operator}: {channels} channels do not divide into {need}")
