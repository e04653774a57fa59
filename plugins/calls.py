"""The operator calls of the presets: what kernels are compiled, costed and measured for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Call", "InputShapes", "shifted_window"]

InputShapes = Callable[[tuple[int, int, int], int, Mapping[str, int]], list[tuple[int, ...]]]
"""Shapes of an operator's tensors for images ``(B, H, W)`` of C channels, and its attributes by name."""


@dataclass(frozen=True)
class Call:
    """One operator as one preset calls it in every shifted layer.

    Attributes:
        label: The preset, in words.
        operator: Torch name of the operator.
        attributes: Its integer arguments by name.
        channels: Channels C of the image.
        input_shapes: Makes the shapes of its tensors.
        integer_inputs: Positions of int32 tensors among the inputs.
    """

    label: str
    operator: str
    attributes: Mapping[str, int]
    channels: int
    input_shapes: InputShapes
    integer_inputs: tuple[int, ...] = ()

    def shapes(self, batch: int, height: int, width: int) -> list[tuple[int, ...]]:
        """Shapes of the tensors for a batch of ``height x width`` images, multiples of the window."""
        return self.input_shapes((batch, height, width), self.channels, self.attributes)


def shifted_window(window_size: int, **others: int) -> dict[str, int]:
    """Attributes of a layer shifted by half a window."""
    return {"window_size": window_size, "shift_size": window_size // 2, **others}
