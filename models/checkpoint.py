"""Loading models: by preset or packaged name, or from a checkpoint whose architecture is recognised by its weights."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError, ModelNameError, Unsupported
from .base import Restorer
from .branches import Branch, choose_branch
from .options import LoadOptions
from .origin import Assumption, Origin
from .registry import FAMILIES, LIBRARIES, Family, Library, find_preset, preset_names
from .spec import CHECKPOINT_SUFFIXES
from .state import exists, read_content
from .transform import randomise

__all__ = [
    "WEIGHTS_FOLDER",
    "ModelEntry",
    "list_models",
    "load_model",
    "packaged_models",
    "read_state",
]

LOGGER = logging.getLogger(__name__)

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
        released: Where the authors published trained weights, in words; empty where they did not.
    """

    name: str
    family: str
    paper: str
    scale: int
    task: str
    channels: int
    packaged: bool
    released: str = ""


def list_models() -> list[ModelEntry]:
    """All presets, family by family."""
    packaged = packaged_models()
    entries = []
    for family in FAMILIES.values():
        for name, preset in family.presets.items():
            full = family.complete(preset)
            shown = (full["scale"], full["task"], full["channels"], name in packaged, family.published(name))
            entries.append(ModelEntry(name, family.name, family.paper, *shown))
    return entries


def load_model(name_or_path: str | Path, options: LoadOptions | None = None, **keywords: Any) -> Restorer:
    """Loads a model for inference, in float32 on the CPU and in evaluation mode.

    What is chosen among several networks of a checkpoint, and a guess of the range of its inner values, go to the
    logger ``agileir_export``. The model's `origin` says what was read off the weights and what was assumed.

    Args:
        name_or_path: A packaged model, a preset together with `weights` or `random_weights`, or a checkpoint
            (.pth, .pt, .ckpt, .safetensors, .bin, .pth.tar) whose architecture is inferred from its keys and shapes.
        options: How to load it.
        keywords: Attributes of `LoadOptions`, such as ``top_k=64``, instead of the ones in `options`.

    Raises:
        ModelNameError: The name is unknown, or a preset has neither weights nor a seed.
        CheckpointError: The checkpoint is unreadable, unsafe, unknown, incomplete, or not finite.
        InputError: An option does not apply to this model.
        Unsupported: A variant of a known network that cannot be run.
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
        model = _load_file(path, options)
    appliers: dict[str, Callable[[Restorer, Any], None]] = {}
    own = FAMILIES.get(model.spec.family)
    for family in (*FAMILIES.values(), *filter(None, [own])):  # another family says why its option does not fit
        appliers |= family.options
    appliers["img_range"] = _set_range
    for name, value in options.given().items():
        if name in appliers:
            try:
                appliers[name](model, value)
            except ValueError as error:
                raise InputError(f"{name} {value} does not fit {source}: {error}.") from error
    model.origin = model.origin or Origin(source, options)
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
        published = family.published(name)
        raise ModelNameError(
            f"The preset {name} has no trained weights in this package.",
            why=f"The authors released {published}." if published else "The authors have published none.",
            fix="Give a checkpoint (--weights FILE), or random weights for a trial (--random-weights SEED).",
        )
    _fill(model, _read_branch(path)[0].state, family, path)
    return model


def _load_file(path: Path, options: LoadOptions) -> Restorer:
    branch, metadata = _read_branch(path)
    state = branch.state
    family = _family_of(state)
    if family is None:
        library = _library_of(state)
        if library is None:
            raise _unknown(state, path)
        return _from_library(library, branch, options, path)
    try:
        found = family.infer(state)
    except KeyError as error:
        raise CheckpointError(
            f"{path}: looks like {family.name}, but the key {error.args[0]} is missing.",
            fix="The file is incomplete: export or download it again.",
        ) from error
    except Unsupported as error:
        raise Unsupported(
            f"{path}: looks like {family.name}, but {error.what}", why=error.why, fix=error.fix
        ) from error
    except (ValueError, IndexError, TypeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{path}: looks like {family.name}, but its shapes do not fit: {error}.") from error
    name = _preset_of(family, found, metadata)
    hyperparameters = found if name == "custom" else {**found, **family.presets[name]}
    try:
        model = family.build(name=name, **hyperparameters)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: looks like {family.name}, but no such network can be built: {error}."
        ) from error
    _fill(model, state, family, path)
    assumed = _assumptions(model, family.assumed(found), options)
    guess = assumed["img_range"]
    unsure = (name == "custom" and model.spec.scale == 1) or model.spec.img_range != 1.0
    if unsure and options.img_range is None and metadata.get("preset") != name:
        LOGGER.warning(
            "%s: the network is taken to work on pictures in 0..%g (%s); weights do not say so. "
            "--img-range (img_range=) chooses another range.",
            path.name,
            guess.value,
            guess.why,
        )
    read = {key: value for key, value in found.items() if key not in assumed}
    model.origin = Origin(path.name, options, read, assumed, branch.name, branch.left_out)
    return model


def _from_library(library: Library, branch: Branch, options: LoadOptions, path: Path) -> Restorer:
    model = library.load(branch.state, path)
    spec = model.spec
    assumed = {
        "task": Assumption(spec.task, f"that of {spec.name}"),
        "img_range": Assumption(options.img_range or spec.img_range, f"what {library.name} gives its networks"),
    }
    model.origin = Origin(path.name, options, model.facts, assumed, branch.name, branch.left_out)
    return model


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a state dict, without wrappers and prefixes, and the metadata this package writes beside weights.

    Raises:
        CheckpointError: What reading the file and choosing among its networks raise.
    """
    branch, metadata = _read_branch(Path(path))
    return branch.state, metadata


