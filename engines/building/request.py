"""What an engine is to be built from and for: everything the builder is told, and everything the cache keys."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.facts import program_facts
from ...errors import InputError, Unsupported
from ...export.artifact import OnnxArtifact
from ...files import check_output
from ...json_form import JsonForm
from ..profiles import Profile, check_profiles
from ..targets import TARGETS, Target

__all__ = [
    "COMPATIBILITY",
    "BuildOptions",
    "BuildRequest",
    "check_options",
    "check_request",
    "choose_plugins",
]

COMPATIBILITY = ("none", "same-capability", "ampere-plus")
"""Other GPUs of TensorRT's an engine may run on: none, those of its compute capability, Ampere and all later ones."""

MAXIMUM_OPTIMIZATION_LEVEL = 5

TURING = "sm75"

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildOptions(JsonForm):
    """How an engine is to be built, of whatever file.

    Attributes:
        target: Name of the target; ``"auto"`` for one that can build here, see `choose_target`.
        gpus: Compute capabilities such as ``"sm86"``; empty for the target's own choice, or the GPU at hand.
        tf32: Let float32 products round their factors to 10 bits (TF32).
        use_plugins: Run the operators as plugins instead of by their ONNX function bodies.
        plugin_form: Which plugins, one of `PLUGIN_FORMS`; empty for the form that the target prefers.
        fuse_blocks: Run what stands around the operators as plugins, too: layer norms, projections, MLP and residuals.
        optimization_level: 0 (fastest build) to 5; None for the target's own.
        workspace_bytes: Most memory a kernel may take for itself; None for the target's own limit.
        version_compatible: Make the engine run under later TensorRT versions, too.
        hardware_compatible: One of `COMPATIBILITY`.
        timing_cache: File of TensorRT's kernel timings, read and written back; it changes the time of a build only.
    """

    target: str
    gpus: tuple[str, ...] = ()
    tf32: bool = False
    use_plugins: bool = False
    plugin_form: str = ""
    fuse_blocks: bool = False
    optimization_level: int | None = None
    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware_compatible: str = "none"
    timing_cache: Path | None = None

    @property
    def target_entry(self) -> Target:
        """The target's entry in the registry."""
        return TARGETS[self.target]

    @property
    def form(self) -> str:
        """The form of its plugins; empty without plugins."""
        return (self.plugin_form or self.target_entry.plugin_forms[0]) if self.use_plugins else ""

    def kernel_capabilities(self, gpus: Iterable[str]) -> tuple[int, ...]:
        """Compute capabilities (times ten) that kernels are compiled for in an engine for `gpus`; none for all GPUs."""
        anywhere = self.hardware_compatible == "ampere-plus"
        return () if anywhere else tuple(int(gpu.removeprefix("sm")) for gpu in gpus)


PATHS = ("onnx", "timing_cache")
"""Attributes of a request that say where files lie, which changes nothing of the engine."""


