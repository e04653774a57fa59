"""Loading models: by preset or packaged name, or from a checkpoint whose architecture is recognised by its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError, ModelNameError
from .base import Restorer
from .options import LoadOptions
from .registry import FAMILIES, Family, find_preset, preset_names
from .spec import CHECKPOINT_SUFFIXES
from .state import exists, read_state
from .transform import randomise

__all__ = [
    "WEIGHTS_FOLDER",
    "ModelEntry",
    "list_models",
    "load_model",
    "packaged_models",
]

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


def packaged_models() -> dict[str, Path]:
    """Presets whose trained weights are part of this package, with their files."""
    files = {path.stem: path for path in sorted(WEIGHTS_FOLDER.glob("*.safetensors"))}
    return {name: files[name] for name in preset_names() if name in files}


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list of models.

    Attributes:
        name: Preset name.
        family: Its family.
        paper: Where the family is published.
        scale: Up-scaling factor.
        task: What it restores.
        channels: Image channels.
        packaged: Whether trained weights are part of this package.
    """

    name: str
    family: str
    paper: str
    scale: int
    task: str
    channels: int
    packaged: bool


def list_models() -> list[ModelEntry]:
    """All presets, family by family."""
    packaged = packaged_models()
    entries = []
    for family in FAMILIES.values():
        for name, preset in family.presets.items():
            full = family.complete(preset)
            shown = (full["scale"], full["task"], full["channels"], name in packaged)
            entries.append(ModelEntry(name, family.name, family.paper, *shown))
    return entries


def load_model(name_or_path: str | Path, options: LoadOptions | None = None, **keywords: Any) -> Restorer:
    """Loads a model for inference, in float32 on the CPU and in evaluation mode.

    Args:
        name_or_path: A packaged model, a preset together with `weights` or `random_weights`, or a checkpoint
            (.pth, .pt, .ckpt, .safetensors) whose architecture is inferred from its keys and shapes.
        options: How to load it.
        keywords: Attributes of `LoadOptions`, such as ``top_k=64``, instead of the ones in `options`.

    Raises:
        ModelNameError: The name is unknown, or a preset has neither weights nor a seed.
        CheckpointError: The checkpoint is unreadable, unsafe, unknown, incomplete, or not finite.
        InputError: An option does not apply to this model.
    """
    source = str(name_or_path)
    options = dataclasses.replace(options or LoadOptions(), **keywords)
    others = [name for name in ("weights", "random_weights") if name in options.given()]
    if len(others) > 1:
        raise InputError("Both weights and random weights were asked for.", fix="Give one of them.")
    if source in preset_names():
        model = _load_preset(source, options)
    else:
        path = Path(name_or_path)
        if not exists(path) and path.suffix.lower() not in CHECKPOINT_SUFFIXES:
            find_preset(source)  # raises, with near names
        if others:
            raise InputError(
                f"{source} is a checkpoint and brings its own weights.",
                fix="Give a preset name together with weights or a seed.",
            )
        model = _load_file(path)
    appliers: dict[str, Callable[[Restorer, Any], None]] = {}
    for family in (*FAMILIES.values(), FAMILIES[model.spec.family]):  # another family says why its option does not fit
        appliers |= family.options
    for name, value in options.given().items():
        if name in appliers:
            try:
                appliers[name](model, value)
            except ValueError as error:
                raise InputError(f"{name} {value} does not fit {source}: {error}.") from error
    return model.eval()


def _load_preset(name: str, options: LoadOptions) -> Restorer:
    family, hyperparameters = find_preset(name)
    model = family.build(name=name, **hyperparameters)
    seed = options.random_weights
    if seed is not None:
        if not 0 <= seed < 2**64:
            raise InputError(f"The seed of random weights must be in 0..2^64-1, got {seed}.")
        randomise(model, seed)
        return model
    path = Path(options.weights) if options.weights is not None else packaged_models().get(name)
    if path is None:
        raise ModelNameError(
            f"The preset {name} has no trained weights in this package.",
            fix="Give a checkpoint (--weights FILE), or random weights for a trial (--random-weights SEED).",
        )
    state, _ = read_state(path)
    _fill(model, state, family, path)
    return model


def _load_file(path: Path) -> Restorer:
    state, metadata = read_state(path)
    for family in FAMILIES.values():
        if family.detect(state):
            break
    else:
        shown = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"{path}: the architecture is not known.",
            why=f"No family of {', '.join(FAMILIES)} has keys such as {shown}.",
            fix="Check that this is a checkpoint of one of these networks.",
        )
    try:
        hyperparameters = family.infer(state)
    except KeyError as error:
        raise CheckpointError(
            f"{path}: looks like {family.name}, but the key {error.args[0]} is missing.",
            fix="The file is incomplete: export or download it again.",
        ) from error
    except (ValueError, IndexError, TypeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{path}: looks like {family.name}, but its shapes do not fit: {error}.") from error
    name = _preset_of(family, hyperparameters, metadata)
    if name != "custom":
        hyperparameters = {**hyperparameters, **family.presets[name]}
    try:
        model = family.build(name=name, **hyperparameters)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: looks like {family.name}, but no such network can be built: {error}."
        ) from error
    _fill(model, state, family, path)
    return model


def _preset_of(family: Family, found: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """The preset these hyper-parameters belong to: the one the file names, else the only one that fits, else custom."""
    wanted = _shape(family.complete(found))
    fitting = [n for n, preset in family.presets.items() if _shape(family.complete(preset)) == wanted]
    named = metadata.get("preset")
    if named in fitting:
        return str(named)
    return fitting[0] if len(fitting) == 1 else "custom"


def _shape(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that weights show."""
    return {k: v for k, v in hyperparameters.items() if k not in ("name", "task", "noise_level")}


def _fill(model: Restorer, state: Mapping[str, Tensor], family: Family, path: Path) -> None:
    """Loads weights strictly; keys the family derives from hyper-parameters are left out."""
    given, wanted = (
        {key: value for key, value in source.items() if not key.endswith(family.derived)}
        for source in (state, model.state_dict())
    )
    what = f"{family.name} ({model.spec.name})"
    for key, value in wanted.items():
        if key not in given:
            missing = sum(name not in given for name in wanted)
            raise CheckpointError(
                f"{path}: the key {key} of {what} is missing ({missing} in all).",
                fix="The file is incomplete or of another variant of the network.",
            )
        if given[key].shape != value.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(given[key].shape)}, {what} needs {tuple(value.shape)}.",
                fix="Choose the preset the checkpoint was trained as.",
            )
        if given[key].is_floating_point() != value.is_floating_point():
            raise CheckpointError(
                f"{path}: {key} holds {given[key].dtype}, {what} needs {value.dtype}.",
                fix="Save the weights in floating point, as they were trained.",
            )
        given[key] = given[key].to(value.dtype)
        if value.is_floating_point() and not torch.isfinite(given[key]).all():
            count = int((~torch.isfinite(given[key])).sum())
            raise CheckpointError(
                f"{path}: {key} holds {count} values that are NaN or infinite.",
                why="The training diverged or the file is damaged.",
                fix="Take an earlier checkpoint.",
            )
    extra = [key for key in given if key not in wanted]
    if extra:
        raise CheckpointError(
            f"{path}: the key {extra[0]} is not part of {what} ({len(extra)} such keys).",
            fix="The network has parts this package does not know.",
        )
    model.load_state_dict(given, strict=False)
    if family.filled is not None:
        family.filled(model, path)
