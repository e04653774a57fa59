"""Each operator as a plugin alone in an engine of TensorRT: every tensor type and tactic, against its definition.

Used by ``plugin_engines.py``; needs TensorRT and a GPU.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from steps import Report, now

TYPES = ("float32", "float16", "bfloat16")
LIMITS = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}
"""Relative error that an operator may have, by tensor type."""

FIRST = ("SwinIR light", "AgileIR tiny", "SemanIR tiny denoising")
"""The smallest calls, done first in all types and tactics."""

LARGE = ("AgileIR", "AgileIR light", "SwinIR", "SemanIR", "SemanIR tiny")
"""Others, in float16."""


def operator_model(call: Any, dtype: str, weights: Sequence[Any], form: str = "quick") -> bytes:
    """A file with one operator as `engine_form` makes it: image (and dictionary) are inputs, weights are inside.

    Args:
        call: The operator and its arguments.
        dtype: Tensor type.
        weights: What follows the image and dictionary, float32 arrays.
        form: Of the plugin, ``"quick"`` or ``"python"``.
    """
    import onnx
    from onnx import TensorProto, helper

    from agileir_export.plugins.catalogue import BY_TORCH_NAME
    from agileir_export.plugins.dispatch import kernel_module
    from agileir_export.plugins.registry import DOMAIN, NAMESPACE_ATTRIBUTE, VERSION

    operator = BY_TORCH_NAME[call.operator]
    kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[dtype]
    window = call.attributes["window_size"]
    shapes = call.shapes(1, window, window)
    free = len(shapes) - len(weights)
    inputs = []
    for index, (name, shape) in enumerate(zip(operator.inputs[:free], shapes, strict=False)):
        sizes = ["B", "H", "W", shape[3]] if index == 0 else ["n", *shape[1:]]
        inputs.append(helper.make_tensor_value_info(name, TensorProto.INT32 if index else kind, sizes))
    initializers = []
    for name, values in zip(operator.inputs[free:], weights, strict=True):
        tensor = onnx.numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), name)
        initializers.append(tensor)
    attributes = {**call.attributes, NAMESPACE_ATTRIBUTE: DOMAIN}
    scratch = form == "quick" and kernel_module(call.operator).SCRATCH
    results = [operator.output, "scratch"][: 1 + scratch]
    node = helper.make_node(operator.name, operator.inputs, results, "operator", domain=DOMAIN, **attributes)
    result = TensorProto.INT32 if operator.output in operator.integer_tensors else kind
    outputs = [helper.make_tensor_value_info(operator.output, result, None)]
    graph = helper.make_graph([node], call.operator, inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def named_after(part: str, form: str) -> list[str]:
    """The beginning of a result's name."""
    return [part] if form == "quick" else [part, form]


def drawn(call: Any, picture: tuple[int, int, int], seed: int) -> list[Any]:
    """Arrays for a call on a picture: small integers where keys are chosen, so that rounding chooses no other."""
    generator = np.random.default_rng(seed)
    from agileir_export.plugins.catalogue import BY_TORCH_NAME

    arrays: list[Any] = []
    for index, shape in enumerate(call.shapes(*picture)):
        if index in call.integer_inputs:
            features = generator.standard_normal((*picture, 16))
            window, shift = call.attributes["window_size"], call.attributes["shift_size"]
            chosen = BY_TORCH_NAME["key_semantic_dictionary"].reference()(features, window, shift, window)
            arrays.append(chosen.astype(np.int32))
        elif call.operator == "key_semantic_dictionary":
            arrays.append(generator.integers(-2, 3, shape).astype(np.float32))
        else:
            scale = math.prod(shape[2:]) ** -0.5 if index and len(shape) > 2 else 0.5
            arrays.append((generator.standard_normal(shape) * scale).astype(np.float32))
    return arrays


class Plan:
    """An engine that TensorRT built of a file, executed on tensors of PyTorch.

    Args:
        trt: The module ``tensorrt``.
        logger: Its logger.
        model: The file.
        shapes: Smallest, usual and largest shape of every input.

    Raises:
        RuntimeError: TensorRT does not take the file.
    """

    def __init__(self, trt: Any, logger: Any, model: bytes, shapes: dict[str, list[tuple[int, ...]]]) -> None:
        self.trt = trt
        builder = trt.Builder(logger)
        flags = trt.NetworkDefinitionCreationFlag.__members__
        wanted = ("STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS")
        network = builder.create_network(sum(1 << int(flags[name]) for name in wanted if name in flags))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(model):
            raise RuntimeError("; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)))
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.clear_flag(trt.BuilderFlag.TF32)
        profile = builder.create_optimization_profile()
        for name, sizes in shapes.items():
            profile.set_shape(name, *sizes)
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise RuntimeError("TensorRT does not build it; the log says why")
        self.bytes = bytes(memoryview(plan))
        self.runtime = trt.Runtime(logger)
        self.engine = self.runtime.deserialize_cuda_engine(self.bytes)
        if self.engine is None:
            raise RuntimeError("TensorRT does not load what it built")
        self.context = self.engine.create_execution_context()

    def layers(self) -> Any:
        """What the inspector says."""
        inspector = self.engine.create_engine_inspector()
        return json.loads(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))

    def __call__(self, tensors: dict[str, Any]) -> Any:
        """Output for inputs by name."""
        import torch

        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            held = {}
            for name, tensor in tensors.items():
                held[name] = tensor.cuda().contiguous()
                if not self.context.set_input_shape(name, tuple(tensor.shape)):
                    raise RuntimeError(f"TensorRT does not take {name} {list(tensor.shape)}")
            (last,) = (
                name
                for name in (self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors))
                if name not in tensors
            )
            kind = getattr(
                torch,
                {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32"}[
                    self.engine.get_tensor_dtype(last).name
                ],
            )
            output = torch.empty(tuple(self.context.get_tensor_shape(last)), dtype=kind, device="cuda")
            output.fill_(-77)
            for name, tensor in {**held, last: output}.items():
                self.context.set_tensor_address(name, tensor.data_ptr())
            if not self.context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError("TensorRT does not execute it")
        stream.synchronize()
        return output.cpu()


