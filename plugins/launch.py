"""What starting a kernel takes: constants, warps, grid. One description for PyTorch and for TensorRT.

Every ``kernel.py`` has a function ``launch`` that checks the shapes and answers with a `Launch`. Arguments of every
kernel, in order: input pointers, height and width as int32, the output pointer, the scratch pointer (float32) where
the kernel has one, constants. A table of position biases comes as it is or in row form (`bias_rows`), told by its rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .bias_rows import rows_shape

__all__ = [
    "ITEM_BYTES",
    "MAX_HEAD_WIDTH",
    "MAX_PIXELS",
    "MAX_SHARED_BYTES",
    "OPT_IN_SHARED_BYTES",
    "UNKNOWN",
    "WIDE_HEAD",
    "Launch",
    "NoKernel",
    "Shape",
    "attention_launch",
    "attention_output_shape",
    "block_size",
    "check_biases",
    "check_image",
    "counted_sides",
    "filling",
    "pick",
    "programs_of",
]

Shape = Sequence[int]
"""Sizes of a tensor; UNKNOWN where a size is not known before the engine runs (only B, H and W may be)."""

UNKNOWN = -1

MAX_PIXELS = 2**31 - 1
"""Pixels of a batch of images: they are counted in int32. Addresses are int64."""

WIDE_HEAD = 32
"""Width of a head beyond which float32 has small blocks in all tactics, and no half block in an engine."""

MAX_HEAD_WIDTH = 64
"""Width of a head up to which the blocks of the attention kernels fit into registers and shared memory."""

MAX_SHARED_BYTES = 48 * 1024
"""Shared memory a kernel may use: the most that a launch without an opt-in gets (CUDA programming guide)."""

OPT_IN_SHARED_BYTES = 99 * 1024
"""The most that a block gets with one, on the GPU since Ampere that has least (8.6, 8.9 and 12.0)."""

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Tensor types of the kernels, and the bytes an element takes."""


class NoKernel(ValueError):
    """No kernel was made for these shapes, types or attributes; the message holds the numbers."""


