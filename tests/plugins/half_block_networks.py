"""Small networks and single blocks run fused in the interpreter's process, against their own layers.

The functions are called by name through `Interpreter.call`; they answer with figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from agileir_export.models import FAMILIES, fold, fusion, randomise, use_operators
from agileir_export.models.layers import Block
from agileir_export.plugins import half_blocks
from agileir_export.plugins.half_block_plugins import HALF_BLOCKS

started: Counter[str] = Counter()
"""Kernels of half blocks started, by name."""


@contextmanager
def on_a_gpu() -> Iterator[None]:
    """Lets blocks and operators believe that tensors lie on a GPU: what they start then is interpreted."""
    usable, start = fusion.usable, half_blocks.start

    def counted(fused: Any, images: Sequence[Tensor], outputs: int | None = None) -> Tensor:
        started[fused.launch.kernel.fn.__name__] += 1
        return start(fused, images, outputs)

    started.clear()
    fusion.usable, half_blocks.start = lambda x: True, counted  # type: ignore[assignment]
    try:
        yield
    finally:
        fusion.usable, half_blocks.start = usable, start


def apart(result: Tensor, expected: Tensor) -> float:
    """Relative error."""
    return float((result.double() - expected.double()).norm() / expected.double().norm())


def drawn(module: nn.Module, seed: int) -> None:
    """Weights that keep the size of features, and layer norms, biases and position biases far from neutral."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        value = torch.randn(parameter.shape, generator=generator)
        scaled = value * parameter[0].numel() ** -0.5 if parameter.dim() > 1 else value * 0.3 + 0.5
        parameter.data.copy_(scaled)


@torch.no_grad()
def block(
    attention: nn.Module, width: int, ratio: float, dtype: str, context: Sequence[Tensor], windows: tuple[int, int, int]
) -> tuple[float, dict[str, int]]:
    """Relative error of one fused block against its layers in float64, and the kernels it started."""
    made = Block(width, attention, ratio).eval()
    made.fuse = True
    drawn(made, 1)
    for module in made.modules():
        if hasattr(module, "freeze"):
            module.freeze()
    kind = getattr(torch, dtype)
    made = made.to(kind)
    batch, rows, columns = windows
    side = made.attn.window_size
    x = torch.randn(batch, rows * side, columns * side, width, generator=torch.Generator().manual_seed(2)).to(kind)
    with on_a_gpu():
        result = made(x, *context)
    made.fuse = False
    return apart(result, made.double()(x.double(), *context)), dict(started)


@torch.no_grad()
def network(parameters: dict[str, Any], dtype: str, side: int) -> tuple[float, float, dict[str, int]]:
    """Relative errors of a network in one type, fused and unfused, against itself in float32; kernels started."""
    model = FAMILIES[parameters.pop("family")].build(**parameters)
    randomise(model, 3)
    model = fold(model)
    image = torch.rand(1, model.spec.channels, side, side, generator=torch.Generator().manual_seed(4))
    kind = getattr(torch, dtype)
    use_operators(model, False)
    expected = model(image)
    low = model.to(kind)
    stock = low(image.to(kind))
    use_operators(low, True, fuse=True)
    with on_a_gpu():
        fused = low(image.to(kind))
    return apart(fused, expected), apart(stock, expected), dict(started)


def plugin(name: str, tensors: Sequence[Tensor], attributes: dict[str, int]) -> Tensor:
    """What the kernel of a half block's plugin makes of its inputs."""
    entry = next(each for each in HALF_BLOCKS if each.name == name)
    shapes = [tuple(tensor.shape) for tensor in tensors]
    launch = entry.launch(shapes, attributes, str(tensors[0].dtype).removeprefix("torch."))
    images = sum(each in ("image", "attended") for each in entry.inputs)
    outputs = entry.output_shape(shapes, attributes)[-1]
    return half_blocks.start(half_blocks.Fused(launch, tuple(tensors[images:])), tensors[:images], outputs)


def gelu_apart(values: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """The kernels' GELU of float32 values for results of a type, and the exact one in float64."""
    import triton
    import triton.language as tl
    from gelu_kernel import gelu_kernel

    output = torch.empty_like(values)
    gelu_kernel[(1,)](values, output, triton.next_power_of_2(len(values)), getattr(tl, dtype))
    return output, nn.functional.gelu(values.double())