def operators(folder: Path, out: Path, names: Sequence[str], form: str = "quick") -> int:
    """Part ``operators``: each alone in a network, two shapes of one profile, as plugins of a form."""
    import torch

    from agileir_export.engines.cuda_driver import probe_gpu
    from agileir_export.engines.tensorrt.logger import make_logger
    from agileir_export.plugins import register_python_plugins, register_tensorrt
    from agileir_export.plugins.bias_rows import bias_rows
    from agileir_export.plugins.catalogue import BY_TORCH_NAME, CALLS
    from agileir_export.plugins.dispatch import kernel_module, plan_kernel
    from agileir_export.plugins.plugin_layers import plugin_failures

    del folder
    trt = importlib.import_module("tensorrt")
    major, minor = probe_gpu().devices[0].compute_capability
    if form == "quick":
        register_tensorrt(10 * major + minor)
    else:
        register_python_plugins(trt, (10 * major + minor,), every_tactic=True)
    report = Report(out / f"{'-'.join([*named_after('operators', form), *names])}.json")
    report.head = {"date": now(), "tensorrt": trt.__version__, "form": form, **measuring.machine("cuda")}

    def measure(call: Any, dtype: str, tactic: int, in_rows: bool, row: dict[str, Any]) -> None:
        module = kernel_module(call.operator)
        everything = module.TACTICS
        window = call.attributes["window_size"]
        kind = getattr(torch, dtype)
        large = window * window > 256
        pictures = [(1, window, window), (1 if large else 2, 2 * window, (1 if large else 3) * window)]
        free = 1 + len(call.integer_inputs)
        weights = drawn(call, pictures[0], 0)[free:]
        given = list(weights)
        if in_rows and weights:
            tensors = [torch.from_numpy(each).to(kind) for each in drawn(call, pictures[0], 0)]
            for index in call.integer_inputs:
                tensors[index] = tensors[index].int()
            width = plan_kernel(call.operator, tensors, call.attributes).key_width
            if width:
                given[-1] = bias_rows(weights[-1], window, width)
        operator = BY_TORCH_NAME[call.operator]
        sizes = {
            operator.inputs[index]: [call.shapes(*picture)[index] for picture in pictures] for index in range(free)
        }
        log = (out / f"{'_'.join([*named_after('', form), row['step']]).replace(' ', '_').lstrip('_')}.log").open("w")
        try:
            module.TACTICS = (everything[tactic - 1],)
            model = operator_model(call, dtype, given, form)
            logger = make_logger(trt, lambda severity, text: log.write(f"{severity}: {text}\n"))
            shapes = {name: [low, high, high] for name, (low, high) in sizes.items()}
            with plugin_failures(every_thread=True):
                plan = Plan(trt, logger, model, shapes)
        finally:
            module.TACTICS = everything
            log.close()
        row |= {"plan_bytes": len(plan.bytes), "layers": [layer["LayerType"] for layer in plan.layers()["Layers"]]}
        exact = [torch.from_numpy(each).to(kind).double().numpy() for each in weights]
        errors = []
        for seed, picture in enumerate((*pictures, pictures[0]), 1):
            inputs = [torch.from_numpy(each) for each in drawn(call, picture, seed)[:free]]
            inputs[0] = inputs[0].to(kind)
            with plugin_failures():
                result = plan(dict(zip(operator.inputs, inputs, strict=False)))
            arrays = [inputs[0].double().numpy(), *(each.numpy() for each in inputs[1:]), *exact]
            expected = torch.from_numpy(np.asarray(operator.reference()(*arrays, *call.attributes.values())))
            if result.shape != expected.shape:
                raise RuntimeError(f"got {list(result.shape)}, expected {list(expected.shape)}")
            if operator.output in operator.integer_tensors:
                errors.append(float((result != expected).sum()))
            else:
                errors.append(float((result.double() - expected).norm() / expected.norm()))
        limit = 0.0 if operator.output in operator.integer_tensors else LIMITS[dtype]
        row |= {"errors": errors, "limit": limit, "passed": all(error <= limit for error in errors)}

    for label, types in (*((label, TYPES) for label in FIRST), *((label, ("float16",)) for label in LARGE)):
        for call in CALLS:
            if call.label != label or (names and call.operator not in names):
                continue
            for dtype in types:
                for tactic in range(1, len(kernel_module(call.operator).TACTICS) + 1):
                    name = f"{call.operator} {label} {dtype} tactic {tactic}"
                    report.step(name, lambda row, c=call, d=dtype, t=tactic: measure(c, d, t, True, row))
            if label in FIRST and call.operator != "key_semantic_dictionary":
                name = f"{call.operator} {label} float16 table"
                report.step(name, lambda row, c=call: measure(c, "float16", 1, False, row))
    return report.finish()
