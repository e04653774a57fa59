"""All families: any size and channels, batches, folding, plain form, random weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from agileir_export.images.resizing import pad_to_multiple
from agileir_export.models import (
    Restorer,
    build_preset,
    fold,
    pad_images,
    preset_names,
    randomise,
    use_operators,
)

from ..export.networks import SHAPES, build
from . import naive
from .naive import random_images

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")

KINDS = list(SHAPES)
SIZES = [(1, 1), (1, 40), (40, 1), (5, 7), (4, 4), (45, 70), (3, 2)]


# ---- sizes, channels, batches ----


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_size(kind: str, size: tuple[int, int]) -> None:
    network = build(kind)
    spec = network.spec
    height, width = size
    images = random_images(1, spec.channels, height, width)
    output = network(images)
    assert output.shape == (1, spec.channels, spec.scale * height, spec.scale * width)
    assert output.dtype == torch.float32
    assert output.isfinite().all()
    # padding outside the network, as a runner does it with numpy, and cropping
    padded, original = pad_to_multiple(images.numpy(), spec.pad_multiple)
    assert original == size
    whole = network.network(torch.from_numpy(padded))
    assert whole.shape[-2:] == tuple(spec.scale * side for side in padded.shape[-2:])
    assert torch.equal(output, whole[..., : spec.scale * height, : spec.scale * width])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_channels(kind: str, channels: int) -> None:
    network = build(kind, channels=channels)
    output = network(random_images(1, channels, 6, 5))
    scale = network.spec.scale
    assert output.shape == (1, channels, 6 * scale, 5 * scale)
    mean = network.mean.flatten().tolist()
    assert mean == (pytest.approx(naive.MEAN) if channels == 3 else [0.0] * channels)
    assert "mean" not in network.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_images_one_by_one(kind: str) -> None:
    network = build(kind)
    images = random_images(3, network.spec.channels, 9, 14)
    single = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), single, rtol=0, atol=1e-5)
    assert (single[0] - single[1]).abs().max() > 0.01


@pytest.mark.parametrize("multiple", [1, 4, 7, 16])
@pytest.mark.parametrize("size", SIZES)
def test_padding_mirrors_where_that_fits_and_repeats_the_edge_elsewhere(size: tuple[int, int], multiple: int) -> None:
    images = random_images(2, 3, *size)
    padded = pad_images(images, multiple)
    assert torch.equal(padded, naive.pad(images, multiple))
    assert torch.equal(padded, torch.from_numpy(pad_to_multiple(images.numpy(), multiple)[0]))
    assert torch.equal(padded[..., : size[0], : size[1]], images)


def test_the_rule_of_padding_by_hand() -> None:
    row = torch.arange(5.0).reshape(1, 1, 1, 5)
    assert pad_images(row, 9)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0]
    assert pad_images(row, 10)[0, 0, 9].tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]
    assert pad_images(row, 5)[0, 0, 4].tolist() == [0, 1, 2, 3, 4]
    assert pad_images(row.mT, 9)[0, 0, :, 8].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_that_fits_is_not_padded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(kind)
    multiple = network.spec.pad_multiple
    images = random_images(1, network.spec.channels, multiple, 2 * multiple)
    seen: list[Tensor] = []
    original = network.network
    monkeypatch.setattr(network, "network", lambda x: seen.append(x) or original(x))
    network(images)
    assert torch.equal(seen[0], images)


# ---- folding and the plain form ----


@pytest.mark.parametrize("kind", KINDS)
def test_folding_changes_nothing_and_leaves_the_original_alone(kind: str) -> None:
    network = build(kind).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modules = [name for name, _ in network.named_modules()]
    folded = fold(network)
    assert network.training and not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    assert all(p.requires_grad for p in network.parameters())
    assert [name for name, _ in network.named_modules()] == modules
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert folded.spec == network.spec

    images = random_images(2, network.spec.channels, 9, 14)
    expected = network.eval()(images)
    torch.testing.assert_close(folded(images), expected, rtol=0, atol=1e-5)
    own = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    assert not own & {t.data_ptr() for t in (*folded.parameters(), *folded.buffers())}
    # folding again, or asking for training, has nothing left to change
    assert torch.equal(fold(folded)(images), folded(images))
    assert torch.equal(copy.deepcopy(folded).train()(images), folded(images))


@pytest.mark.parametrize("folded", [False, True], ids=["as-trained", "folded"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_form_equals_the_operators(kind: str, folded: bool) -> None:
    network = build(kind)
    if folded:
        network = fold(network)
    images = random_images(2, network.spec.channels, 33, 14)
    expected = network(images)
    use_operators(network, False)
    with torch.profiler.profile() as profile:
        plain = network(images)
    assert not [event.key for event in profile.key_averages() if "agileir::" in event.key]
    torch.testing.assert_close(plain, expected, rtol=0, atol=1e-5)
    use_operators(network)
    with torch.profiler.profile() as profile:
        assert torch.equal(network(images), expected)
    assert [event.key for event in profile.key_averages() if "agileir::" in event.key]


# ---- random weights ----


def key_rows(name: str, parameter: Tensor, network: Restorer) -> slice | None:
    """Rows of a bias that add the same number to all logits of a query, which softmax ignores."""
    if name.endswith("attn.qkv.bias"):  # q, k, v of equal width
        third = len(parameter) // 3
        return slice(third, 2 * third)
    if ".groupatt.qkvs." in name and name.endswith(("bn.bias", "c.bias")):
        key_dim = network.get_submodule(name.split(".groupatt.")[0]).key_dim
        return slice(key_dim, 2 * key_dim)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_moves_the_output(kind: str) -> None:
    network = build(kind)
    generator = torch.Generator().manual_seed(7)
    multiple = network.spec.pad_multiple
    images = random_images(1, network.spec.channels, 2 * multiple, 2 * multiple)
    network.double()
    images = images.double()
    expected = network(images)

    def change(parameter: Tensor, rows: slice) -> float:
        """How far the output moves when some rows are redrawn."""
        kept = parameter.clone()
        noise = torch.randn(parameter[rows].shape, generator=generator)
        parameter[rows] += 0.1 * noise.to(parameter.dtype)
        moved = (network(images) - expected).abs().max().item()
        parameter.copy_(kept)
        return moved

    statistics = {k: v for k, v in network.named_buffers() if k.endswith(("running_mean", "running_var"))}
    for name, parameter in (*network.named_parameters(), *statistics.items()):
        keys = key_rows(name, parameter, network)
        if keys is None:
            assert change(parameter, slice(None)) > 1e-6, name
        else:
            assert change(parameter, slice(0, keys.start)) > 1e-6, name
            assert change(parameter, keys) < 1e-12, name  # the exception, and the only one
            assert change(parameter, slice(keys.stop, None)) > 1e-6, name
    assert torch.equal(network(images), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_depend_on_the_seed_alone(kind: str) -> None:
    torch.manual_seed(1)
    first = build(kind, seed=5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = build(kind, seed=None)
    state = torch.get_rng_state()
    randomise(second, 5)
    assert torch.equal(torch.get_rng_state(), state)  # its own generator
    assert not torch.equal(state, before)
    assert second.state_dict().keys() == first.state_dict().keys()
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
    other = build(kind, seed=6)
    for name, parameter in first.named_parameters():
        assert not torch.equal(other.get_parameter(name), parameter), name


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_make_pictures(kind: str, seed: int) -> None:
    network = build(kind, seed=seed)
    output = network(random_images(2, network.spec.channels, 24, 31))
    assert -2 < output.min() < output.max() < 3
    assert abs(output.mean() - 0.5) < 0.7
    assert output.std() > 0.02


FULL_SIZE = [name for name in preset_names() if not name.startswith("semanir_b")]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_random_weights_of_the_presets_make_pictures(name: str) -> None:
    network = build_preset(name).eval()
    randomise(network, 0)
    output = network(random_images(1, network.spec.channels, 20, 17))
    assert output.shape[-2:] == (20 * network.spec.scale, 17 * network.spec.scale)
    assert -2 < output.min() < output.max() < 3
    assert output.std() > 0.02
