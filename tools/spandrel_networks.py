"""Checkpoints of every architecture of spandrel, with random weights under which every parameter matters.

The networks that people have come in files, and what a tool makes of a file is tried with files: small ones of all
architectures, so that a whole table is made in minutes, and ones of the published depth where the small one would say
too little. No trained weights are needed to see whether a network is recognised, which operators it takes and how far
an exported one is from it; only the ranges of trained activations are wider than these, which are kept near 1.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import spandrel
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = ["NETWORKS", "Network", "main", "make_state", "picture", "run"]

KEPT = ("sub_mean", "add_mean", "eval_conv")
"""Parts whose parameters are no free ones: colour means, and convolutions that a forward pass computes from others."""

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
"""Parts that are calibrated."""


@dataclass(frozen=True)
class Network:
    """How the network of an architecture is made.

    Attributes:
        small: Keyword arguments of a small network that has every kind of part.
        real: Keyword arguments of a network as published; None where none is widely known.
        gains: Factors of layers and other parameters, by a part of their names.
        network: Name of the class in the module of the architecture; empty for the id of the architecture.
        note: What is peculiar about the architecture; empty for nothing.
    """

    small: dict[str, Any] = field(default_factory=dict)
    real: dict[str, Any] | None = None
    gains: Mapping[str, float] = field(default_factory=dict)
    network: str = ""
    note: str = ""


SWIN = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2.0, "upscale": 4}
SWIN_REAL = {"embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "mlp_ratio": 2.0, "upscale": 4}
SHUFFLE = {"upsampler": "pixelshuffle"}
NEAREST = {"upsampler": "nearest+conv", "resi_connection": "3conv"}
LEVELS = {"width": 16, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
AURA = {"image_size": None, "input_image_size": None, "skip_connect_scale": 0.4}
RGB = {"num_in_ch": 3, "num_out_ch": 3}

NETWORKS = {
    "ATD": Network(
        SWIN | {"num_tokens": 16, "reducted_dim": 4} | SHUFFLE,
        SWIN_REAL | {"embed_dim": 210, "num_tokens": 128, "reducted_dim": 20, "window_size": 16} | SHUFFLE,
        note="sorts tokens by category: the rounding of one layer can become a jump in later ones",
    ),
    "AuraSR": Network(
        AURA
        | {
            "dim": 8, "init_dim": 8, "self_attn_dim_head": 8, "attn_depths": (1, 1, 1, 1, 1), "mid_attn_depth": 1,
            "style_network": {"dim_in": 8, "dim_out": 32, "depth": 2},
        },
        AURA | {"dim": 64, "style_network": {"dim_in": 128, "dim_out": 512, "depth": 4}},
        note="draws noise and a style in every call; the published one has 617 million parameters",
    ),
    "CRAFT": Network(
        {"embed_dim": 48, "depths": [2, 2], "num_heads": [2, 2]}, {},
        note="networks of positions normalise one channel, so only their last biases matter, as in the published one",
    ),
    "Compact": Network({"num_feat": 16, "num_conv": 4}, {"num_feat": 64, "num_conv": 32}),
    "DAT": Network(
        {"embed_dim": 96, "split_size": [4, 8], "depth": [3], "num_heads": [4], "expansion_factor": 2.0, "upscale": 4},
        {
            "embed_dim": 60, "split_size": [8, 32], "depth": [18], "num_heads": [6], "expansion_factor": 2.0,
            "upscale": 4, "resi_connection": "3conv", "upsampler": "pixelshuffledirect",
        },
    ),
    "DCTLSA": Network({"nf": 20}, {}),
    "DITN": Network({"dim": 16, "ITL_blocks": 2, "SAL_blocks": 2}, {}),
    "DRCT": Network(
        SWIN | {"depths": [6], "num_heads": [2], "gc": 8} | SHUFFLE, SWIN_REAL | {"window_size": 16} | SHUFFLE
    ),
    "DRUNet": Network(
        {"in_nc": 4, "out_nc": 3, "nc": [16, 24, 32, 48], "nb": 2}, {"in_nc": 4, "out_nc": 3},
        note="spandrel adds a plane with the noise level, 15/255; layers have no biases",
    ),
    "DnCNN": Network(
        {"in_nc": 3, "out_nc": 3, "nc": 16, "nb": 5}, {"in_nc": 3, "out_nc": 3, "nb": 20, "act_mode": "R"}
    ),
    "ESRGAN": Network({"num_filters": 16, "num_blocks": 2}, {"num_filters": 64, "num_blocks": 23}),
    "FBCNN": Network(
        {"nc": [16, 24, 32, 512], "nb": 2}, {},
        note="gives the picture and a quality factor; the deepest layers are 512 wide always",
    ),
    "FDAT": Network({"embed_dim": 24, "num_groups": 1, "depth_per_group": 2, "num_heads": 2}, {}),
    "FFTformer": Network({"dim": 16, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1}, {}),
    "GFPGAN": Network(
        {}, {}, gains={"to_rgb": 0.1},
        note="faces of 512x512 only, of one size of network; draws noise in every call",
    ),
    "GRL": Network(
        {
            "embed_dim": 36, "depths": [2, 2], "num_heads_window": [2, 2], "num_heads_stripe": [2, 2],
            "window_size": 16, "stripe_size": [32, 64], "stripe_shift": True, "mlp_ratio": 2.0, "upscale": 4,
            "upsampler": "nearest+conv", "local_connection": True, "anchor_window_down_factor": 4,
        },
        {
            "embed_dim": 180, "depths": [4, 4, 8, 8, 8, 4, 4], "num_heads_window": [3] * 7, "num_heads_stripe": [3] * 7,
            "window_size": 32, "stripe_size": [64, 64], "stripe_shift": True, "mlp_ratio": 2.0, "upscale": 4,
            "upsampler": "pixelshuffle", "local_connection": True, "anchor_window_down_factor": 4,
        },
        note="spandrel guesses windows from scale and upsampler",
    ),
    "HAT": Network(SWIN | {"squeeze_factor": 6}, SWIN_REAL | {"window_size": 16}),
    "HVICIDNet": Network(
        {"channels": [8, 8, 16, 32], "heads": [1, 1, 2, 4]}, {}, gains={"D_block0": 0.2},
        note="works in a colour space of hue and intensity, with choices by comparison",
    ),
    "IPT": Network(
        {"patch_size": 48, "patch_dim": 3, "n_feats": 12, "scale": [4], "num_layers": 1}, {"scale": [4]},
        note="spandrel cuts pictures into overlapping patches of 48x48 in Python",
    ),
    "KBNet": Network(LEVELS, {}, network="KBNet_s", note="the variant KBNet_s"),
    "LaMa": Network({"in_nc": 4}, {"in_nc": 4}, note="takes a mask, too; of one size of network"),
    "MMRealSR": Network(
        RGB | {"num_feat": 16, "num_block": 1, "num_grow_ch": 8, "num_feats": [8, 8, 16, 16], "num_blocks": [1] * 4},
        RGB,
        note="gives the picture and degradation scores, by which pooled features move the whole picture",
    ),
    "MixDehazeNet": Network(
        {"embed_dims": [8, 16, 24, 16, 8], "depths": [1] * 5}, {"depths": [2, 2, 4, 2, 2]},
        note="spandrel maps its output from -1..1 to 0..1",
    ),
    "MoESR": Network({"dim": 16, "n_blocks": 2, "n_block": 1, "upsample_dim": 16}, {}),
    "MoSR": Network({"n_block": 2, "dim": 16}, {}),
    "NAFNet": Network(LEVELS, LEVELS | {"width": 32, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1] * 4}),
    "OmniSR": Network({"num_feat": 16, "res_num": 1}, {"num_feat": 64, "res_num": 5}),
    "PLKSR": Network({"dim": 16, "n_blocks": 2}, {}, network="RealPLKSR", note="the variant RealPLKSR"),
    "RCAN": Network({"n_resgroups": 2, "n_resblocks": 2, "n_feats": 16, "reduction": 4}, {}, note="changes its input"),
    "RGT": Network(
        {"embed_dim": 96, "depth": [3], "num_heads": [4], "mlp_ratio": 2.0, "upscale": 4},
        {"depth": [6] * 6, "num_heads": [6] * 6, "mlp_ratio": 2.0, "upscale": 4, "split_size": [8, 32]},
    ),
    "RealCUGAN": Network({}, {}, network="UpCunet2x", note="of one size of network; this is the one of scale 2"),
    "RestoreFormer": Network(
        {"ch": 32, "num_res_blocks": 1, "n_embed": 64, "embed_dim": 32, "z_channels": 32}, {},
        note="gives a tuple; takes the nearest of a book of codes",
    ),
    "RetinexFormer": Network(
        {"n_feat": 16, "stage": 1, "num_blocks": [1, 1, 1]}, {"stage": 1, "num_blocks": [1, 2, 2]}
    ),
    "SAFMN": Network({"dim": 16, "n_blocks": 2}, {"dim": 36, "n_blocks": 8}),
    "SAFMNBCIE": Network({"dim": 16, "n_blocks": 2, "num_layers": 2}),
    "SCUNet": Network(
        {"config": [2, 1, 1, 2, 1, 1, 2], "dim": 64}, {"config": [4] * 7, "dim": 64},
        note="heads are 32 wide always; no bias in the last layer",
    ),
    "SPAN": Network(
        RGB | {"feature_channels": 16}, RGB | {"feature_channels": 48},
        note="computes the weights of its convolutions in every call",
    ),
    "SeemoRe": Network(
        {"num_experts": 3, "num_layers": 2, "embedding_dim": 24, "lr_space": "exp"},
        {"num_experts": 3, "num_layers": 6, "embedding_dim": 36, "lr_space": "exp"},
        note="chooses one of several experts for a picture",
    ),
    "SwiftSRGAN": Network({"num_channels": 16, "num_blocks": 2}, {}, note="its output is between 0 and 1 by its own"),
    "Swin2SR": Network(SWIN | SHUFFLE, SWIN_REAL | {"window_size": 8} | SHUFFLE),
    "SwinIR": Network(
        SWIN | NEAREST,
        SWIN_REAL | {"embed_dim": 240, "depths": [6] * 9, "num_heads": [8] * 9, "window_size": 8} | NEAREST,
        note="the large network for photographs, the variant that is not one of this package's own",
    ),
    "Uformer": Network(
        {"embed_dim": 8, "depths": [2] * 9, "num_heads": [1, 1, 2, 4, 8, 8, 4, 2, 1], "modulator": True},
        {"depths": [1, 2, 8, 8, 2, 8, 8, 2, 1], "modulator": True},
        note="square pictures whose sides are multiples of 128",
    ),
}  # fmt: skip
"""Networks by the id of their architecture."""


def make_state(architecture: str, *, real: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """A checkpoint of an architecture.

    Weights are drawn, then every convolution and linear layer is scaled and centred so that its output has a deviation
    of 1 over a picture, in the order in which they run: nothing explodes or fades, at any depth. The last layer is set
    so that the picture is about 0.5 +- 0.2.

    Args:
        architecture: Id of an architecture, one of `NETWORKS`.
        real: Whether the network is as published instead of small.
        seed: Seed of the weights, >= 0.

    Returns:
        State dict as spandrel takes it.

    Raises:
        ValueError: No published network of this architecture is known here.
    """
    gains = NETWORKS[architecture].gains
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = {name: value.detach().clone() for name, value in build(architecture, real).state_dict().items()}
        descriptor = spandrel.ModelLoader().load_from_state_dict(dict(state))
        draw(descriptor.model, gains)
    calibrate(descriptor, picture(descriptor, seed), gains, torch.Generator().manual_seed(seed))
    return state | {name: value.clone() for name, value in descriptor.model.state_dict().items()}


def build(architecture: str, real: bool = False) -> nn.Module:
    """The network of an architecture as its class initialises it; arguments and errors as of `make_state`."""
    entry = NETWORKS[architecture]
    arguments = entry.real if real else entry.small
    if arguments is None:
        raise ValueError(f"No published network of {architecture} is in the table.")
    module = importlib.import_module(f"spandrel.architectures.{architecture}")
    network: nn.Module = getattr(module, entry.network or architecture)(**arguments)
    return network


def picture(descriptor: Any, seed: int = 0, size: int = 64) -> Tensor:
    """A picture with soft shapes and a little noise, in 0..1, of the smallest size >= `size` that the network takes.

    Args:
        descriptor: What spandrel makes of a checkpoint.
        seed: Seed, >= 0.
        size: Rows and columns, in pixels.

    Returns:
        Float32 tensor (1, channels, rows, columns).
    """
    needs = descriptor.size_requirements
    size = max(-(-size // needs.multiple_of) * needs.multiple_of, needs.minimum)
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, descriptor.input_channels, 8, 8, generator=generator)
    soft = nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    return (soft + 0.05 * torch.randn(soft.shape, generator=generator)).clamp(0, 1)


def run(descriptor: Any, image: Tensor) -> Tensor:
    """The picture that a network makes, as spandrel calls it but not clamped to 0..1.

    A network that draws noise draws the same in every call.

    Args:
        descriptor: What spandrel makes of a checkpoint.
        image: Float32 tensor (1, channels, rows, columns) of a size that the network takes; it is left as it is.

    Returns:
        Float32 tensor (1, channels, scale * rows, scale * columns).
    """
    mask = () if isinstance(descriptor, spandrel.ImageModelDescriptor) else (hole(image),)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        output: Tensor = descriptor._call_fn(descriptor.model.eval(), image.clone(), *mask)
    return output


def hole(image: Tensor) -> Tensor:
    """A mask (1, 1, rows, columns) that is 1 in the middle quarter of a picture."""
    rows, columns = image.shape[-2:]
    mask = torch.zeros(1, 1, rows, columns)
    mask[..., rows // 4 : -(rows // 4), columns // 4 : -(columns // 4)] = 1
    return mask


@torch.no_grad()
def draw(model: nn.Module, gains: Mapping[str, float]) -> None:
    """Draws all parameters by PyTorch's generator, none of them neutral; buffers but statistics remain."""
    for path, module in model.named_modules():
        if any(part in path for part in KEPT):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.numel():
                continue
            noise = torch.randn_like(parameter)
            constant = parameter.min() == parameter.max()
            if constant and parameter.abs().max() > 0.05:  # gains, temperatures, slopes
                parameter.mul_(1 + 0.2 * noise)
            elif parameter.ndim == 1 and name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif isinstance(module, LAYERS):
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            elif constant or parameter.std() < 0.1:  # tables, and gains that start training at about zero
                parameter.copy_(noise * 0.5)
            parameter.mul_(_gain(gains, f"{path}.{name}"))
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def calibrate(descriptor: Any, image: Tensor, gains: Mapping[str, float], generator: torch.Generator) -> None:
    """Scales every layer by what it makes of a picture, then the last one by what that makes of the output.

    Args:
        descriptor: What spandrel makes of a checkpoint; its network is changed.
        image: Picture that the network takes.
        gains: As in `Network`.
        generator: Draws the biases.
    """
    named = descriptor.model.named_modules()
    paths = {each: path for path, each in named if isinstance(each, LAYERS) and not any(part in path for part in KEPT)}
    order: list[nn.Module] = []

    def standardise(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if layer in order:  # one layer in several places
            return None
        order.append(layer)
        return _standardise(layer, output, _gain(gains, paths[layer]), generator)

    with _hooks(list(paths), standardise):
        run(descriptor, image)
    last = order[-1]
    if not isinstance(last, nn.Linear) and _gain(gains, paths[last]) == 1:
        _aim(descriptor, last, image)


def _gain(gains: Mapping[str, float], name: str) -> float:
    """The factor of a parameter or layer."""
    return math.prod(gain for part, gain in gains.items() if part in name)


def _standardise(layer: Any, output: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """Changes a layer, and its output with it: deviation 1 over the places, and means near 0 where it has a bias.

    Three channels are taken for a picture: their deviation is 0.2. Over one place only, of pooled features, rows are
    turned so that all outputs are positive: a rectifier after it lets them through.
    """
    rows = _rows(layer, output)
    if len(rows) == 1:
        factor = gain * rows[0].sign() / rows.square().mean().sqrt()
        shift = torch.zeros_like(factor)
    else:
        deviation = gain * (0.2 if rows.shape[1] == 3 else 1.0)
        factor = (deviation / (rows - rows.mean(0)).std()).expand(rows.shape[1])
        shift = torch.randn(rows.shape[1], generator=generator) * 0.1 * deviation - rows.mean(0) * factor
    if not factor.isfinite().all() or not factor.all():
        return output
    layer.weight.mul_(factor.reshape(_along(layer)))
    if layer.bias is None:
        shift = torch.zeros_like(shift)
    else:
        layer.bias.mul_(factor).add_(shift)
    places = (-1,) if isinstance(layer, nn.Linear) else (-1, *[1] * (output.ndim - 2))
    return output * factor.reshape(places) + shift.reshape(places)


def _along(layer: Any) -> tuple[int, ...]:
    """The shape that spreads a value a channel of the output over the weight of a layer."""
    if isinstance(layer, nn.ConvTranspose2d):
        return (1, -1, 1, 1)
    return (-1, *[1] * (layer.weight.ndim - 1))


def _rows(layer: nn.Module, output: Tensor) -> Tensor:
    """The output of a layer as (places, channels)."""
    return output.flatten(0, -2) if isinstance(layer, nn.Linear) else output.transpose(0, 1).flatten(1).T


def _aim(descriptor: Any, layer: Any, image: Tensor, mean: float = 0.5, deviation: float = 0.2) -> None:
    """Changes the last layer so that the picture has a mean and, but for what is added to it, a deviation."""
    step = 0.01
    seen: dict[str, Tensor] = {}

    def move(_: nn.Module, inputs: tuple[Tensor, ...], own: Tensor) -> Tensor:
        seen.update(input=_rows(layer, inputs[0]).mean(0), output=_rows(layer, own))
        return own + step

    with _hooks([layer], move):
        moved = run(descriptor, image)
    slope = ((moved - run(descriptor, image)).mean() / step).item()
    own = (seen["output"] - seen["output"].mean(0)).std()
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            parameter.mul_(deviation / abs(slope) / own)
        shift = (mean - run(descriptor, image).mean()) / slope
        if layer.bias is not None:
            layer.bias.add_(shift)
        else:  # by what the inputs are on average
            layer.weight[..., layer.weight.shape[2] // 2, layer.weight.shape[3] // 2].add_(
                shift * seen["input"] / seen["input"].square().sum()
            )


@contextmanager
def _hooks(layers: Sequence[nn.Module], hook: Any) -> Iterator[None]:
    """A hook on the outputs of layers for a while."""
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def count(architecture: str, real: bool = False) -> int:
    """Parameters of the network of an architecture; arguments and errors as of `make_state`."""
    return sum(parameter.numel() for parameter in build(architecture, real).parameters())


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes one checkpoint, or lists the architectures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", nargs="?", choices=sorted(NETWORKS), metavar="ARCHITECTURE")
    parser.add_argument("-o", "--output", type=Path, help="file to write: .safetensors or .pth")
    parser.add_argument("--real", action="store_true", help="the published depth and width instead of a small network")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights, >= 0 (default 0)")
    parser.add_argument("--list", action="store_true", help="list architectures with the parameters of both networks")
    options = parser.parse_args(arguments)
    if options.list:
        for architecture, entry in sorted(NETWORKS.items()):
            real = "-" if entry.real is None else f"{count(architecture, True):,}"
            print(f"{architecture:13}{count(architecture):>12,}{real:>13}  {entry.note}".rstrip())
        return 0
    if options.architecture is None or options.output is None:
        parser.error("name an architecture and a file: HAT -o hat.safetensors")
    if options.output.suffix not in (".safetensors", ".pth"):
        parser.error(f"{options.output} ends neither in .safetensors nor in .pth")
    state = make_state(options.architecture, real=options.real, seed=options.seed)
    if options.output.suffix == ".pth":
        torch.save(state, options.output)
    else:
        save_file({name: value.contiguous() for name, value in state.items()}, options.output)
    print(f"{options.output}: {options.architecture}, {count(options.architecture, options.real):,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
