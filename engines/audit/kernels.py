"""The kernels of a built engine: what each one computes, in which number type, and which ONNX nodes it comes from.

TensorRT-RTX writes the layers of an engine into its verbose builder log, TensorRT hands them out through
``IEngineInspector``; both only where the engine is built with ``ProfilingVerbosity.DETAILED``. `layer_lists` reads
either into a `Layer`, `kernel_of` says what that layer is.

What can be known: a strongly typed network fixes the type of every tensor, and a layer names the types of its operands,
so the type a matrix product or convolution computes in is read off its operands and not assumed. What cannot: a fused
kernel (``kgen``) lists the tensors at its edges only, and its name lists its operations only up to a length. Whether a
float32 product may use TF32 is a flag of the build; it shows nowhere but in the names of TensorRT's own tactics.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

__all__ = ["PRODUCTS", "UNKNOWN", "Kernel", "Layer", "Tensor", "elements", "kernel_of", "number_type", "operator_of"]

UNKNOWN = "unknown"
"""Number type of a kernel of which the engine does not say it."""

PRODUCTS = ("gemm", "convolution", "attention")
"""The kinds that multiply and accumulate: what a requested precision is about."""

FLOATS = ("float32", "float16", "bfloat16", "float8", "float4")
WIDTHS = {"float32": 5, "bfloat16": 4, "float16": 3, "float8": 2, "int8": 1}

NUMBER_TYPES = (
    (r"BFloat16|BF16", "bfloat16"),
    (r"Half|FP16|Float16", "float16"),
    (r"FP8|Float8|E4M3|E5M2", "float8"),
    (r"FP4|Float4|E2M1", "float4"),
    (r"Float|FP32", "float32"),
    (r"UInt8", "uint8"),
    (r"Int8", "int8"),
    (r"Int4", "int4"),
    (r"Int32", "int32"),
    (r"Int64", "int64"),
    (r"Bool", "bool"),
)
"""Spellings of TensorRT 10 (``Row major linear FP16 format``), 11 and RTX (``Half``), the longer ones first."""

QUERY_KEY_VALUE = 3
"""Operands of the two products in a fused attention."""

TACTIC_OPERANDS = (("bf16bf16", "bfloat16"), ("f16f16", "float16"), ("i8i8", "int8"), ("f32f32", "float32"))
"""Operand types in the names of TensorRT's kernels, as in ``sm80_xmma_gemm_f16f16_f16f32_f32_tn``."""

CONTROL = {"signal", "wait", "shape_call", "Constant", "NoOp", "ShapeHostToDevice", "DeviceToShapeHost"}
"""Layers that launch no kernel: stream synchronisation, shapes computed on the host, constants."""

GEMM_OPERATIONS = {"Fc", "Gemm", "Matmul", "Dot", "Bmm"}
CONVOLUTION_OPERATIONS = {"Corr", "Conv", "Deconv"}
MOVING_OPERATIONS = {"Move", "Tran", "Resh", "Slic", "Conc", "Repl", "Gath", "Scat", "Cast", "Iota", "Pad"}
"""Operations in the names of fused kernels (``__myl_FcAddMul_myl1_72``), as TensorRT-RTX 1.7 abbreviates them."""

COPYING_LAYERS = {"reformat", "shuffle", "slice", "concatenation", "gather", "cast"}


@dataclass(frozen=True)
class Tensor:
    """An operand or result of a layer: its number type, and its number of elements (-1 where a size is free)."""

    type: str
    elements: int


@dataclass(frozen=True)
class Layer:
    """A layer as an engine describes it.

    Attributes:
        name: Its name.
        type: ``LayerType`` as written (``gemm``, ``kgen``, ``CaskConvolution``).
        inputs: What it reads from other layers.
        constants: Weights, biases and the scalars alpha and beta.
        outputs: What it writes.
        tactic: Name of the chosen kernel; empty where there is none.
        nodes: ONNX nodes it comes from; one in a function body is ``node | call (operator)``.
        detailed: Whether more than the name is known.
        engine: Number of the list it stands in.
    """

    name: str
    type: str = ""
    inputs: tuple[Tensor, ...] = ()
    constants: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    tactic: str = ""
    nodes: tuple[str, ...] = ()
    detailed: bool = True
    engine: int = 0


@dataclass(frozen=True)
class Kernel:
    """What a layer of an engine runs.

    Attributes:
        name: The layer's name.
        kind: ``"gemm"``, ``"convolution"``, ``"attention"`` (a product inside one of this package's operators, or a
            fused multi-head attention), ``"plugin"``, ``"softmax"``, ``"normalisation"``, ``"pointwise"``, ``"copy"``,
            ``"control"`` (launches nothing) or ``"unknown"``.
        precision: Number type. Of a product, the type of its operands, the wider where they differ; of any other
            kernel, all floating-point types at its edges, joined by ``+``, or ``"integer"``; or ``"unknown"``.
        origin: ONNX nodes it comes from, the first the one it is named after; one in a function body is
            ``node | call (operator)``.
        engine: Number of the layer list it stands in, where a build printed several.
        tensor_float: The kernel's name says that it rounds float32 operands to TF32.
    """

    name: str
    kind: str
    precision: str
    origin: tuple[str, ...] = ()
    engine: int = 0
    tensor_float: bool = False


def number_type(text: str) -> str:
    """The number type a description names, in this package's spelling (``"float16"``); ``"unknown"`` if none."""
    return next((name for pattern, name in NUMBER_TYPES if re.search(pattern, text, re.IGNORECASE)), UNKNOWN)


