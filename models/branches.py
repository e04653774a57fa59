"""Which weights of a checkpoint are taken: trainers put wrappers and prefixes around them, and other networks beside.

A checkpoint is read as one tree: the keys of dictionaries within dictionaries, and the dotted parts of a state dict's
keys. A branch is whatever lies below one node; a network is found where a branch has the keys of a family.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError

__all__ = ["Branch", "choose_branch"]

State = dict[str, Tensor]

PREFERRED = (
    "params", "state_dict", "model_state_dict", "model_state", "model", "net_g", "netg", "generator", "g", "network_g",
    "network", "net", "weights", "module",
)  # fmt: skip
"""Names of wrappers and prefixes, in lower case; of several networks the one that comes first here is taken."""

AVERAGES = {"avg", "average", "averaged", "swa", "shadow"}
LAST = {"d", "net_d", "netd", "discriminator", "critic", "teacher", "old", "init", "current_model_state"}
"""Networks that are not the one to use where there is another."""

BESIDE = {"loss", "losses", "criterion", "criteria", "metric", "metrics", "perceptual", "lpips", "vgg", *LAST}
"""First parts of keys that a training module has beside the layers of a network."""

TRANSPARENT = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of keys that torch.compile, FSDP and activation checkpointing insert anywhere."""

COUNTER = "n_averaged"
"""Beside the weights of `torch.optim.swa_utils.AveragedModel`."""

DEEPEST = 8
"""Wrappers within wrappers, and parts of a prefix, that are looked into."""

REPEATED = 2**20
"""Elements that a tensor may have although its file holds fewer: of a table that was saved expanded."""


@dataclass(frozen=True)
class Branch:
    """The weights of one network.

    Attributes:
        name: The keys that led to them, joined by dots; empty for weights without wrapper and prefix.
        state: The state dict, without prefix.
        averaged: Whether they are a running average of those that were trained.
        left_out: Names of the other branches.
    """

    name: str
    state: State
    averaged: bool
    left_out: tuple[str, ...]

    def told(self) -> str:
        """What was chosen, where there was a choice; else empty."""
        said = ""
        if self.averaged:
            said = f"the averaged weights (EMA) in {self.name or 'it'} are taken"
        elif self.left_out:
            said = f"the weights in {self.name or 'its top level'} are taken"
        return f"{said}; left out: {', '.join(self.left_out)}" if said and self.left_out else said


class _Tree:
    """The tensors of a checkpoint by path, what else it holds, and the wrappers each path leads through."""

    def __init__(self, content: object) -> None:
        self.tensors: State = {}
        self.rest: list[tuple[str, object, object]] = []
        self.wrappers: dict[str, tuple[str, ...]] = {}
        self._walk(content, (), {id(content)})

    def _walk(self, content: object, wrappers: tuple[str, ...], above: set[int]) -> None:
        if not isinstance(content, Mapping):
            return
        start = "".join(f"{wrapper}." for wrapper in wrappers)
        for key, value in content.items():
            name = start + str(key)
            if isinstance(value, Tensor) and isinstance(key, str):
                plain = ".".join(part for part in name.split(".") if part not in TRANSPARENT)
                taken = name if plain in self.tensors else plain
                self.tensors[taken], self.wrappers[taken] = value, wrappers
            elif isinstance(value, Mapping) and id(value) not in above and len(wrappers) < DEEPEST:
                self._walk(value, (*wrappers, str(key)), above | {id(value)})
            else:
                self.rest.append((start, key, value))

    def branches(self) -> dict[str, State]:
        """Every branch by its name with a closing dot; the whole is ``""``."""
        found: dict[str, State] = {"": dict(self.tensors)}
        for name, tensor in self.tensors.items():
            parts = name.split(".", DEEPEST)
            for end in range(1, len(parts)):
                start = ".".join(parts[:end]) + "."
                found.setdefault(start, {})[name[len(start) :]] = tensor
        return found

    def code(self, prefix: str, path: Path) -> str:
        """A line of Python that saves one branch alone."""
        name = next(name for name in self.tensors if name.startswith(prefix))
        content = f'torch.load("{path.name}")' + "".join(f"[{wrapper!r}]" for wrapper in self.wrappers[name])
        inner = prefix[len("".join(f"{wrapper}." for wrapper in self.wrappers[name])) :]
        if inner:
            content = f'{{k.removeprefix("{inner}"): v for k, v in {content}.items() if k.startswith("{inner}")}}'
        return f'torch.save({content}, "{_shown(prefix) or "weights"}.pth")'


