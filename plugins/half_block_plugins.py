"""Half blocks as plugins of engines: names, inputs and attributes, and which of `half_blocks`' kernels each is.

No exported file has nodes of these names: `block_fusion` puts them into a file just before it is built. To read an
entry takes nothing heavy; to ask for its kernels, Triton and PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from .launch import Launch, Shape

__all__ = ["HALF_BLOCKS", "NORM", "NORM_PROJECTION", "TOKEN_TAIL", "WINDOW_ATTENTION", "HalfBlock", "epsilon_bits"]

Numbers = Mapping[str, int]

FEATURES = ("image", "attended")
"""Names of inputs that are features ``[B, H, W, C]``."""


def epsilon_bits(epsilon: float) -> int:
    """The bits of an epsilon in float32: a plugin's attributes are integers here."""
    return int(np.float32(epsilon).view(np.int32))


def epsilon_of(attributes: Numbers) -> float:
    """Inverse of `epsilon_bits`."""
    return float(np.int32(attributes["epsilon_bits"]).view(np.float32))


@dataclass(frozen=True)
class HalfBlock:
    """One half block; it is its own `Plugin`, and has what a ``kernel.py`` has.

    Attributes:
        name: Name of the plugin, and op type of its nodes.
        inputs: Features ``[B, H, W, C]``, then packed weights: the kernel's arguments in order.
        attributes: Integer attributes.
        plan: How the kernel is started, and weights without memory packed for it: of channels, shapes of the weights,
            attributes and type.
        output: The output, features again.
        integer_tensors: None of them is int32.
    """

    name: str
    inputs: tuple[str, ...]
    attributes: tuple[str, ...]
    plan: Callable[[int, Sequence[Shape], Numbers, str], tuple[Launch, Sequence[Tensor]]]
    output: str = "y"
    integer_tensors: tuple[str, ...] = ()

    OUTPUT_TYPE: ClassVar[str | None] = None
    SCRATCH: ClassVar[bool] = False
    TACTICS: ClassVar[tuple[int, ...]] = (1,)

    def kernels(self) -> Any:
        """Itself."""
        return self

    def output_shape(self, shapes: Sequence[Sequence[Any]], attributes: Numbers) -> tuple[Any, ...]:
        """Shape of the output, of numbers or of TensorRT's shape expressions."""
        *image, channels = shapes[0]
        return *image, attributes.get("out_channels", channels)

    def launch(self, shapes: Sequence[Shape], attributes: Numbers, dtype: str, tactic: int = 1) -> Launch:
        """How to start the kernel.

        Args:
            shapes: Shapes of the inputs.
            attributes: The attributes by name.
            dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
            tactic: Which of `TACTICS`, from 1.

        Raises:
            NoKernel: The kernel was not made for them.
        """
        from .launch import NoKernel, check_image, pick

        pick(self.name, self.TACTICS, tactic)
        count = sum(name in FEATURES for name in self.inputs)
        images, weights = [tuple(each) for each in shapes[:count]], [tuple(each) for each in shapes[count:]]
        for image in images:
            check_image(self.name, image, attributes.get("window_size", 1), attributes.get("shift_size", 0), dtype)
            if image[-1] != images[0][-1]:
                raise NoKernel(f"{self.name}: features have {images[0][-1]} and {image[-1]} channels")
        launch, packed = self.plan(images[0][-1], weights, attributes, dtype)
        for name, given, wanted in zip(self.inputs[count:], weights, packed, strict=True):
            if given != tuple(wanted.shape):
                raise NoKernel(f"{self.name}: {name} must be {list(wanted.shape)}, got {list(given)}")
        return launch


def _nothing(*sizes: int) -> Tensor:
    """A tensor without memory."""
    import torch

    return torch.empty(sizes, device="meta")


