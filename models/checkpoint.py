"""Loading models: by preset or packaged name, or from a checkpoint whose architecture is recognised by its weights.

Only tensors are read: checkpoints are opened with ``weights_only=True``, so that pickled code never runs.
"""

from __future__ import annotations

import collections
import json
import pickle
import pickletools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError, ModelNameError
from .agileir import attention_never_trained
from .base import Restorer
from .registry import FAMILIES, Family, find_preset, preset_names
from .semanir import set_top_k
from .spec import CHECKPOINT_SUFFIXES
from .transform import randomise

__all__ = [
    "WEIGHTS_FOLDER",
    "ModelEntry",
    "ReleasedCodeWarning",
    "list_models",
    "load_model",
    "packaged_models",
    "read_state",
]

WRAPPERS = ("params_ema", "params", "state_dict", "model")
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
METADATA_KEY = "agileir"
ATTENTION_FORMS = ("paper", "bypassed")


class ReleasedCodeWarning(UserWarning):
    """A checkpoint was trained with AgileIR's released code, whose attention has no effect on the output."""


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


def load_model(
    name_or_path: str | Path,
    *,
    weights: str | Path | None = None,
    random_weights: int | None = None,
    top_k: int | None = None,
    attention: str = "paper",
) -> Restorer:
    """Loads a model for inference, in float32 on the CPU and in evaluation mode.

    Args:
        name_or_path: A packaged model, a preset together with `weights` or `random_weights`, or a checkpoint
            (.pth, .pt, .ckpt, .safetensors) whose architecture is inferred from its keys and shapes.
        weights: Checkpoint for a preset.
        random_weights: Seed of random weights for a preset, >= 0.
        top_k: Keys per query of a SemanIR model, instead of its own.
        attention: ``"paper"``, or ``"bypassed"`` for AgileIR's released behaviour (the attention has no effect).

    Raises:
        ModelNameError: The name is unknown, or a preset has neither weights nor a seed.
        CheckpointError: The checkpoint is unreadable, unsafe, unknown, incomplete, or not finite.
        InputError: An option does not apply to this model.
    """
    source = str(name_or_path)
    if attention not in ATTENTION_FORMS:
        raise InputError(
            f"The attention form {attention!r} is not known.",
            fix=f"Choose one of {', '.join(ATTENTION_FORMS)}.",
        )
    if weights is not None and random_weights is not None:
        raise InputError("Both weights and random weights were asked for.", fix="Give one of them.")
    if source in preset_names():
        model = _load_preset(source, weights, random_weights, attention)
    else:
        path = Path(name_or_path)
        if not _exists(path) and path.suffix.lower() not in CHECKPOINT_SUFFIXES:
            find_preset(source)  # raises, with near names
        if weights is not None or random_weights is not None:
            raise InputError(
                f"{source} is a checkpoint and brings its own weights.",
                fix="Give a preset name together with weights or a seed.",
            )
        model = _load_file(path, attention)
    if attention == "bypassed" and model.spec.family != "agileir":
        raise InputError(
            f'attention="bypassed" does not fit {source}, a {model.spec.family} model.',
            why="Only AgileIR's released code discards the attention.",
        )
    if top_k is not None:
        try:
            set_top_k(model, top_k)
        except ValueError as error:
            raise InputError(f"top_k {top_k} does not fit {source}: {error}.") from error
    return model.eval()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for a file, for example
        return False


def _load_preset(name: str, weights: str | Path | None, seed: int | None, attention: str) -> Restorer:
    family, hyperparameters = find_preset(name)
    if family.name == "agileir":
        hyperparameters["attention"] = attention
    model = family.build(name=name, **hyperparameters)
    if seed is not None:
        if not 0 <= seed < 2**64:
            raise InputError(f"The seed of random weights must be in 0..2^64-1, got {seed}.")
        randomise(model, seed)
        return model
    path = Path(weights) if weights is not None else packaged_models().get(name)
    if path is None:
        raise ModelNameError(
            f"The preset {name} has no trained weights in this package.",
            fix="Give a checkpoint (--weights FILE), or random weights for a trial (--random-weights SEED).",
        )
    state, _ = read_state(path)
    _fill(model, state, family, path)
    return model