def choose_branch(content: object, recognisers: Sequence[Callable[[Mapping[str, Tensor]], bool]], path: Path) -> Branch:
    """The weights in what a checkpoint holds: those of the network in it, an average before what it averages.

    Args:
        content: What was loaded: a state dict, or dictionaries around several.
        recognisers: Whether a state dict is one of a known network, the first that finds one decides. Those after the
            first take what lies within a network for its part, unless it is an average. Where none finds any, usual
            wrappers are taken off.
        path: The file, for messages.

    Raises:
        CheckpointError: No weights, an optimizer's state, several networks without a hint, or unusual tensors.
    """
    tree = _Tree(content)
    for name, tensor in tree.tensors.items():
        _check_held(name, tensor, path)
    branches = tree.branches()
    networks: list[str] = []
    for number, recognised in enumerate(recognisers):
        found = [name for name, state in branches.items() if recognised(state)]
        networks = _outermost(found, branches) if number else found
        if networks:
            break
    if networks:
        chosen = _preferred(networks, branches, tree, path)
    else:
        _refuse_what_holds_no_weights(content, tree, path)
        usual = [name for name in branches if all(_usual(part) for part in name.split(".")[:-1])]
        chosen = min(usual, key=lambda name: (*_rank(name, branches), -len(name)))
    for start, key, value in tree.rest:
        if start == chosen and (not isinstance(key, str) or (isinstance(value, list | tuple | Mapping) and "." in key)):
            raise _no_tensor(path, key, value)
    inner = [name for name in networks if name != chosen and name.startswith(chosen)]
    state, beside = {}, set()
    for key, value in branches[chosen].items():
        first = key.partition(".")[0]
        if any((chosen + key).startswith(name) for name in inner) or (networks and _known(first) in BESIDE):
            beside.add(_other(chosen + key, chosen))
        elif key != COUNTER:
            _check_dense(key, value, path)
            state[key] = value
    others = (name for name in tree.tensors if not name.startswith(chosen) and name.split(".")[-1] != COUNTER)
    outside = {_other(name, chosen) for name in others}
    unnamed = {_shown(start) + f".{key}" if start else str(key) for start, key, value in tree.rest if _weights(value)}
    averaged = bool(networks) and _averaged(chosen, branches)
    return Branch(_shown(chosen), state, averaged, tuple(sorted(beside | outside | unnamed)))


def _outermost(names: list[str], branches: Mapping[str, State]) -> list[str]:
    """Those that do not lie in another of them, or are an average that does."""

    def within(name: str) -> bool:
        return any(name != other and name.startswith(other) for other in names)

    return [name for name in names if not within(name) or _averaged(name, branches)]


