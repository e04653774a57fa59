"""A model repository for Triton Inference Server: one folder a model, with its ``config.pbtxt``.

The configuration is the text form of the protocol buffer `inference.ModelConfig` (model_config.proto of Triton's
common repository). Triton's TensorRT backend runs plans of TensorRT; it runs neither plans of TensorRT-RTX nor plans
whose plugins are in Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engines.artifact import EngineArtifact, sidecar_path
from ..engines.profiles import Profile, Shape, static_profile
from ..errors import InputError
from ..export.artifact import OnnxArtifact
from ..export.exporter import INPUT_NAME, OUTPUT_NAME
from ..models.spec import ModelSpec

__all__ = ["TritonModel", "onnx_model", "tensorrt_models"]

QUEUE_DELAY = 2000
"""Microseconds a request waits for others of its size: short against the milliseconds a tile takes."""

WARM_UP_SIDE = 256
"""Rows and columns of the warm-up image of a model of free size, before rounding to the model's multiple."""


@dataclass(frozen=True)
class TritonModel:
    """One model of the repository.

    Attributes:
        name: Name of the model and of its folder.
        platform: ``"tensorrt_plan"`` or ``"onnxruntime_onnx"``.
        spec: The model's spec.
        files: File in version 1, or its bytes, by its name there; sidecars of plans beside them.
        batch: Largest batch; 0 for a file of fixed batch.
        size: Rows and columns, or None where they are free.
        warm_up: Batch, rows and columns of the warm-up image.
        capabilities: File name by compute capability, such as ``{"8.6": "model_sm86.plan"}``; empty for one file.
        profiles: Number of optimisation profiles of a plan.
        instances: Execution instances on every GPU.
    """

    name: str
    platform: str
    spec: ModelSpec
    files: Mapping[str, Path | bytes]
    batch: int
    size: tuple[int, int] | None
    warm_up: Shape
    capabilities: dict[str, str]
    profiles: int = 1
    instances: int = 1

    @property
    def served(self) -> list[str]:
        """The files that Triton loads, without sidecars."""
        return [name for name in self.files if not name.endswith(".json")]

    def config(self) -> str:
        """The text of ``config.pbtxt``."""
        scale, channels = self.spec.scale, self.spec.channels
        rows, columns = self.size or (-1, -1)
        fixed = [] if self.batch else [1]
        before = [*fixed, channels, rows, columns]
        after = [*fixed, channels, *(side * scale if self.size else -1 for side in (rows, columns))]
        batch, warm_rows, warm_columns = self.warm_up
        parts = [
            f"name: {_text(self.name)}",
            f"platform: {_text(self.platform)}",
            f"max_batch_size: {self.batch}",
            _tensor("input", INPUT_NAME, before),
            _tensor("output", OUTPUT_NAME, after),
            self._instance_group(),
        ]
        if not self.capabilities:
            parts.append(f"default_model_filename: {_text(self.served[0])}")
        parts += [
            f"cc_model_filenames {{ key: {_text(capability)} value: {_text(file)} }}"
            for capability, file in self.capabilities.items()
        ]
        if self.batch > 1:
            parts.append(
                "dynamic_batching {\n"
                f"  preferred_batch_size: [ {self.batch} ]\n"
                f"  max_queue_delay_microseconds: {QUEUE_DELAY}\n"
                "}"
            )
        warm = [*fixed, channels, warm_rows, warm_columns]
        parts.append(
            "model_warmup {\n"
            '  name: "first picture"\n'
            f"  batch_size: {batch}\n"
            "  inputs {\n"
            f"    key: {_text(INPUT_NAME)}\n"
            f"    value {{ data_type: TYPE_FP32 dims: {_dims(warm)} random_data: true }}\n"
            "  }\n"
            "}"
        )
        return "\n".join(parts) + "\n"

    def _instance_group(self) -> str:
        kind = "KIND_GPU" if self.platform == "tensorrt_plan" else "KIND_AUTO"
        lines = ["instance_group {", f"  count: {self.instances}", f"  kind: {kind}"]
        if self.profiles > 1:
            lines.append(f"  profile: [ {', '.join(_text(str(index)) for index in range(self.profiles))} ]")
        return "\n".join([*lines, "}"])


