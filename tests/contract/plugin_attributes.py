"""Creates every plugin, and a control with a scalar attribute, from fields as the ONNX parser makes them; prints JSON.

TensorRT up to 11.1 cannot make a Python integer of a field's array of one element under NumPy 2.4 and later. Runs in
the environment of `lean_tensorrt`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorrt as trt
import tensorrt.plugin as trtp

from agileir_export.plugins.catalogue import OPERATORS
from agileir_export.plugins.registry import DOMAIN
from agileir_export.plugins.tensorrt_plugins import register_tensorrt


def scalar(values: Any, number: Any) -> Any:
    return values.like()


def register_control() -> None:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    declared = [
        inspect.Parameter("values", kind, annotation=trtp.TensorDesc),
        inspect.Parameter("number", kind, annotation=int),
    ]
    scalar.__signature__ = inspect.Signature(declared, return_annotation=trtp.TensorDesc)  # type: ignore[attr-defined]
    trtp.register("control::Scalar")(scalar)


def created(name: str, space: str, attributes: Mapping[str, int]) -> str:
    """Empty, or the error."""
    arrays = [np.array([value], np.int32) for value in attributes.values()]  # must outlive the creation
    fields = [
        trt.PluginField(key, array, trt.PluginFieldType.INT32) for key, array in zip(attributes, arrays, strict=True)
    ]
    creator = trt.get_plugin_registry().get_creator(name, "1", space)
    try:
        creator.create_plugin(
            name,
            space,
            trt.PluginFieldCollection(fields),
            trt.TensorRTPhase.BUILD,
            trt.QuickPluginCreationRequest.UNKNOWN,
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    register_tensorrt()
    register_control()
    answers = {o.name: created(o.name, DOMAIN, dict.fromkeys(o.attributes, 8)) for o in OPERATORS.values()}
    control = created("Scalar", "control", {"number": 8})
    print(json.dumps({"numpy": np.__version__, "created": answers, "control": control}))


if __name__ == "__main__":
    main()
