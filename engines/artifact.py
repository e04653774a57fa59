"""A built engine and the sidecar beside it, which says what it is; the plan itself stays as the builder wrote it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..json_form import JsonForm, parse_json
from ..models.spec import ModelSpec
from .profiles import Profile
from .targets import PYTHON_FORM

__all__ = ["ENGINE_SUFFIXES", "FOREIGN", "EngineArtifact", "is_engine", "read_engine", "sidecar_path"]

ENGINE_SUFFIXES = (".plan", ".engine", ".trt")

FOREIGN = "Other programs take an engine that was built with --attention decomposed."
"""What is said of an engine that needs this package."""

SIDECAR_VERSION = 1


@dataclass(frozen=True)
class EngineArtifact(JsonForm):
    """An engine written by this package.

    Attributes:
        path: The plan: exactly the builder's bytes, for trtexec, C++ and Triton Inference Server.
        sha256: Digest of the plan.
        target: ``"tensorrt"`` or ``"rtx"``.
        precision: ``"float32"``, ``"float16"``, ``"bfloat16"`` or ``"int8"``; tensors at input and output are float32.
        profiles: The sizes it takes, in the engine's order.
        gpus: Compute capabilities it was built for, such as ``"sm86"``.
        spec: The model's spec.
        facts: All that its bytes depend on, as the cache keys it: digests, versions, GPU, driver, flags.
        audit: Realised precision of its kernels, as `engines.audit` writes it.
        provenance: Where the weights come from, as in the ONNX file.
        build: ``seconds`` (wall), ``peak_memory_bytes`` (of the building process), ``cached``, and
            ``least_memory_bytes`` that the engine needs of a GPU, of each profile; the number of its ``half_blocks``
            where it was to have some.
        plugins: Of its plugins the ``form`` and what the kernels were compiled for (``kernels_for``, such as
            ``"sm_90a"``), and of those that need this package where the engine runs (``"python"``) the ``layout`` of
            their kernels and the number of ``layers``; empty without plugins.
    """

    path: Path
    sha256: str
    target: str
    precision: str
    profiles: tuple[Profile, ...]
    gpus: tuple[str, ...]
    spec: ModelSpec
    facts: Mapping[str, Any]
    audit: Mapping[str, Any]
    provenance: Mapping[str, Any]
    build: Mapping[str, Any]
    plugins: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_this_package(self) -> bool:
        """Whether other programs cannot run the plan: its plugins are in Python."""
        return self.plugins.get("form") == PYTHON_FORM

    @property
    def name(self) -> str:
        """What messages call it: its path."""
        return str(self.path)

    def to_json(self) -> dict[str, Any]:
        """The sidecar as a JSON object; the plan's name without its folder."""
        told = super().to_json()
        del told["path"]
        return {"sidecar_version": SIDECAR_VERSION, "plan": self.path.name, **told}


def is_engine(source: str | Path) -> bool:
    """Whether a name means an engine."""
    return Path(source).suffix.lower() in ENGINE_SUFFIXES


def sidecar_path(plan: Path) -> Path:
    """The sidecar of a plan: its name with ``.json`` added."""
    return plan.with_name(plan.name + ".json")


def read_engine(path: str | Path) -> EngineArtifact:
    """Reads an engine's sidecar, and that the plan is the one it speaks of.

    Raises:
        InputError: The plan or its sidecar is missing or damaged, or they do not belong together.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: the engine {kind}.", fix="Check the path; `agileir-export trt` builds engines.")
    sidecar = sidecar_path(path)
    try:
        data = parse_json(sidecar.read_text(encoding="utf-8"))
        if data["sidecar_version"] != SIDECAR_VERSION:
            raise ValueError(f"sidecar version {data['sidecar_version']}, {SIDECAR_VERSION} expected")
        data = {"plugins": {}, **data}  # engines of before have none, or quick ones
        told = {each.name: data[each.name] for each in fields(EngineArtifact) if each.name != "path"}
        told["profiles"] = tuple(Profile.from_json(profile) for profile in data["profiles"])
        told |= {"gpus": tuple(data["gpus"]), "spec": ModelSpec.from_json(data["spec"])}
        artifact = EngineArtifact(path, **told)
    except OSError as error:
        raise InputError(
            f"{sidecar}: the engine's sidecar cannot be read ({error.strerror}).",
            why="It says what model and which sizes the plan is for.",
            fix="Keep it beside the plan, or build the engine again.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{sidecar}: a damaged sidecar ({error!r}).", fix="Build the engine again.") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != artifact.sha256:
        raise InputError(
            f"{path} is not the plan its sidecar describes: sha256 {digest[:12]}, not {artifact.sha256[:12]}.",
            why="It is damaged, or one of the two files was replaced.",
            fix="Build the engine again.",
        )
    return artifact
