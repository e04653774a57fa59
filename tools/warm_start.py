"""Better starting points than random weights: a trained network, or bicubic interpolation."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from agileir_export.errors import CheckpointError
from agileir_export.models import Restorer

__all__ = ["start_as_interpolation", "start_from_weights"]

HEAD = "upsample.0."


def start_from_weights(model: Restorer, file: Path) -> None:
    """Starts from trained weights of the same architecture, possibly of another scale.

    Where the scale differs, the new direct pixel-shuffle head repeats the trained one: every
    sub-pixel gets the weights of the trained sub-pixel it lies in.

    Args:
        model: Network to change in place.
        file: safetensors file of a trained network.

    Raises:
        CheckpointError: The file cannot be read, or holds another architecture.
    """
    try:
        trained = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Cannot read the starting weights {file}: {error}.", fix="Name a safetensors file."
        ) from error
    own = model.state_dict()
    for name in set(trained) & set(own):
        if name.startswith(HEAD) and own[name].shape != trained[name].shape:
            trained[name] = _repeat_head(trained[name], model.spec.channels, model.spec.scale)
    fitting = {k: v for k, v in trained.items() if k in own and own[k].shape == v.shape}
    if set(fitting) != set(own):
        missing = sorted(set(own) - set(fitting))
        raise CheckpointError(
            f"{file} does not fit: {len(missing)} of {len(own)} tensors are missing or have "
            f"another shape, {missing[0]} among them.",
            why="Starting weights must come from the same architecture; only the scale may differ.",
        )
    model.load_state_dict(fitting)


def _repeat_head(weights: Tensor, channels: int, scale: int) -> Tensor:
    """Rows of a pixel-shuffle convolution (channel, sub-row, sub-column) for another scale."""
    trained_scale = round((weights.shape[0] / channels) ** 0.5)
    nearest = torch.arange(scale) * trained_scale // scale
    grid = weights.reshape(channels, trained_scale, trained_scale, *weights.shape[1:])
    repeated: Tensor = grid[:, nearest][:, :, nearest].flatten(0, 2)
    return repeated.contiguous()


@torch.no_grad()
def start_as_interpolation(model: Restorer) -> None:
    """Makes an untrained network with a direct pixel-shuffle head output a bicubic enlargement.

    The first channels of the first convolution carry the image, the head enlarges them with Keys'
    cubic kernel (a = -0.5) cut to 3 x 3 taps, and the last convolution of the body starts at zero.
    Training then begins at the quality of interpolation. Other networks are left as they are.

    Args:
        model: Network to change in place.
    """
    direct = getattr(model, "upsampler", "") == "pixelshuffledirect"
    first, last = getattr(model, "conv_first", None), getattr(model, "conv_after_body", None)
    if not (direct and isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)):
        return
    upsample = model.get_submodule("upsample.0")
    assert isinstance(upsample, nn.Conv2d)
    assert first.bias is not None and upsample.bias is not None and last.bias is not None
    scale, channels = model.spec.scale, model.spec.channels
    for tensor in (last.weight, last.bias, upsample.bias, first.bias[:channels]):
        tensor.zero_()
    first.weight[:channels] = 0
    upsample.weight *= 0.1
    upsample.weight[:, :channels] = 0
    taps = _cubic_taps(scale)
    kernels = torch.einsum("ir,jc->ijrc", taps, taps).flatten(0, 1)
    for channel in range(channels):
        first.weight[channel, channel, 1, 1] = 1
        upsample.weight[channel * scale**2 : (channel + 1) * scale**2, channel] = kernels


def _cubic_taps(scale: int) -> Tensor:
    """Weights ``[scale, 3]`` of the previous, same and next pixel (Keys 1981, a = -0.5)."""
    offset = (torch.arange(scale) + 0.5) / scale - 0.5
    distance = (offset[:, None] - torch.tensor([-1.0, 0.0, 1.0])).abs()
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    taps = torch.where(distance <= 1, near, far)
    return taps / taps.sum(1, keepdim=True)