def _preferred(names: list[str], branches: Mapping[str, State], tree: _Tree, path: Path) -> str:
    """Of the branches that are networks the one to use.

    Raises:
        CheckpointError: Nothing says which.
    """
    columns = zip(*(name.split(".") for name in names), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    ranks = {name: _rank(name, branches, shared) for name in names}
    best = min(ranks.values())
    first, *others = [name for name in names if ranks[name] == best]
    for other in others:
        if not _equal(branches[first], branches[other]):
            shown = ", ".join(_shown(name) or "the top level" for name in (first, *others))
            raise CheckpointError(
                f"{path}: holds {1 + len(others)} networks: {shown}.",
                why="Nothing says which of them is wanted.",
                fix=f"Save one alone, such as {tree.code(first or other, path)}.",
            )
    return first


def _rank(name: str, branches: Mapping[str, State], shared: int = 0) -> tuple[bool, bool, int]:
    """Sorts averages first, discriminators and the like last, and between them what has a usual name.

    Args:
        name: The branch.
        branches: All of them.
        shared: Leading parts of the name that do not count.
    """
    parts = [_known(part) for part in name.split(".")[shared:-1]]
    places = [PREFERRED.index(part) for part in parts if part in PREFERRED]
    return not _averaged(name, branches), any(part in LAST for part in parts), min(places, default=len(PREFERRED))


def _known(part: str) -> str:
    """A part of a name as it stands in the tables."""
    return part.lower().replace("-", "_")


def _usual(part: str) -> bool:
    return _known(part) in PREFERRED or _names_average(part)


def _names_average(part: str) -> bool:
    """Whether a part of a name speaks of averaged weights: ``model_ema``, ``params-ema``, ``netE``, ``swa_model``."""
    part = _known(part)
    words = re.split("_", part)
    return part in ("e", "nete", "net_e") or any(
        word in AVERAGES or word.startswith("ema") or word.endswith("ema") for word in words
    )


def _averaged(name: str, branches: Mapping[str, State]) -> bool:
    """Whether a branch is a running average, by its name or by the counter beside it."""
    parts = name.split(".")[:-1]
    above = "".join(f"{part}." for part in parts[:-1])
    counted = COUNTER in branches[name] or (bool(parts) and COUNTER in branches[above])
    return counted or any(_names_average(part) for part in parts)


def _equal(one: State, other: State) -> bool:
    """Whether two state dicts are the same: a network that is registered under two names, for example."""
    return one.keys() == other.keys() and all(
        value.shape == other[key].shape and torch.equal(value, other[key]) for key, value in one.items()
    )


def _other(name: str, chosen: str) -> str:
    """What to call a branch that is left out: the path up to the first part that differs from the chosen one."""
    parts, taken = name.split("."), chosen.split(".")[:-1]
    same = next((i for i, pair in enumerate(zip(parts, taken, strict=False)) if pair[0] != pair[1]), len(taken))
    return ".".join(parts[: same + 1])


def _shown(name: str) -> str:
    return name.removesuffix(".")


def _weights(value: object) -> bool:
    """Whether a value holds weights without names, such as the shadow parameters of an average."""
    return isinstance(value, list | tuple) and any(isinstance(entry, Tensor) for entry in value)


def _check_held(name: str, value: Tensor, path: Path) -> None:
    """Refuses a tensor that claims sides far beyond its values: looking at it would take any time and memory."""
    if value.layout != torch.strided or value.device.type != "cpu":
        return
    held = value.untyped_storage().nbytes() // value.element_size()
    if math.prod(max(1, side) for side in value.shape) > max(held, REPEATED):
        raise CheckpointError(
            f"{path}: {name} has shape {tuple(value.shape)}, but the file holds {held} values of it.",
            fix="The file is damaged: download or save it again.",
        )


def _check_dense(key: str, value: Tensor, path: Path) -> None:
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise CheckpointError(
            f"{path}: {key} is not an ordinary dense tensor.",
            why=f"It is {value.dtype} on {value.device.type} with layout {value.layout}.",
            fix="Save the weights as dense floating-point tensors.",
        )


def _no_tensor(path: Path, key: object, value: object) -> CheckpointError:
    what = (
        "a tensor without a text for a name" if isinstance(value, Tensor) else f"{type(value).__name__}, not a tensor"
    )
    return CheckpointError(
        f"{path}: the entry {key!r} is {what}.",
        fix=f"Save the state dict alone, or under one of {', '.join(('params_ema', *PREFERRED[:4]))}.",
    )


def _refuse_what_holds_no_weights(content: object, tree: _Tree, path: Path) -> None:
    """Raises where there is no state dict at all, or that of an optimizer."""
    if isinstance(content, Mapping) and _of_optimizer(content):
        raise CheckpointError(
            f"{path}: holds the state of an optimizer, not the weights of a network.",
            why="Trainers write both, side by side.",
            fix="Take the file of the network: ..._E.pth (averaged weights) or ..._G.pth, net_g_....pth, model.pth.",
        )
    if not isinstance(content, Mapping) or not (tree.tensors or tree.rest):
        raise CheckpointError(
            f"{path}: holds no state dict but {type(content).__name__}"
            f"{' without entries' if isinstance(content, Mapping) else ''}.",
            fix="Save model.state_dict().",
        )
    if not tree.tensors:
        _, key, value = tree.rest[0]
        raise _no_tensor(path, key, value)


def _of_optimizer(content: Mapping[object, object]) -> bool:
    """Whether a dictionary is the state of optimizers and nothing else (PyTorch, KAIR, BasicSR)."""
    inside: Iterable[object] = (content, *content.values())
    states = any(isinstance(part, Mapping) and {"state", "param_groups"} <= part.keys() for part in inside)
    return states or "optimizers" in content
