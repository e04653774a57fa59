"""The NVIDIA targets engines are built for: which module each is, and whether it can build here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import EnvironmentProblem, InputError
from ..version import RTX_INSTALL, TENSORRT_INSTALL
from .doctor import Diagnosis, TargetVerdict, diagnose

__all__ = [
    "AUTO",
    "PLUGIN_FORMS",
    "PYTHON_FORM",
    "TARGETS",
    "Target",
    "check_capabilities",
    "choose_target",
    "load_target",
]

AUTO = "auto"

PYTHON_FORM = "python"

PLUGIN_FORMS = ("quick", PYTHON_FORM)
"""Quickly deployable plugins, whose plans any program runs; plugins in Python, whose plans need this package."""


@dataclass(frozen=True)
class Target:
    """A product of NVIDIA that turns ONNX files into engines; all have the Python interface of TensorRT.

    Attributes:
        name: What the command line calls it.
        title: What NVIDIA calls it.
        modules: Python modules that may hold it, the preferred one first.
        check: The doctor's name of what building needs.
        plugin_check: That of what building with plugins needs, where it is more.
        install: Command that installs it.
        plugin_forms: Forms of `PLUGIN_FORMS` in which it takes plugins, the preferred one first.
        auto_plugins: Whether ``auto`` takes them: not before an engine with them has run on such a GPU.
        default_gpus: Compute capabilities to build for unless told; empty for a target that builds for the GPU at hand
            only (and needs one).
    """

    name: str
    title: str
    modules: tuple[str, ...]
    check: str
    install: str
    plugin_forms: tuple[str, ...]
    auto_plugins: bool
    default_gpus: tuple[str, ...] = ()
    plugin_check: str = ""

    @property
    def builds_without_gpu(self) -> bool:
        """Whether it builds for named compute capabilities, on any machine."""
        return bool(self.default_gpus)

    def verdict(self, diagnosis: Diagnosis | None = None, plugins: bool = False) -> TargetVerdict:
        """Whether it can build here, with plugins or without, as the doctor sees it."""
        found = diagnosis or diagnose()
        check = (plugins and self.plugin_check) or self.check
        return next(verdict for verdict in found.targets if verdict.name == check)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("tensorrt", "TensorRT", ("tensorrt",), "tensorrt build", TENSORRT_INSTALL, PLUGIN_FORMS, True),
        Target(
            "rtx",
            "TensorRT-RTX",
            ("tensorrt_rtx", "tensorrt_rtx_bindings"),
            "tensorrt-rtx build",
            RTX_INSTALL,
            (PYTHON_FORM,),
            False,
            ("sm86", "sm89", "sm120"),
            "tensorrt-rtx plugins build",
        ),
    )
}
"""All targets by name, in the order ``auto`` prefers them."""


def choose_target(name: str, diagnose: Callable[[], Diagnosis] = diagnose) -> Target:
    """The target of that name; for ``auto``, the first that can build on this machine.

    Raises:
        InputError: No target has this name.
        EnvironmentProblem: ``auto``, and no target can build here.
    """
    if name != AUTO:
        if name not in TARGETS:
            raise InputError(f"{name!r} is not a target.", fix=f"Choose one of {', '.join([*TARGETS, AUTO])}.")
        return TARGETS[name]
    diagnosis = diagnose()
    verdicts = {target.title: target.verdict(diagnosis) for target in TARGETS.values()}
    for target in TARGETS.values():
        if verdicts[target.title].works:
            return target
    raise EnvironmentProblem(
        "No engine can be built on this machine.",
        why="; ".join(f"{title}: {verdict.why_not}" for title, verdict in verdicts.items()) + ".",
        fix=f"TensorRT-RTX builds without a GPU: {TARGETS['rtx'].install}",
    )


def load_target(target: Target) -> Any:
    """Imports a target's module. One process must not load both targets.

    Raises:
        EnvironmentProblem: It is not installed, or does not load.
    """
    problems = []
    for module in target.modules:
        try:
            return importlib.import_module(module)
        except (ImportError, OSError) as error:
            problems.append(f"{module}: {error}")
    raise EnvironmentProblem(
        f"{target.title} cannot be imported.", why="; ".join(problems) + ".", fix=f"Install it: {target.install}"
    )


def check_capabilities(target: Target, trt: Any, gpus: tuple[str, ...]) -> None:
    """Refuses compute capabilities that a target does not build for.

    Args:
        target: The target.
        trt: Its module, which lists what it can build for.
        gpus: Such as ``"sm86"``; empty for the target's own choice.

    Raises:
        InputError: One is unknown.
    """
    if not target.builds_without_gpu:
        return
    known = [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    for gpu in gpus:
        if gpu not in known:
            raise InputError(
                f"{target.title} {trt.__version__} knows no GPU {gpu!r}.", fix=f"Choose among {', '.join(known)}."
            )
