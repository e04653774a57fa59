"""Fused half blocks on a real GPU: networks of every family, graphs, and what must stay layers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from agileir_export.models import fold, use_operators
from agileir_export.models.layers import Block
from agileir_export.models.window_attention import WindowAttention
from agileir_export.plugins import half_blocks

from ..export.networks import SHAPES, build

pytestmark = pytest.mark.gpu

TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Kernels of half blocks that were started."""
    seen: Counter[str] = Counter()
    start = half_blocks.start

    def counted(fused: half_blocks.Fused, images: list[Tensor], outputs: int | None = None) -> Tensor:
        seen[fused.launch.kernel.__name__] += 1
        return start(fused, images, outputs)

    monkeypatch.setattr(half_blocks, "start", counted)
    return seen


def apart(result: Tensor, expected: Tensor) -> float:
    return float((result.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kind", SHAPES)
def test_a_network_agrees_with_its_layers(kind: str, dtype: str, started: Counter[str]) -> None:
    model = fold(build(kind)).to("cuda", getattr(torch, dtype))
    use_operators(model, True, fuse=True)
    images = torch.rand(2, model.spec.channels, 45, 70, device="cuda").to(getattr(torch, dtype))
    fused = model(images)
    assert started["token_tail_kernel"] == sum(isinstance(module, Block) for module in model.modules())
    use_operators(model, True, fuse=False)
    assert apart(fused, model(images)) < TOLERANCES[dtype]


@pytest.mark.parametrize(("width", "heads", "window"), [(180, 6, 8), (96, 6, 7), (60, 6, 4)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_wide_blocks_agree_with_their_layers(
    width: int, heads: int, window: int, dtype: str, started: Counter[str]
) -> None:
    torch.manual_seed(0)
    block = Block(width, WindowAttention(width, heads, window, window // 2), 2.0).eval().requires_grad_(False)
    for parameter in block.parameters():
        drawn = torch.randn_like(parameter)
        parameter.copy_(drawn * width**-0.5 if parameter.dim() > 1 else 0.3 * drawn + 0.5)
    x = torch.randn(2, 5 * window, 7 * window, width, device="cuda").to(getattr(torch, dtype))
    block = block.to("cuda", x.dtype)
    block.fuse = True
    fused = block(x)
    assert started == {"window_attention_kernel": 1, "token_tail_kernel": 1}
    block.fuse = False
    expected = block.float()(x.float())
    assert apart(fused, expected) < {"float16": 2e-3, "bfloat16": 1.5e-2}[dtype]


@pytest.mark.parametrize("kind", ["agileir", "semanir", "swinir-light"])
def test_a_graph_of_fused_blocks_and_changed_weights(kind: str, started: Counter[str]) -> None:
    model = fold(build(kind)).cuda().half()
    use_operators(model, True, fuse=True)
    images = torch.rand(1, 3, 24, 24, device="cuda").half()
    expected = model(images)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = model(images)
    graph.replay()
    torch.testing.assert_close(captured, expected)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.mul_(1.5)
    changed = model(images)
    use_operators(model, True, fuse=False)
    assert apart(changed, model(images)) < TOLERANCES["float16"]
    assert not torch.equal(changed, expected)
    assert started


def test_a_compiled_network_keeps_its_layers(started: Counter[str]) -> None:
    model = fold(build("swinir-light")).cuda().half()
    use_operators(model, True, fuse=True)
    images = torch.rand(1, 3, 24, 24, device="cuda").half()
    expected = model(images)
    started.clear()
    assert apart(torch.compile(model)(images), expected) < TOLERANCES["float16"]
    assert not started