def _load_file(path: Path, attention: str) -> Restorer:
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
    if family.name == "agileir":
        hyperparameters["attention"] = attention
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
    return {k: v for k, v in hyperparameters.items() if k not in ("name", "task", "attention", "noise_level")}


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a state dict and the metadata this package writes beside weights (empty where there is none).

    Raises:
        CheckpointError: The file is missing, truncated, holds anything but tensors, or has another suffix.
    """
    path = Path(path)
    if not _exists(path) or not path.is_file():
        exists = _exists(path)
        kind = "does not exist" if not exists else "is a folder" if path.is_dir() else "is no file"
        raise CheckpointError(f"{path}: the checkpoint {kind}.", fix="Check the path.")
    if path.suffix.lower() not in CHECKPOINT_SUFFIXES:
        raise CheckpointError(
            f"{path}: {path.suffix or 'no suffix'} is not a checkpoint format.",
            fix=f"Checkpoints end in {', '.join(CHECKPOINT_SUFFIXES)}.",
        )
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    return _unwrap(_read_pickle(path), path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except Exception as error:  # whatever a damaged file makes the reader trip over
        raise _unreadable(path, _one_sentence(error)) from error
    return _unwrap(state, path), metadata if isinstance(metadata, dict) else {}


def _read_pickle(path: Path) -> object:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise _unreadable(path, _one_sentence(error)) from error
    if not start.startswith((b"\x80", b"PK\x03\x04")):
        raise _unreadable(path, "It is neither a PyTorch archive nor a pickle.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols and TorchScript: an error follows
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if start.startswith(b"\x80") and _ends_early(path):
            raise _unreadable(path, "It ends too early.") from error
        raise CheckpointError(
            f"{path}: holds pickled objects besides tensors, which could run code when loaded.",
            why=_one_sentence(error, "global", "unsupported"),
            fix="Nothing was run. Save the state dict alone: torch.save(model.state_dict(), FILE), or use safetensors.",
        ) from error
    except Exception as error:  # whatever a damaged file makes the reader trip over
        reason = _one_sentence(error, "failed reading", "torchscript", "unsupported")
        raise _unreadable(path, reason) from error


def _ends_early(path: Path) -> bool:
    """True for a file of pickles whose last one is cut off; the pickles are read, not executed."""
    with path.open("rb") as file:
        for _ in range(5):  # torch's older format: number, protocol, system, objects, storage keys
            if not file.peek(1):
                return False
            try:
                collections.deque(pickletools.genops(file), maxlen=0)
            except Exception:
                return True
    return False


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be read as a checkpoint ({path.stat().st_size} bytes).",
        why=why,
        fix="The file may be truncated or of another kind: download or save it again.",
    )


def _one_sentence(error: Exception, *wanted: str) -> str:
    """The first sentence of the line that has a wanted word in it, else of the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    fitting = [line for word in wanted for line in lines if word in line.lower()]
    chosen = (fitting or lines or ["It ends too early."])[0].split(". ")[0][:200]
    return f"{chosen.removesuffix('.')}."


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """Takes the weights out of the wrappers training codes put around them."""
    for _ in WRAPPERS:  # each at most once: a pickle may contain itself
        if not isinstance(loaded, Mapping):
            break
        inside = [loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if not inside:
            break
        loaded = inside[0]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(
            f"{path}: holds no state dict but {type(loaded).__name__}"
            f"{' without entries' if isinstance(loaded, Mapping) else ''}.",
            fix="Save model.state_dict().",
        )
    state: dict[str, Tensor] = {}
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: the entry {key!r} is {type(value).__name__}, not a tensor.",
                fix=f"Save the state dict alone, or under one of {', '.join(WRAPPERS)}.",
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise CheckpointError(
                f"{path}: {key} is not an ordinary dense tensor.",
                why=f"It is {value.dtype} on {value.device.type} with layout {value.layout}.",
                fix="Save the weights as dense floating-point tensors.",
            )
        state[key.removeprefix("module.")] = value
    return state


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
    if family.name == "agileir" and attention_never_trained(given):
        warnings.warn(
            f"{path} was trained with AgileIR's released code, which discards the attention (every output projection "
            'kept its initial zero scale). It runs with attention as in the paper; attention="bypassed" reproduces '
            "the released behaviour.",
            ReleasedCodeWarning,
            stacklevel=4,
        )
    model.load_state_dict(given, strict=False)
    if "geometry" in given:
        _take_geometry(model, given["geometry"].tolist(), path)


def _take_geometry(model: Restorer, geometry: list[int], path: Path) -> None:
    """Checks the window of SemanIR weights against the network's, and takes over their top_k."""
    window_size, top_k = geometry
    if window_size != model.spec.window_size:
        raise CheckpointError(
            f"{path}: geometry says window {window_size}, {model.spec.name} has {model.spec.window_size}.",
            fix="Choose the preset the checkpoint was trained as.",
        )
    try:
        set_top_k(model, top_k)
    except ValueError as error:
        raise CheckpointError(f"{path}: geometry does not fit: {error}.") from error