def kernel_of(layer: Layer) -> Kernel:
    """Says what a layer computes and in which type.

    Args:
        layer: A layer read from a builder log or an engine inspector.
    """
    kind = _kind(layer)
    if kind in PRODUCTS:
        precision = _attention_type(layer) if _is_fused_attention(layer) else _operand_type(layer)
    elif kind == "plugin":
        precision = layer.inputs[0].type if layer.inputs else UNKNOWN
    elif kind == "control":
        precision = "-"
    else:
        precision = _edge_types(layer)
    return Kernel(layer.name, kind, precision, layer.nodes, layer.engine, "tf32" in layer.tactic)


def _kind(layer: Layer) -> str:
    if not layer.detailed:
        return UNKNOWN
    product = _product(layer)
    if product:
        return "attention" if any(map(operator_of, layer.nodes)) or _is_fused_attention(layer) else product
    type_ = layer.type.casefold()
    if layer.type in CONTROL:
        return "control"
    if "plugin" in type_ or type_ == "custom_layer":  # as TensorRT-RTX calls them
        return "plugin"
    if type_ in {"myelin", "foreignnode"}:  # a whole subgraph in one opaque layer
        return UNKNOWN
    operations = _operations(layer.name)
    nodes = " ".join(layer.nodes) if "Etc" in operations else ""  # a long name is cut: the nodes say the rest
    if "softmax" in type_ or {"Exp", "Sum"} <= operations or re.search("probability|softmax", nodes):
        return "softmax"
    if "normalization" in type_ or {"Mean", "Sqrt"} <= operations or {"Mean", "Sub"} <= operations:
        return "normalisation"
    if type_ in COPYING_LAYERS or (operations and operations <= MOVING_OPERATIONS):
        return "copy"
    return "pointwise"


def _product(layer: Layer) -> str:
    """``"gemm"`` or ``"convolution"`` where the layer is, or holds, one; else empty."""
    type_ = layer.type.casefold()
    if "gemm" in type_ or "matrixmultiply" in type_ or type_ == "fc" or _is_fused_attention(layer):
        return "gemm"
    if type_ == "correlation" or "conv" in type_:
        return "convolution"
    operations = _operations(layer.name)
    if operations & CONVOLUTION_OPERATIONS or re.search("fprop|dgrad", layer.tactic):
        return "convolution"
    return "gemm" if operations & GEMM_OPERATIONS or re.search("(^|_)gemm(_|$)", layer.tactic) else ""


def _is_fused_attention(layer: Layer) -> bool:
    """Whether q k^T, softmax and the product with v are one kernel (``_gemm_mha_v2``)."""
    return re.search(r"_f?mha(_|$)", f"{layer.name} {layer.tactic}") is not None


def _operations(name: str) -> set[str]:
    """Abbreviated operations in the name of a fused kernel: ``__myl_FcAddMul_myl1_72`` has Fc, Add and Mul."""
    found = re.match(r"__myl_([A-Za-z]+)", name)
    return set(re.findall(r"[A-Z][a-z]*", found[1])) if found else set()


def operator_of(node: str) -> str:
    """CamelCase name of the operator whose function body a node belongs to; empty if none."""
    found = re.search(r" \| .* \((\w+)\)$", node)
    return found[1] if found else ""


def _attention_type(layer: Layer) -> str:
    """The type the two products of a fused attention compute in.

    Its inputs are query, key and value, with bias and mask before, between or after them, which may be float32 in
    any engine. The types of a product's two factors agree in a strongly typed network. So where three inputs have the
    type of the result, they are query, key and value; otherwise the widest type counts. A result that is quantised in
    the same kernel tells nothing: there the only type that three inputs have is that of the factors.
    """
    result = layer.outputs[0].type if layer.outputs else UNKNOWN
    types = [tensor.type for tensor in layer.inputs]
    shared = [type_ for type_ in WIDTHS if types.count(type_) >= QUERY_KEY_VALUE]
    if result in shared:
        return result
    if result == "int8" and len(shared) == 1:
        return shared[0]
    known = [type_ for type_ in (*types, result) if type_ in WIDTHS]
    return max(known, key=WIDTHS.__getitem__) if result in WIDTHS else _tactic_type(layer)


def _operand_type(layer: Layer) -> str:
    """The type a product computes in: that of its operands, the wider of the two.

    The operands of a product of two computed tensors are its first two inputs. Where one is a weight, it is the largest
    constant: bias vectors are smaller, and alpha and beta, always float32, are scalars. TensorRT's own layers give
    the weights' type apart; where no tensor tells, the tactic's name does.
    """
    weights = max((t for t in layer.constants if t.elements > 1), key=lambda t: t.elements, default=None)
    operands = list(layer.inputs[:1])
    operands += [weights] if weights else list(layer.inputs[1:2])
    types = [t.type for t in operands]
    known = [t for t in types if t in WIDTHS]
    if known and len(known) == len(types):
        return max(known, key=WIDTHS.__getitem__)
    return _tactic_type(layer)


def _tactic_type(layer: Layer) -> str:
    """The operands' type in the name of the tactic."""
    return next((name for text, name in TACTIC_OPERANDS if f"_{text}_" in layer.tactic), UNKNOWN)


def _edge_types(layer: Layer) -> str:
    """All floating-point types of the tensors a layer reads and writes; scalars do not count."""
    tensors = [t for t in (*layer.inputs, *layer.constants, *layer.outputs) if t.elements != 1]
    tensors = tensors or [*layer.inputs, *layer.outputs]
    types = {t.type for t in tensors}
    floats = [name for name in FLOATS if name in types]
    if floats:
        return "+".join(floats)
    return "integer" if types - {UNKNOWN} else UNKNOWN


def elements(sizes: list[int]) -> int:
    """Number of elements of a tensor; -1 where a size is free (negative)."""
    return -1 if any(size < 0 for size in sizes) else math.prod(sizes)
