"""Networks of spandrel as models of this package: the same pictures, in fewer nodes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agileir_export.errors import InputError
from agileir_export.models import Restorer, load_model, use_operators
from agileir_export.models.window_attention import WindowAttention

from ..scripts import load_script

spandrel = pytest.importorskip("spandrel")

from agileir_export.models.spandrel import architectures  # noqa: E402
from agileir_export.models.spandrel import windows as own_windows  # noqa: E402
from agileir_export.models.spandrel.window_block import WindowBlock, window_block  # noqa: E402

NETWORKS = load_script(Path(__file__).parents[2] / "tools" / "spandrel_networks.py")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, made = tmp_path_factory.mktemp("spandrel"), {}

    def saved(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = folder / f"{architecture}.pth"
            torch.save({"params_ema": NETWORKS.make_state(architecture)}, made[architecture])
        return made[architecture]

    return saved


def picture(model: Restorer, rows: int = 3, columns: int = 2, batch: int = 1) -> Tensor:
    cell = max(16, model.spec.pad_multiple)
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, model.spec.channels, rows * cell, columns * cell, generator=generator)


def by_spandrel(path: Path, images: Tensor) -> Tensor:
    """What spandrel's own descriptor makes of pictures; it clamps."""
    state = torch.load(path, weights_only=True)["params_ema"]
    made: Tensor = spandrel.ModelLoader().load_from_state_dict(state).eval()(images.clone())
    return made


SLOW = [
    pytest.param(each, marks=pytest.mark.slow)
    for each in ("Compact", "DAT", "DRCT", "DRUNet", "ESRGAN", "GRL", "RestoreFormer", "Swin2SR")
]


@pytest.mark.parametrize("architecture", ["HAT", "RCAN", "SPAN", *SLOW])
def test_a_network_restores_what_spandrel_restores(checkpoint: Any, architecture: str) -> None:
    path = checkpoint(architecture)
    model = load_model(path)
    images = picture(model)
    with torch.no_grad():
        restored = model(images)
    expected = by_spandrel(path, images)
    assert restored.shape[-1] == images.shape[-1] * model.spec.scale
    assert torch.allclose(restored.clamp(0, 1), expected, atol=2e-5)


@pytest.mark.parametrize("architecture", ["HAT", "RCAN"])
def test_a_network_leaves_its_pictures_as_they_are(checkpoint: Any, architecture: str) -> None:
    """RCAN's forward multiplies its input in place."""
    model = load_model(checkpoint(architecture))
    images = picture(model)
    before = images.clone()
    with torch.no_grad():
        model(images)
    assert torch.equal(images, before)


def test_what_is_told_of_a_network(checkpoint: Any) -> None:
    model = load_model(checkpoint("HAT"))
    spec = model.spec
    assert (spec.family, spec.library, spec.name, spec.task, spec.scale) == (
        "spandrel/HAT",
        "spandrel",
        "hat_x4",
        "super-resolution",
        4,
    )
    assert spec.pad_multiple == 16 and spec.window_size == 8 and spec.tiling == "supported"
    assert type(spec).from_json(spec.to_json()) == spec
    assert model.origin is not None and model.origin.branch == "params_ema"
    assert model.origin.read["architecture"] == "HAT" and model.origin.read["attentions_as_operators"] == 4


def test_window_attention_becomes_the_operator_and_back(checkpoint: Any) -> None:
    model = load_model(checkpoint("HAT"))
    attentions = [module for module in model.modules() if isinstance(module, WindowAttention)]
    assert len(attentions) == 4 and {each.shift_size for each in attentions} == {0, 4}
    images = picture(model)
    with torch.no_grad():
        with_operators = model(images)
        use_operators(model, False)
        without = model(images)
    assert not any(each.use_operator for each in attentions)
    assert torch.allclose(with_operators, without, atol=1e-5)


def test_masks_of_blocks_that_need_none_are_not_made(checkpoint: Any) -> None:
    model = load_model(checkpoint("HAT"))
    assert isinstance(model.net, nn.Module)
    assert model.net.calculate_mask((64, 64)).numel() == 1