@dataclass(frozen=True, kw_only=True)
class BuildRequest(BuildOptions):
    """One engine to build. The precision is that of the ONNX file: networks are strongly typed.

    Attributes:
        onnx: The file; None where the model is in memory only.
        sha256: Digest of its bytes.
        network: Name of the model, by which the cache compares builds.
        precision: What the file holds and the audit expects: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"``.
        profiles: Sizes, one optimisation profile each.
    """

    onnx: Path | None
    sha256: str
    network: str
    precision: str
    profiles: tuple[Profile, ...]

    @property
    def subject(self) -> str:
        """What messages call the model: its file, or its name with the precision."""
        return f"{self.network} ({self.precision})" if self.onnx is None else str(self.onnx)

    def to_json(self) -> dict[str, Any]:
        """The request as a JSON object, with absolute paths."""
        paths = {name: getattr(self, name) for name in PATHS}
        return super().to_json() | {name: path and str(path.absolute()) for name, path in paths.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BuildRequest:
        """The request that `to_json` described."""
        paths = {name: None if data[name] is None else Path(data[name]) for name in PATHS}
        profiles = tuple(Profile.from_json(profile) for profile in data["profiles"])
        return cls(**{**data, **paths, "profiles": profiles, "gpus": tuple(data["gpus"])})

    def facts(self, version: str, gpu: str, driver: str) -> dict[str, Any]:
        """All that the engine's bytes depend on, as the cache keys it; where files lie does not matter.

        Args:
            version: Version of the target.
            gpu: Name and compute capability of the GPU that builds; empty where none takes part.
            driver: Version of its driver; empty where none takes part.
        """
        data = self.to_json()
        for name in PATHS:
            del data[name]
        return {**data, "target_version": version, **program_facts(), "gpu": gpu, "driver": driver}


def check_options(options: BuildOptions, precision: str | None) -> None:
    """Refuses what no file can be built with, before anything is started.

    Args:
        options: How to build.
        precision: What the engine's file will hold; None where that is not known yet.

    Raises:
        InputError: A number out of its range, a GPU named twice, or half blocks without plugins.
        Unsupported: A form of plugins, or compatibility with other machines, from a target without them; GPUs of a
            target that builds for the one at hand; a precision that a GPU does not have.
        OutputError: The timing cache cannot be written.
    """
    target, level = options.target_entry, options.optimization_level
    if level is not None and not 0 <= level <= MAXIMUM_OPTIMIZATION_LEVEL:
        raise InputError(f"The optimisation level {level} is not in 0..{MAXIMUM_OPTIMIZATION_LEVEL}.")
    if options.workspace_bytes is not None and options.workspace_bytes < 1:
        raise InputError(f"The workspace must be at least one byte, got {options.workspace_bytes}.")
    if options.fuse_blocks and not options.use_plugins:
        raise InputError("Half blocks are plugins, and the engine is to have none.", fix="Leave --fuse blocks out.")
    if options.plugin_form and options.plugin_form not in target.plugin_forms:
        raise Unsupported(
            f"{target.title} takes no plugins of the form {options.plugin_form!r}.",
            fix=f"Leave --plugin-form out, or choose {' or '.join(target.plugin_forms)}.",
        )
    if target.builds_without_gpu:
        _check_named_gpus(options, target)
    if options.timing_cache is not None:
        check_output(options.timing_cache, overwrite=True)
    if options.gpus and not target.builds_without_gpu:
        raise Unsupported(
            f"{target.title} builds for the GPU of the machine, not for {', '.join(options.gpus)}.",
            why="It times its kernels on that GPU.",
            fix="Leave --gpu out and build on the GPU the engine is for, or use --target rtx.",
        )
    if len(set(options.gpus)) < len(options.gpus):
        raise InputError(f"A GPU is named twice: {', '.join(options.gpus)}.", fix="Name each once.")
    if TURING in options.gpus and precision in ("bfloat16", "float32"):
        lacking = {
            "bfloat16": f"{TURING} cannot compute in bfloat16.",
            "float32": f"{target.title} has no float32 matrix products for Turing ({TURING}).",
        }
        raise Unsupported(
            lacking[precision],
            why=f"{target.title} builds one engine for all GPUs of --gpu.",
            fix=f"Build with --fp16, or leave {TURING} out of --gpu.",
        )


def _check_named_gpus(options: BuildOptions, target: Target) -> None:
    """Refuses what a target that builds for named GPUs does not have."""
    refused = {
        "makes no version-compatible engines": options.version_compatible,
        "knows no compatibility levels": options.hardware_compatible != "none",
        "keeps no timing cache": options.timing_cache is not None,
    }
    fixes = {
        "makes no version-compatible engines": "Build again for each version; that takes seconds to minutes.",
        "knows no compatibility levels": "Name every compute capability the engine shall run on with --gpu.",
        "keeps no timing cache": "Leave --timing-cache out: it builds without timing kernels.",
    }
    for what, asked in refused.items():
        if asked:
            raise Unsupported(f"{target.title} {what}.", fix=fixes[what])


def check_request(request: BuildRequest, artifact: OnnxArtifact) -> None:
    """Refuses what a file cannot be built with; `check_options` refuses what none can.

    Raises:
        InputError: TF32 for a file that is not float32; or see `check_profiles`.
    """
    if request.tf32 and request.precision != "float32":
        raise InputError(
            f"TF32 is for float32 products, and {artifact.name} holds {request.precision}.",
            fix="Leave --tf32 out, or start from a float32 file.",
        )
    check_profiles(request.profiles, artifact)


def choose_plugins(choice: str, target: Target, artifact: OnnxArtifact, gpus: tuple[str, ...] = ()) -> bool:
    """Whether the operators of a file are to run as plugins.

    Args:
        choice: ``"plugin"``, ``"decomposed"``, or ``"auto"``: plugins where engines with them have run on the target,
            the file has operators, and Triton is here to compile their kernels.
        target: The target.
        artifact: The file.
        gpus: Compute capabilities that are named. Where Turing is among them there are no plugins, with a warning: no
            kernel is for it, and an engine has one form.

    Raises:
        InputError: Plugins are asked for, and the file has no operators.
    """
    if choice == "plugin" and not artifact.operators:
        raise InputError(
            f"{artifact.name} holds no attention operators that a plugin could run: it was exported decomposed.",
            fix="Export it without --decomposed, or use --attention decomposed.",
        )
    if choice == "plugin" and TURING in gpus:
        LOGGER.warning(
            "There are no plugins for %s, which is older than Ampere: the attention operators are written out as their "
            "ONNX function bodies, for all of --gpu.",
            TURING,
        )
        return False
    if choice != "auto":
        return choice == "plugin"
    return target.auto_plugins and bool(artifact.operators) and importlib.util.find_spec("triton") is not None
