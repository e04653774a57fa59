"""Operators and half blocks as TensorRT plugins whose kernels lie inside the engine.

They are ahead-of-time "quickly deployable plugins" (TensorRT >= 10.9): at build time TensorRT asks for PTX, puts it
into the plan, and from then on needs neither Python nor this package: trtexec, C++ and Triton Inference Server run the
engine as it is. Everything a plugin declares is derived from the operator's registry entry and its ``kernel.py``.
Scratch memory is an output of the plugin beside the operator's own that nothing reads: these plugins have no workspace.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from types import GenericAlias
from typing import Any

from ..errors import EnvironmentProblem
from ..version import QUICK_PLUGINS
from .catalogue import PLUGINS
from .launch import UNKNOWN, Launch
from .ptx import TARGET, compile_kernel, own_instructions
from .python_plugins import require_triton, type_names
from .registry import DOMAIN, Plugin

__all__ = ["register_tensorrt"]

OLDEST_TEXT = ".".join(map(str, QUICK_PLUGINS))

FLOATS = "FP32|FP16|BF16"
"""Tensor types of a plugin; the bars make the choices of all tensors depend on each other."""

INSTALL = f"Install TensorRT {OLDEST_TEXT} or newer (pip install tensorrt); the ONNX files also run without plugins."


_target = TARGET
"""What kernels are compiled for, as `compile_kernel` names it."""


def register_tensorrt(capability: int | None = None) -> None:
    """Registers the plugins with TensorRT, for networks parsed later in this process.

    TensorRT-RTX has a registry of its own and sees none of them, in the same process too: it takes the function bodies.

    Args:
        capability: Compute capability, times ten, of the GPUs that engines are for: kernels then use what only these
            have. None for kernels that run on every GPU since Ampere. Calling again changes this and nothing else.

    Raises:
        EnvironmentProblem: TensorRT or Triton is missing, or too old.
    """
    global _target
    trt, trtp = _import_tensorrt()
    _target = own_instructions(capability)
    registry = trt.get_plugin_registry()
    for operator in PLUGINS.values():
        if registry.get_creator(operator.name, "1", DOMAIN) is None:
            _register(trt, trtp, operator)


def _import_tensorrt() -> tuple[Any, Any]:
    """The modules ``tensorrt`` and ``tensorrt.plugin``."""
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise EnvironmentProblem("TensorRT cannot be imported", why=f"{error}.", fix=INSTALL) from error
    version = tuple(int(part) for part in re.findall(r"\d+", trt.__version__)[:2])
    if version < QUICK_PLUGINS:
        raise EnvironmentProblem(
            f"TensorRT {trt.__version__} is too old for the plugins",
            why=f"They need {OLDEST_TEXT}: plugins whose kernels lie inside the engine, and strong typing.",
            fix=f"{INSTALL[:-1]}, and --plugin-form python takes older releases.",
        )
    require_triton()
    try:
        return trt, importlib.import_module("tensorrt.plugin")
    except (ImportError, OSError) as error:
        raise EnvironmentProblem(
            "TensorRT's Python plugin module cannot be imported", why=f"{error}.", fix=INSTALL
        ) from error


def _register(trt: Any, trtp: Any, operator: Plugin) -> None:
    """Registers one operator: its outputs, its tactics, its kernels."""
    import numpy as np

    module = operator.kernels()
    inputs = len(operator.inputs)
    names = type_names(trt)

    def attributes_of(values: Sequence[Any]) -> dict[str, int]:
        numbers = (int(np.asarray(value).reshape(-1)[0]) for value in values)
        return dict(zip(operator.attributes, numbers, strict=True))

    def launch_of(tensors: Sequence[Any], attributes: dict[str, int], tactic: int) -> Launch:
        shapes = [[_known(size) for size in tensor.shape_expr] for tensor in tensors]
        made: Launch = module.launch(shapes, attributes, names[tensors[0].dtype], tactic)
        return made

    def describe(*arguments: Any) -> Any:
        tensors, attributes = arguments[:inputs], attributes_of(arguments[inputs:])
        shape = module.output_shape([tuple(tensor.shape_expr) for tensor in tensors], attributes)
        output = trtp.from_shape_expr(shape, trt.int32 if module.OUTPUT_TYPE else tensors[0].dtype)
        if not module.SCRATCH:
            return output
        batch, height, width, _ = tensors[0].shape_expr
        size = batch  # when only types are asked for, no size is known
        if not any(each.is_fake for tensor in tensors for each in tensor.shape_expr):
            launch = launch_of(tensors, attributes, 1)
            size = launch.windows(batch, height, width) * launch.scratch
        return output, trtp.from_shape_expr((size,), trt.float32)

    def autotune(*arguments: Any) -> Any:
        del arguments
        tensors = (*operator.inputs, operator.output)
        types = ["INT32" if tensor in operator.integer_tensors else FLOATS for tensor in tensors]
        types += ["FP32"] * module.SCRATCH
        tactics = list(range(1, len(module.TACTICS) + 1))
        return [trtp.AutoTuneCombination(", ".join(types), "LINEAR", tactics)]

    def ahead_of_time(*arguments: Any) -> Any:
        *given, _, tactic = arguments
        tensors, attributes = given[:inputs], attributes_of(given[inputs:])
        types = [names[tensor.dtype] for tensor in tensors]
        launch = launch_of(tensors, attributes, tactic or 1)
        compiled = compile_kernel(launch, types, module.OUTPUT_TYPE or types[0], _target)
        batch, height, width, _ = tensors[0].shape_expr
        parameters = trtp.KernelLaunchParams()
        parameters.grid_x = launch.grid(batch, height, width)
        parameters.block_x = compiled.num_threads
        parameters.shared_mem = compiled.shared_bytes
        extra = trtp.SymIntExprs.from_tuple([trtp.SymInt32(side) for side in launch.sides(batch, height, width)])
        return compiled.name, compiled.ptx, parameters, extra

    tensors = [(name, trtp.TensorDesc) for name in operator.inputs]
    given = [*tensors, *((name, _int32_array()) for name in operator.attributes)]
    described: Any = GenericAlias(tuple, (trtp.TensorDesc,) * (1 + module.SCRATCH))
    outputs = ("outputs", described)
    kernel = tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]
    identity = f"{DOMAIN}::{operator.name}"
    trtp.register(identity)(_declared(describe, given, described if module.SCRATCH else trtp.TensorDesc))
    trtp.autotune(identity)(_declared(autotune, [*given, outputs], list[trtp.AutoTuneCombination]))
    trtp.aot_impl(identity)(_declared(ahead_of_time, [*given, outputs, ("tactic", int)], kernel))


def _int32_array() -> type:
    """The annotation of an attribute: an array of int32, as TensorRT reads it, in the form of a class.

    An array of one element and not an int, which TensorRT up to 11.1 cannot make of an attribute under numpy 2.4. A
    class and not ``NDArray[np.int32]``, because TensorRT up to 11.1 calls ``issubclass`` on every annotation and looks
    for the array's type in ``__origin__`` and ``__args__``: aliases are no classes from Python 3.11 on, and since numpy
    2.5 ``NDArray`` is an alias of another kind.
    """
    import numpy as np

    return type("Int32Array", (np.ndarray,), {"__origin__": np.ndarray, "__args__": (Any, np.dtype[np.int32])})


def _declared(function: Callable[..., Any], parameters: Sequence[tuple[str, Any]], returned: Any) -> Callable[..., Any]:
    """A function with the signature that TensorRT reads the plugin's fields from.

    TensorRT passes attributes by name to some functions and by position to others; `function` gets all by position.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in parameters],
        return_annotation=returned,
    )

    def declared(*positional: Any, **named: Any) -> Any:
        return function(*signature.bind(*positional, **named).args)

    declared.__signature__ = signature  # type: ignore[attr-defined]
    return declared


def _known(size: Any) -> int:
    """A size that is known at build time, else UNKNOWN."""
    if size.is_fake or not size.is_constant:
        return UNKNOWN
    return int(size.constant_value())