def _norm(channels: int, weights: Sequence[Shape], attributes: Numbers, dtype: str) -> tuple[Launch, Sequence[Tensor]]:
    from .half_blocks import norm_launch, pack_norm

    vector = _nothing(channels)
    return norm_launch(channels, dtype, epsilon_of(attributes)), pack_norm(vector, vector)


def _norm_projection(
    channels: int, weights: Sequence[Shape], attributes: Numbers, dtype: str
) -> tuple[Launch, Sequence[Tensor]]:
    from .half_blocks import norm_projection_launch, pack_norm_projection

    vector, outputs = _nothing(channels), attributes["out_channels"]
    packed = pack_norm_projection(vector, vector, _nothing(outputs, channels), None)
    return norm_projection_launch(channels, outputs, dtype, epsilon_of(attributes)), packed


def _token_tail(
    channels: int, weights: Sequence[Shape], attributes: Numbers, dtype: str
) -> tuple[Launch, Sequence[Tensor]]:
    from .half_blocks import pack_token_tail, token_tail_launch

    vector, hidden = _nothing(channels), weights[-3][0]
    projected, rectified = bool(attributes["projected"]), bool(attributes["rectified"])
    projection = (_nothing(channels, channels), None) if projected else None
    first, second = (_nothing(hidden, channels), None), (_nothing(channels, hidden), None)
    packed = pack_token_tail(projection, vector, vector, first, second)
    epsilon = epsilon_of(attributes)
    launch = token_tail_launch(channels, hidden, dtype, projected=projected, rectified=rectified, epsilon=epsilon)
    return launch, packed


def _window_attention(
    channels: int, weights: Sequence[Shape], attributes: Numbers, dtype: str
) -> tuple[Launch, Sequence[Tensor]]:
    from .half_blocks import pack_window_attention, window_attention_launch
    from .launch import WIDE_HEAD, NoKernel

    launch = window_attention_launch(channels, attributes, dtype, epsilon_of(attributes))
    if dtype == "float32" and channels // attributes["num_heads"] > WIDE_HEAD:  # on Hopper it would take 64 KB
        raise NoKernel(f"half blocks: float32 heads up to {WIDE_HEAD} wide leave a plugin enough shared memory")
    vector, window = _nothing(channels), attributes["window_size"]
    table = _nothing((2 * window - 1) ** 2, attributes["num_heads"])
    qkv, projection = (_nothing(3 * channels, channels), None), (_nothing(channels, channels), None)
    return launch, pack_window_attention(vector, vector, qkv, projection, table, window)


NORM = HalfBlock("HalfBlockNorm", ("image", "gain", "shift"), ("epsilon_bits",), _norm)
"""``LN(x)``."""

NORM_PROJECTION = HalfBlock(
    "HalfBlockNormProjection",
    ("image", "gain", "shift", "weight", "bias"),
    ("out_channels", "epsilon_bits"),
    _norm_projection,
)
"""``LN(x) W + b``, of `out_channels`."""

TOKEN_TAIL = HalfBlock(
    "HalfBlockTokenTail",
    (
        "attended",
        "image",
        "proj_weight",
        "proj_bias",
        "gain",
        "shift",
        "first_weight",
        "first_bias",
        "second_weight",
        "second_bias",
    ),
    ("projected", "rectified", "epsilon_bits"),
    _token_tail,
)
"""``y = x + a Wp + bp`` where `projected` (of ``relu(a)`` where `rectified`), else x; then ``y + MLP(LN(y))``."""

WINDOW_ATTENTION = HalfBlock(
    "HalfBlockWindowAttention",
    ("image", "gain", "shift", "qkv_weight", "qkv_bias", "proj_weight", "proj_bias", "biases"),
    ("window_size", "shift_size", "num_heads", "epsilon_bits"),
    _window_attention,
)
"""``x + proj(attention(LN(x)))``."""

HALF_BLOCKS = (NORM, NORM_PROJECTION, TOKEN_TAIL, WINDOW_ATTENTION)
"""All half blocks."""