def block_of_hat(checkpoint: Any) -> Any:
    state = torch.load(checkpoint("HAT"), weights_only=True)["params_ema"]
    network = spandrel.ModelLoader().load_from_state_dict(state).eval().model
    return copy.deepcopy(network.layers[0].residual_group.blocks[1])


def test_a_block_of_another_kind_stays(checkpoint: Any) -> None:
    assert isinstance(window_block(block_of_hat(checkpoint)), WindowBlock)
    scaled = block_of_hat(checkpoint)
    scaled.attn.scale *= 2
    smaller = block_of_hat(checkpoint)
    smaller.attn.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
    normed = block_of_hat(checkpoint)
    normed.attn.qkv = nn.Sequential(normed.attn.qkv)
    for other in (
        scaled,
        smaller,
        normed,
        nn.Linear(2, 2),
        WindowBlock(scaled, window_block(block_of_hat(checkpoint)).attn),
    ):
        assert window_block(other) is None


def test_a_block_that_computes_otherwise_is_not_swapped(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all the layers, and returns something else: a scale that no attribute tells."""
    from spandrel.architectures.HAT.__arch import HAT as hat

    monkeypatch.setattr(hat.HAB, "forward", lambda self, *given, **named: self.norm1(given[0]) * 2)
    model = load_model(checkpoint("HAT"))
    assert model.origin is not None and model.origin.read["attentions_as_operators"] == 0
    assert not any(isinstance(module, WindowAttention) for module in model.modules())


@pytest.mark.parametrize("window", [4, (4, 8)])
def test_windows_are_joined_whatever_the_batch(window: Any) -> None:
    rows, columns = window if isinstance(window, tuple) else (window, window)
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 2, 3):
        images = torch.rand(batch, 16, 24, 5, generator=generator)
        cells = images.reshape(batch, 16 // rows, rows, 24 // columns, columns, 5).permute(0, 1, 3, 2, 4, 5)
        apart = cells.reshape(-1, rows, columns, 5)
        assert torch.equal(own_windows.window_reverse(apart, window, 16, 24), images)
        assert torch.equal(own_windows.joined(apart.flatten(1, 2), rows, columns, 16, 24), images)


def test_the_convolutions_of_span_are_put_together_once(checkpoint: Any) -> None:
    model = load_model(checkpoint("SPAN"))
    assert not any(hasattr(module, "update_params") for module in model.modules())


def test_convolutions_that_compute_otherwise_stay(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from spandrel.architectures.SPAN.__arch import span

    forward = span.Conv3XC.forward
    monkeypatch.setattr(span.Conv3XC, "forward", lambda self, images: forward(self, images) * 1.01)
    assert any(hasattr(module, "update_params") for module in load_model(checkpoint("SPAN")).modules())


def test_a_network_in_another_range(checkpoint: Any) -> None:
    model, scaled = load_model(checkpoint("Compact")), load_model(checkpoint("Compact"), img_range=2.0)
    images = picture(model)
    with torch.no_grad():
        assert torch.allclose(scaled(images), model(2 * images) / 2, atol=1e-6)


def test_options_of_other_families_do_not_fit(checkpoint: Any) -> None:
    with pytest.raises(InputError, match="top_k"):
        load_model(checkpoint("Compact"), top_k=4)


@pytest.mark.slow
def test_pictures_of_a_square_network_are_made_square(checkpoint: Any) -> None:
    model = load_model(checkpoint("Uformer"))
    images = picture(model, 1, 2)
    with torch.no_grad():
        assert model(images).shape == images.shape


def test_all_architectures_are_listed() -> None:
    names = [each.name for each in architectures()]
    assert len(names) >= 42 and {"HAT", "DAT", "ESRGAN", "SCUNet"} <= set(names)
    assert names == sorted(names, key=str.lower)


@pytest.mark.slow
def test_a_network_that_looks_at_the_whole_picture_says_so(checkpoint: Any) -> None:
    assert load_model(checkpoint("SCUNet")).spec.tiling == "discouraged"