@dataclass(frozen=True)
class Launch:
    """How one kernel is started.

    Attributes:
        kernel: The Triton function.
        constants: Its constants by name.
        window_size: w; every window of the image gets `programs` programs.
        programs: Programs (thread blocks) a window.
        num_warps: Warps a program.
        num_stages: Copies in flight of what a loop loads; 1 keeps shared memory small.
        key_width: d, which the row form of the position biases is scaled for; 0 where there are no biases.
        scratch: float32 numbers of scratch memory a window, not initialised; 0 where the kernel takes no scratch.
        unit: Neighbouring windows of one image that share their programs.
    """

    kernel: Any
    constants: Mapping[str, float]
    window_size: int
    programs: int
    num_warps: int
    num_stages: int = 1
    key_width: int = 0
    scratch: int = 0
    unit: int = 1

    def windows(self, batch: Any, height: Any, width: Any) -> Any:
        """Windows of an image ``[B, H, W, ...]``, for numbers as for TensorRT's shape expressions."""
        return batch * (height // self.window_size) * (width // self.window_size)

    def grid(self, batch: Any, height: Any, width: Any) -> Any:
        """Programs of an image ``[B, H, W, ...]``, for numbers as for TensorRT's shape expressions."""
        return programs_of(self, batch, height, width)

    def sides(self, batch: Any, height: Any, width: Any) -> tuple[Any, Any]:
        """Height and width that the kernel is given for an image ``[B, H, W, ...]``, see `counted_sides`."""
        return counted_sides(self.window_size, batch, height, width)[1:]


class Started(Protocol):
    """What the number of programs depends on, see `Launch`: of a kernel that a plan carries, too."""

    @property
    def window_size(self) -> int:
        """Side w of a window."""

    @property
    def programs(self) -> int:
        """Programs of a unit."""

    @property
    def unit(self) -> int:
        """Windows that share them."""


def counted_sides(window_size: int, batch: Any, height: Any, width: Any) -> tuple[Any, Any, Any]:
    """Images, rows and columns as a kernel counts them: token by token (w = 1) a batch is one tall image."""
    return (1, batch * height, width) if window_size == 1 else (batch, height, width)


def programs_of(kernel: Started, batch: Any, height: Any, width: Any) -> Any:
    """Programs of an image ``[B, H, W, ...]``, for numbers as for TensorRT's shape expressions."""
    images, rows, columns = counted_sides(kernel.window_size, batch, height, width)
    units = (rows // kernel.window_size) * (columns // kernel.window_size)
    if kernel.unit > 1:
        units = (units + (kernel.unit - 1)) // kernel.unit
    return units * images * kernel.programs


def block_size(size: int, smallest: int = 16) -> int:
    """The power of two that holds `size` lanes; tensor cores want 16 at least."""
    return max(smallest, 1 << (size - 1).bit_length())


def check_image(operator: str, image: Shape, window_size: int, shift_size: int, dtype: str) -> None:
    """Refuses (NoKernel) a type, a shift or known image sizes that the kernels were not made for."""
    if dtype not in ITEM_BYTES:
        raise NoKernel(f"{operator}: the kernel takes {', '.join(ITEM_BYTES)}, got {dtype}")
    if len(image) != 4 or image[3] < 1:
        raise NoKernel(f"{operator}: the image must be [B, H, W, C] with a known C, got {list(image)}")
    if window_size < 1 or not 0 <= shift_size < window_size:
        raise NoKernel(
            f"{operator}: shift_size must be in 0..window_size - 1, got window_size {window_size} "
            f"and shift_size {shift_size}"
        )
    for name, size in zip(("H", "W"), image[1:3], strict=True):
        if size != UNKNOWN and (size < window_size or size % window_size):
            raise NoKernel(f"{operator}: {name} must be a positive multiple of window_size {window_size}, got {size}")
    if UNKNOWN not in image[:3] and image[0] * image[1] * image[2] > MAX_PIXELS:
        raise NoKernel(
            f"{operator}: {image[0]} images of {image[1]}x{image[2]} have more than 2^31 - 1 "
            "pixels; process fewer at once"
        )


def check_biases(operator: str, biases: Shape, window_size: int, heads: int) -> bool:
    """Whether position biases of this shape are in row form; NoKernel where they are neither that nor a table."""
    table = (2 * window_size - 1) ** 2, heads
    if tuple(biases) not in (table, rows_shape(table, window_size)):
        raise NoKernel(f"{operator}: bias_table must be {list(table)}, got {list(biases)}")
    return len(biases) != len(table)


def pick(operator: str, tactics: Sequence[Any], tactic: int) -> Any:
    """Tactic number `tactic`, counted from 1 as TensorRT does; ValueError where there are fewer."""
    if not 1 <= tactic <= len(tactics):
        raise ValueError(f"{operator}: tactic must be in 1..{len(tactics)}, got {tactic}")
    return tactics[tactic - 1]


def filling(launches: Iterable[Launch], batch: int, height: int, width: int, multiprocessors: int) -> Launch:
    """Of an operator's tactics in order, the first that gives every multiprocessor a program for an image.

    Where none does, the first of those that start most warps: a program more or a warp more is one that else waits.
    """
    most: Launch | None = None
    for launch in launches:
        programs = launch.grid(batch, height, width)
        if programs >= multiprocessors:
            return launch
        if most is None or programs * launch.num_warps > most.grid(batch, height, width) * most.num_warps:
            most = launch
    assert most is not None  # every operator has a tactic
    return most


def attention_launch(
    operator: str,
    kernel: Any,
    shapes: Sequence[Shape],
    attributes: Mapping[str, int],
    dtype: str,
    blocks: tuple[int, int, int],
) -> Launch:
    """How to start one of the two attention kernels.

    Args:
        operator: Name for messages.
        kernel: The Triton function.
        shapes: Shapes of qkv ``[B, H, W, 3C]``, possibly others, and bias_table ``[(2w-1)^2, heads]`` or its row form.
        attributes: window_size, shift_size, num_heads.
        dtype: Tensor type.
        blocks: Queries and keys of a block, and warps.

    Raises:
        NoKernel: The kernel cannot be started for these shapes.
    """
    image, table = tuple(shapes[0]), tuple(shapes[-1])
    window_size, shift_size = attributes["window_size"], attributes["shift_size"]
    heads = attributes["num_heads"]
    check_image(operator, image, window_size, shift_size, dtype)
    if heads < 1 or image[3] < 1 or image[3] % (3 * heads):
        raise NoKernel(f"{operator}: {image[3]} channels do not divide into 3 x {heads} heads")
    in_rows = check_biases(operator, table, window_size, heads)
    head_width = image[3] // (3 * heads)
    if head_width > MAX_HEAD_WIDTH:
        raise NoKernel(f"{operator}: the kernel takes heads up to {MAX_HEAD_WIDTH} wide, got {head_width}")
    tokens = window_size * window_size
    queries, keys, num_warps = blocks
    if dtype == "float32" and head_width > WIDE_HEAD:
        queries, keys, num_warps = 64, 16, 4  # more would not fit into registers and shared memory
    queries, keys = min(queries, block_size(tokens)), min(keys, block_size(tokens))
    return Launch(
        kernel=kernel,
        constants={
            "window_size": window_size,
            "shift_size": shift_size,
            "heads": heads,
            "head_width": head_width,
            "lanes": block_size(head_width),
            "in_rows": in_rows,
            "queries": queries,
            "keys": keys,
        },
        window_size=window_size,
        programs=heads * -(-tokens // queries),
        num_warps=num_warps,
        key_width=head_width,
    )


def attention_output_shape(shapes: Sequence[Sequence[Any]], attributes: Mapping[str, int]) -> tuple[Any, ...]:
    """Shape of the output of an attention kernel, of numbers or of TensorRT's shape expressions."""
    del attributes
    batch, height, width, triple = shapes[0]
    return batch, height, width, triple // 3
