"""Exported files with a mistake put in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from agileir_export.export import OnnxArtifact, read_artifact

Array = np.ndarray[Any, Any]


def slightly(values: Array) -> Array:
    """One entry off by as much as the weights are large."""
    changed = values.copy()
    changed.flat[changed.size // 2] += 2 * np.abs(values).max()
    return changed


def with_nan(values: Array) -> Array:
    """One entry not a number."""
    changed = values.copy()
    changed.flat[0] = np.nan
    return changed


def without_task(artifact: OnnxArtifact) -> OnnxArtifact:
    """As exported from random weights, which restore nothing: no task rung."""
    return dataclasses.replace(artifact, provenance={**artifact.provenance, "random_weights": 0})


def tamper(
    artifact: OnnxArtifact, path: Path, weight: str, change: Callable[[Array], Array] = slightly
) -> OnnxArtifact:
    """A copy of the file in which one weight is changed."""
    model = onnx.load(artifact.path)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == weight]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), weight))
    onnx.save(model, path)
    return read_artifact(path)


def set_attribute(artifact: OnnxArtifact, path: Path, operator: str, index: int, name: str, value: int) -> OnnxArtifact:
    """A copy of the file in which an attribute of the index-th node of an operator is changed."""
    model = onnx.load(artifact.path)
    node = [node for node in model.graph.node if node.op_type == operator][index]
    (attribute,) = [attribute for attribute in node.attribute if attribute.name == name]
    attribute.i = value
    onnx.save(model, path)
    return read_artifact(path)