def _read_branch(path: Path) -> tuple[Branch, dict[str, Any]]:
    """The weights in a file, and the metadata beside them."""
    content, metadata = read_content(path)
    recognisers = (lambda state: _family_of(state) is not None, lambda state: _library_of(state) is not None)
    branch = choose_branch(content, recognisers, path)
    if told := branch.told():
        LOGGER.info("%s: %s", path.name, told)
    return branch, metadata


def _family_of(state: Mapping[str, Tensor]) -> Family | None:
    return next((family for family in FAMILIES.values() if family.detect(state)), None)


def _library_of(state: Mapping[str, Tensor]) -> Library | None:
    return next((library for library in LIBRARIES.values() if library.detect(state)), None)


def _unknown(state: Mapping[str, Tensor], path: Path) -> CheckpointError:
    hints = [library.hint(state) for library in LIBRARIES.values()]
    whys, fixes = (" ".join(["", *filter(None, texts)]) for texts in zip(*hints, strict=True)) if hints else ("", "")
    keys, firsts = list(state), {key.partition(".")[0] for key in state}
    prefix = f" All begin with {min(firsts)}." if len(firsts) == 1 and len(keys) > 1 else ""
    return CheckpointError(
        f"{path}: the architecture is not known.",
        why=f"No family of {', '.join(FAMILIES)} has keys such as {', '.join(keys[:3])}.{prefix}{whys}",
        fix="Check that this is a checkpoint of one of these networks. Where their layers have other names, save the "
        "state dict under the released ones (conv_first.weight, layers.0...)." + fixes,
    )


def _set_range(model: Restorer, value: float) -> None:
    model.spec = dataclasses.replace(model.spec, img_range=value)


def _assumptions(model: Restorer, own: Mapping[str, Assumption], options: LoadOptions) -> dict[str, Assumption]:
    """What no weights hold: of every family, of this one, and as the options say."""
    spec = model.spec
    task = "the up-sampler's" if spec.scale > 1 else "not known; usual where the size is kept"
    mean = "that of DIV2K, of the released networks" if spec.channels == 3 else "none but for RGB"
    assumed = {
        "task": Assumption(spec.task, task),
        "img_range": Assumption(spec.img_range, "as all released networks but those for JPEG"),
        "mean": Assumption([round(float(value), 4) for value in model.mean.flatten()], mean),
        **own,
    }
    if spec.name != "custom":
        assumed["task"] = Assumption(spec.task, f"that of {spec.name}")
    if spec.noise_level is not None:
        assumed["noise_level"] = Assumption(spec.noise_level, f"that of {spec.name}")
    given = options.given()
    return assumed | {name: Assumption(given[name], "as asked for") for name in assumed.keys() & given.keys()}


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
