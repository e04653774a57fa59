"""When a block's layers give way to fused kernels, and when they must not: on a stand-in for the kernels."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from agileir_export.models import fold, fusion, use_operators
from agileir_export.models.layers import Block
from agileir_export.models.window_attention import WindowAttention
from agileir_export.plugins.launch import NoKernel

from ..export.networks import SHAPES, build

WIDTH, WINDOW = 12, 4


@pytest.fixture
def block() -> Block:
    made = Block(WIDTH, WindowAttention(WIDTH, 2, WINDOW, 2), 2.0).eval().requires_grad_(False)
    use_operators(made, True, fuse=True)
    return made


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 8, 8, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def fused(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Blocks that were fused: the kernels' place is taken by a function that answers with zeros."""
    seen: list[Any] = []

    def run(layers: Any, attention: Any, around: Any, x: Tensor, *context: Tensor) -> Tensor:
        seen.append(layers.block)
        return torch.zeros_like(x)

    monkeypatch.setattr(fusion, "usable", lambda x: True)
    monkeypatch.setattr(fusion, "_run", run)
    return seen


def test_a_block_for_inference_is_fused(block: Block, x: Tensor, fused: list[Any]) -> None:
    assert not block(x).any() and fused == [block]
    with torch.inference_mode():
        assert not block(x).any()
    with torch.no_grad():
        assert not block.requires_grad_(True)(x).any()


def test_blocks_are_fused_only_where_that_is_asked_for(x: Tensor, fused: list[Any]) -> None:
    made = Block(WIDTH, WindowAttention(WIDTH, 2, WINDOW, 2), 2.0).eval().requires_grad_(False)
    for switch in (lambda: None, lambda: use_operators(made)):
        switch()
        assert made(x).any() and not fused


def test_a_cpu_runs_layers(block: Block, x: Tensor, fused: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert block(x).any() and fusion.run_fused(block, x) is None


class Listening(TorchDispatchMode):
    """A mode that sees every operation."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        return function(*arguments, **(named or {}))


def listening(block: Block) -> None:
    block.mlp.fc1.register_forward_hook(lambda *given: None)


def listening_before(block: Block) -> None:
    block.norm2.register_forward_pre_hook(lambda *given: None)


def training(block: Block) -> None:
    block.train()


def partly_training(block: Block) -> None:
    block.attn.train()


def with_gradients(block: Block) -> None:
    block.norm1.weight.requires_grad_(True)


def with_another_linear(block: Block) -> None:
    block.mlp.fc2 = type("Lowered", (nn.Linear,), {})(2 * WIDTH, WIDTH).eval().requires_grad_(False)


def with_another_projection(block: Block) -> None:
    block.attn.proj = nn.Sequential(nn.Linear(WIDTH, WIDTH)).eval().requires_grad_(False)


def with_tanh(block: Block) -> None:
    block.mlp.act = nn.GELU(approximate="tanh").eval()


def with_its_own_forward(block: Block) -> None:
    block.norm1.forward = nn.Identity().forward  # type: ignore[method-assign]


def switched_off(block: Block) -> None:
    use_operators(block, True, fuse=False)


def plain(block: Block) -> None:
    use_operators(block, False)


CHANGES = (
    listening,
    listening_before,
    training,
    partly_training,
    with_gradients,
    with_another_linear,
    with_another_projection,
    with_tanh,
    with_its_own_forward,
    switched_off,
    plain,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_needs_the_layers_gets_them(
    block: Block, x: Tensor, fused: list[Any], change: Callable[[Block], None]
) -> None:
    change(block)
    assert block(x).any() and not fused


def test_an_input_with_gradients_runs_layers(block: Block, x: Tensor, fused: list[Any]) -> None:
    output = block(x.requires_grad_(True))
    output.sum().backward()
    assert x.grad is not None and not fused


def test_modes_autocast_and_traces_see_layers(block: Block, x: Tensor, fused: list[Any]) -> None:
    with Listening():
        assert block(x).any()
    with torch.autocast("cpu", torch.bfloat16):
        assert block(x).any()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(block, (x,), check_trace=False)
    assert not fused


def test_compilers_see_layers(block: Block, x: Tensor, fused: list[Any]) -> None:
    exported = torch.export.export(block, (x,))
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    assert compiled(x).any() and not fused
    torch.testing.assert_close(exported.module()(x), compiled(x))
    assert any("linear" in str(node.target) for node in exported.graph.nodes)


def test_what_no_kernel_takes_runs_layers(block: Block, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Tensor:
        raise NoKernel("too wide")

    monkeypatch.setattr(fusion, "_run", refuse)
    assert block(x).any()


def test_groups_are_fused_once_they_are_folded(fused: list[Any]) -> None:
    network = build("agileir").requires_grad_(False)
    use_operators(network, True, fuse=True)
    image = torch.rand(1, 3, 8, 8)
    network(image)
    assert not fused
    fold(network)(image)
    assert len(fused) == sum(SHAPES["agileir"]["depths"])


def test_bypassed_attention_is_not_fused(fused: list[Any]) -> None:
    fold(build("agileir", attention="bypassed"))(torch.rand(1, 3, 8, 8))
    assert not fused


# ---- what is kept of a block ----


def kept(block: Block, x: Tensor) -> tuple[Any, int]:
    """What is kept for the tail, and how often it was made so far."""
    made = []

    def make() -> Any:
        made.append(1)
        return fusion.Fused(None, ())  # type: ignore[arg-type]

    return fusion.fused_of(block, "tail", x, (block.norm2.weight, block.norm2.bias, None), make), len(made)


def test_packed_weights_are_kept_until_the_weights_change(block: Block, x: Tensor) -> None:
    first, made = kept(block, x)
    assert made == 1 and kept(block, x) == (first, 0)
    for change in (
        lambda: block.norm2.bias.add_(1),
        lambda: block.load_state_dict({name: tensor + 1 for name, tensor in block.state_dict().items()}),
        lambda: setattr(block.norm2, "weight", nn.Parameter(torch.ones(WIDTH), requires_grad=False)),
    ):
        change()  # type: ignore[no-untyped-call]
        assert kept(block, x)[1] == 1
        assert kept(block, x)[1] == 0


def test_other_types_than_the_features_are_refused(block: Block, x: Tensor) -> None:
    with pytest.raises(NoKernel, match="differ in type"):
        kept(block, x.half())


def test_weights_of_the_inference_mode_are_packed_every_time(x: Tensor) -> None:
    with torch.inference_mode():
        block = Block(WIDTH, WindowAttention(WIDTH, 2, WINDOW, 2), 2.0).eval()
        assert [kept(block, x)[1] for _ in range(2)] == [1, 1]


def test_copies_and_pickles_hold_nothing_of_it(block: Block, x: Tensor) -> None:
    before = list(block.state_dict()), len(pickle.dumps(block))
    kept(block, x)
    assert (list(block.state_dict()), len(pickle.dumps(block))) == before
    copied = copy.deepcopy(block)
    assert kept(copied, x)[1] == 1