def onnx_model(artifact: OnnxArtifact, name: str, batch: int, instances: int) -> TritonModel:
    """The ONNX file under Triton's ONNX Runtime backend, which executes the function bodies of its operators.

    Args:
        artifact: The file.
        name: Name of the model.
        batch: Largest batch for a file of free size.
        instances: Instances on every device.
    """
    fixed = static_profile(artifact)
    multiple = artifact.spec.pad_multiple
    side = WARM_UP_SIDE + -WARM_UP_SIDE % multiple
    return TritonModel(
        name=name,
        platform="onnxruntime_onnx",
        spec=artifact.spec,
        files={"model.onnx": artifact.data},
        batch=0 if fixed else batch,
        size=fixed.optimum[1:] if fixed else None,
        warm_up=fixed.optimum if fixed else (1, side, side),
        capabilities={},
        instances=instances,
    )


def tensorrt_models(engines: Sequence[EngineArtifact], name: str, instances: int) -> list[TritonModel]:
    """TensorRT plans, those of equal precision and sizes as one model with a file for each compute capability.

    Args:
        engines: Engines; those of TensorRT-RTX and those that need this package are left out: Triton does not run them.
        name: Beginning of the models' names.
        instances: Instances on every GPU.

    Raises:
        InputError: Two plans of equal precision and sizes are for the same compute capability.
    """
    groups: dict[tuple[str, tuple[Profile, ...]], list[EngineArtifact]] = {}
    for engine in engines:
        if engine.target == "tensorrt" and not engine.needs_this_package:
            groups.setdefault((engine.precision, engine.profiles), []).append(engine)
    models = []
    for (precision, profiles), group in groups.items():
        sizes = {profile.maximum[1:] for profile in profiles} | {profile.minimum[1:] for profile in profiles}
        same = [(precision, key[1]) for key in groups if key[0] == precision]
        number = f"_{1 + same.index((precision, profiles))}" if len(same) > 1 else ""
        models.append(
            TritonModel(
                name=f"{name}_tensorrt_{precision}{number}",
                platform="tensorrt_plan",
                spec=group[0].spec,
                files=_files(group),
                batch=max(profile.maximum[0] for profile in profiles),
                size=sizes.pop() if len(sizes) == 1 else None,
                warm_up=profiles[0].optimum,
                capabilities=_capabilities(group) if len(group) > 1 else {},
                profiles=len(profiles),
                instances=instances,
            )
        )
    return models


def _files(group: Sequence[EngineArtifact]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for engine in group:
        name = "model.plan" if len(group) == 1 else f"model_{engine.gpus[0]}.plan"
        files |= {name: engine.path, sidecar_path(Path(name)).name: sidecar_path(engine.path)}
    return files


def _capabilities(group: Sequence[EngineArtifact]) -> dict[str, str]:
    files: dict[str, str] = {}
    for engine in group:
        for gpu in engine.gpus:
            number = gpu.removeprefix("sm")
            capability = f"{number[:-1]}.{number[-1]}"
            if capability in files:
                raise InputError(
                    f"Two plans of {engine.precision} and equal sizes are for compute capability {capability}: "
                    f"{engine.path} is the second.",
                    fix="Leave one out.",
                )
            files[capability] = f"model_{group[group.index(engine)].gpus[0]}.plan"
    return files


def _tensor(field: str, name: str, dims: Sequence[int]) -> str:
    return f"{field} {{\n  name: {_text(name)}\n  data_type: TYPE_FP32\n  dims: {_dims(dims)}\n}}"


def _dims(dims: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, dims))} ]"


def _text(value: str) -> str:
    return json.dumps(value)
