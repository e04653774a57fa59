"""Half blocks put into files: every block is found, the file computes the same, and what is not one is left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from agileir_export.engines import create_session
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.export.precision import to_precision
from agileir_export.export.rescale import rescale
from agileir_export.models import build_preset, load_model, packaged_models, preset_names, randomise
from agileir_export.models.layers import Block
from agileir_export.plugins import DOMAIN, engine_form
from agileir_export.plugins.block_fusion import fuse_blocks

from ..export import networks
from ..scripts import load_script

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

from .half_block_reference import Array, evaluated
from .interpreter import Interpreter

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # of shift masks in ONNX's evaluator

TYPES = ("float32", "float16", "bfloat16")
SLOW = pytest.mark.slow
WINDOW, HEAD, NORM, TAIL = "WindowAttention", "NormProjection", "Norm", "TokenTail"
FORMS = {"swinir": (WINDOW, TAIL), "semanir": (HEAD, TAIL), "agileir": (NORM, TAIL)}
"""The half blocks of a block, by family."""

APART = 120
"""Least PSNR in dB of a float32 file with half blocks against the file: sums are taken in another order."""

FURTHER = 3
"""Decibels by which a file of half precision may be further from the float32 file with half blocks than without."""


@cache
def plain_file(kind: str, folder: Path) -> OnnxArtifact:
    """A float32 file; SemanIR's attends to all keys, for roundings exchange those that are chosen."""
    if "top_k" not in networks.SHAPES[kind]:
        return networks.exported(folder, kind)
    return export_onnx(
        networks.build(kind, top_k=networks.SHAPES[kind]["window_size"] ** 2), folder / f"{kind}-dense.onnx"
    )


def file_of(kind: str, precision: str, folder: Path) -> OnnxArtifact:
    artifact = plain_file(kind, folder)
    return artifact if precision == "float32" else to_precision(artifact, precision)


def fused(model: onnx.ModelProto, folder: Path = Path()) -> tuple[onnx.ModelProto, Counter[str]]:
    """The model with half blocks, and their number by kind; the one given is not changed."""
    before = model.SerializeToString(deterministic=True)
    made, found = fuse_blocks(model, folder)
    assert model.SerializeToString(deterministic=True) == before
    nodes = {node.name: node for node in made.graph.node if node.op_type.startswith("HalfBlock")}
    assert nodes.keys() == found.keys()
    left = {node.name for node in made.graph.node}
    stood_for = [name for names in found.values() for name in names]
    assert len(stood_for) == len(set(stood_for)) and not left & set(stood_for)
    assert len(made.graph.node) - len(nodes) + len(stood_for) == len(model.graph.node)
    assert (made is model) == (not found)
    return made, Counter(node.op_type.removeprefix("HalfBlock") for node in nodes.values())


def blocks_of(model: torch.nn.Module) -> int:
    return sum(isinstance(module, Block) for module in model.modules())


# ---- it computes the same ----


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        pytest.param(kind, precision, marks=() if kind in networks.ONE_A_FAMILY else SLOW)
        for kind in networks.EXPORTED
        for precision in TYPES
    ],
)
def test_a_file_with_half_blocks_computes_the_same(kind: str, precision: str, folder: Path) -> None:
    artifact = file_of(kind, precision, folder)
    made, found = fused(artifact.model, folder)
    blocks = blocks_of(networks.shared(kind))
    assert found == dict.fromkeys(FORMS[artifact.spec.family], blocks)
    side = artifact.spec.pad_multiple
    images = networks.images(2, artifact.spec.channels, 2 * side, side)
    (expected,) = create_session(file_of(kind, "float32", folder).data).run(None, {"input": images})
    least = APART if precision == "float32" else networks.psnr(evaluated(artifact.model, images), expected) - FURTHER
    assert networks.psnr(evaluated(made, images), expected) >= least


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=SLOW) for kind in (*networks.ONE_A_FAMILY, "semanir-unet")])
def test_the_kernels_compute_what_the_file_says(kind: str, folder: Path, run: Interpreter) -> None:
    """With the weights that lie in the file, interpreted."""
    artifact = file_of(kind, "float32", folder)
    made, _ = fused(artifact.model, folder)
    side = artifact.spec.pad_multiple
    images = networks.images(1, artifact.spec.channels, side, 2 * side)

    def compute(name: str, tensors: Sequence[Array], attributes: Mapping[str, int]) -> Array:
        given = [torch.from_numpy(tensor.copy()) for tensor in tensors]
        result: torch.Tensor = run.call("half_block_networks:plugin", name, given, dict(attributes))
        return result.numpy()

    (expected,) = create_session(artifact.data).run(None, {"input": images})
    assert networks.psnr(evaluated(made, images, compute), expected) >= APART


def test_a_weight_that_is_wrong_shows(folder: Path) -> None:
    """The tolerances above see a single bias."""
    artifact = file_of("swinir-light", "float32", folder)
    made, _ = fused(artifact.model, folder)
    images = networks.images(1, 3, 8, 8)
    right = evaluated(made, images)
    for name in ("gain", "qkv_bias", "proj_weight", "biases", "first_bias", "second_weight"):
        wrong = onnx.ModelProto()
        wrong.CopyFrom(made)
        (tensor, *_) = [each for each in wrong.graph.initializer if each.name.endswith(f".{name}")]
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.flat[0] += 0.3
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        assert networks.psnr(evaluated(wrong, images), right) < APART - 10, name


def test_the_epsilon_of_a_rescaled_stream_is_kept(folder: Path) -> None:
    """What divides a stream by 2^k divides epsilon by 4^k."""
    artifact = networks.exported(folder, "agileir")
    ranges = {value.name: 1e9 for value in artifact.model.graph.value_info if value.name.startswith("layers.")}
    model, report = rescale(artifact.model, ranges)
    assert report.changed
    made, found = fused(model, folder)
    assert found == {NORM: 3, TAIL: 3}
    bits = {each.i for node in made.graph.node for each in node.attribute if each.name == "epsilon_bits"}
    (epsilon,) = (float(np.int32(each).view(np.float32)) for each in bits)
    assert epsilon == np.float32(1e-5) / 4 ** report.bodies[0].k
    images = networks.images(1, 3, 8, 12)
    assert networks.psnr(evaluated(made, images), evaluated(artifact.model, images)) >= APART


def test_what_remains_is_put_into_the_form_of_engines(folder: Path) -> None:
    artifact = file_of("swinir-light", "float16", folder)
    made, found = fused(artifact.model, folder)
    engine = engine_form(made, folder)
    names = {tensor.name for tensor in engine.graph.initializer}
    assert names == {name for node in engine.graph.node for name in node.input if name in names}, "no weight is idle"
    assert sum(node.domain == DOMAIN for node in engine.graph.node) == sum(found.values())
    known = {value.name for value in engine.graph.value_info}
    tensors = {name for node in engine.graph.node for name in (*node.input, *node.output)}
    assert known <= tensors, "nothing is said of tensors that are gone"


# ---- every block of every preset ----


def transformer(name: str) -> tuple[Any, ...]:
    """What the blocks of a preset depend on: shapes of their weights, windows and shifts."""
    with torch.device("meta"):
        model = build_preset(name)
    blocks = {key: module for key, module in model.named_modules() if isinstance(module, Block)}
    sizes = ((module.attn.window_size, module.attn.shift_size) for module in blocks.values())
    weights = (tuple(p.shape) for module in blocks.values() for p in module.parameters())
    return model.spec.family, *blocks, *sizes, *weights


PRESETS = (
    "agileir_x2",
    "agileir_light_x2",
    "agileir_lightest_x2",
    "agileir_tiny_x2",
    "semanir_s_x2",
    "semanir_b_x2",
    "semanir_tiny_x2",
    "semanir_tiny_dn25",
    "semanir_denoise_color",
    "swinir_classical_x2",
    "swinir_light_x2",
    "swinir_real_large_x4",
    "swinir_jpeg_color",
)
"""One for every kind of blocks: what else presets differ in lies outside of their blocks."""


@pytest.mark.slow
def test_every_preset_has_the_blocks_of_one_that_is_tried() -> None:
    assert {transformer(name) for name in preset_names()} == {transformer(name) for name in PRESETS}


def expected_of(artifact: OnnxArtifact, model: torch.nn.Module) -> Counter[str]:
    """The half blocks that the kernels' limits allow (docs/plugins.md)."""
    found: Counter[str] = Counter()
    for module in model.modules():
        if not isinstance(module, Block):
            continue
        width, single = module.norm1.normalized_shape[0], artifact.precision == "float32"
        if width > (192 if single else 512):
            continue
        window = FORMS[artifact.spec.family][0] == WINDOW
        whole = width <= (64 if single else 192 if module.attn.window_size == 8 else 96)
        found.update([(WINDOW if whole else HEAD) if window else FORMS[artifact.spec.family][0], TAIL])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_block_of_every_preset_is_found(name: str, tmp_path: Path) -> None:
    model = build_preset(name)
    randomise(model, 0)
    artifact = export_onnx(model, tmp_path / "preset.onnx")
    half = to_precision(artifact, "float16")
    assert sum(expected_of(half, model).values()) == 2 * blocks_of(model), "in half precision nothing is too wide"
    for each in (artifact, half):
        assert fused(each.model, tmp_path)[1] == expected_of(each, model)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(packaged_models()))
def test_every_block_of_every_packaged_model_is_found(name: str, tmp_path: Path) -> None:
    model = load_model(name)
    blocks = blocks_of(model)
    artifact = export_onnx(model, tmp_path / "packaged.onnx")
    wanted = dict.fromkeys(FORMS[artifact.spec.family], blocks)
    assert fused(to_precision(artifact, "float16").model, tmp_path)[1] == wanted
    made, found = fused(artifact.model, tmp_path)
    assert found == wanted
    side = artifact.spec.pad_multiple
    images = networks.images(1, artifact.spec.channels, side, side)
    (expected,) = create_session(artifact.data).run(None, {"input": images})
    assert networks.psnr(evaluated(made, images), expected) >= APART - 20  # trained: values a hundred times as large


# ---- what is left alone ----


def node_of(model: onnx.ModelProto, kind: str, number: int = 0) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == kind][number]


def attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def before_the_sum(model: onnx.ModelProto, kind: str) -> str:
    """The tensor that the first linear layer after a kind of node makes."""
    place = list(model.graph.node).index(node_of(model, kind))
    return str(next(node for node in list(model.graph.node)[place:] if node.op_type == "Add").output[0])


def also_result(name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        made = name if "." in name else next(n.output[0] for n in model.graph.node if n.op_type == name)
        (value,) = [each for each in model.graph.value_info if each.name == made]
        model.graph.output.append(value)

    return change


def also_read(kind: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        name = node_of(model, kind).output[0]
        model.graph.node.append(onnx.helper.make_node("Identity", [name], ["elsewhere"]))

    return change


def projection_read(model: onnx.ModelProto) -> None:
    model.graph.node.append(
        onnx.helper.make_node("Identity", [before_the_sum(model, "ShiftedWindowAttention")], ["elsewhere"])
    )


def first_norm(model: onnx.ModelProto) -> onnx.NodeProto:
    """The layer norm of the first block; another stands before."""
    return node_of(model, "LayerNormalization", 1)


def no_shift(model: onnx.ModelProto) -> None:
    del first_norm(model).input[2]


def computed_gain(model: onnx.ModelProto) -> None:
    """A constant that a node makes."""
    norm = first_norm(model)
    model.graph.node.insert(0, onnx.helper.make_node("Identity", [norm.input[1]], ["gain"]))
    norm.input[1] = "gain"


def overridable(model: onnx.ModelProto) -> None:
    """A weight that is an input of the graph as well."""
    name = first_norm(model).input[1]
    (tensor,) = [each for each in model.graph.initializer if each.name == name]
    model.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))


def short_gain(model: onnx.ModelProto) -> None:
    """One number for all channels."""
    norm = first_norm(model)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "one"))
    norm.input[1] = "one"


def foreign_residual(model: onnx.ModelProto) -> None:
    """What the attention is added to is not what was normalised."""
    place = list(model.graph.node).index(node_of(model, "ShiftedWindowAttention"))
    _, end = [node for node in list(model.graph.node)[place:] if node.op_type == "Add"][:2]
    model.graph.node.insert(place, onnx.helper.make_node("Relu", [end.input[0]], ["other"]))
    (value,) = [each for each in model.graph.value_info if each.name == end.input[0]]
    copy = model.graph.value_info.add()
    copy.CopyFrom(value)
    copy.name, end.input[0] = "other", "other"


def unsized(model: onnx.ModelProto) -> None:
    del model.graph.value_info[:]


def untyped(model: onnx.ModelProto) -> None:
    for value in model.graph.value_info:
        value.type.tensor_type.elem_type = onnx.TensorProto.UNDEFINED


def odd_heads(model: onnx.ModelProto) -> None:
    """Twelve channels do not divide into five heads: the operator is refused, with its own words."""
    attribute(node_of(model, "ShiftedWindowAttention"), "num_heads", 5)


BLOCKS = 3
EVERY = {WINDOW: BLOCKS, TAIL: BLOCKS}
NO_WINDOW = {WINDOW: BLOCKS - 1, HEAD: 1, TAIL: BLOCKS}
NO_HEAD = {WINDOW: BLOCKS - 1, TAIL: BLOCKS}
NO_TAIL = {WINDOW: BLOCKS, TAIL: BLOCKS - 1}

CHANGES: dict[str, tuple[Callable[[onnx.ModelProto], None], Mapping[str, int]]] = {
    "nothing": (lambda model: None, EVERY),
    "epsilon": (lambda model: attribute(first_norm(model), "epsilon", 1e-3), EVERY),
    "axis as a number": (lambda model: attribute(first_norm(model), "axis", 3), EVERY),
    "another axis": (lambda model: attribute(first_norm(model), "axis", 2), NO_HEAD),
    "no shift": (no_shift, NO_HEAD),
    "a gain that is computed": (computed_gain, NO_HEAD),
    "a gain that may be given": (overridable, NO_HEAD),
    "one gain for all": (short_gain, NO_HEAD),
    "approximate GELU": (lambda model: attribute(node_of(model, "Gelu"), "approximate", "tanh"), NO_TAIL),
    "attention is a result": (also_result("ShiftedWindowAttention"), NO_WINDOW | {TAIL: BLOCKS - 1}),
    "attention is read elsewhere": (also_read("ShiftedWindowAttention"), NO_WINDOW | {TAIL: BLOCKS - 1}),
    "the projection is read elsewhere": (projection_read, NO_WINDOW | {TAIL: BLOCKS - 1}),
    "hidden units are a result": (also_result("Gelu"), NO_TAIL),
    "a block is a result": (also_result("layers.0.residual_group.blocks.0"), EVERY),
    "another residual": (foreign_residual, NO_WINDOW),
    "unknown sizes": (unsized, {}),
    "unknown types": (untyped, {}),
    "heads that do not divide": (odd_heads, NO_WINDOW),
}


UNSOUND = ("another axis", "unknown sizes", "unknown types", "heads that do not divide")
"""Changes after which nothing can be computed, or nothing was changed."""


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_no_half_block_is_left_alone(name: str, folder: Path) -> None:
    change, expected = CHANGES[name]
    model = onnx.ModelProto()
    model.CopyFrom(networks.exported(folder, "swinir-light").model)
    change(model)
    made, found = fused(model, folder)
    assert found == expected
    outputs = {name for node in made.graph.node for name in node.output}
    assert {value.name for value in made.graph.output} <= outputs
    given = {*outputs, *(t.name for t in made.graph.initializer), *(value.name for value in made.graph.input)}
    assert {name for node in made.graph.node for name in node.input} <= given
    if name in UNSOUND:
        return
    images = networks.images(1, 3, 8, 8)
    assert networks.psnr(evaluated(made, images), evaluated(model, images)) >= APART


def test_a_linear_layer_without_bias_has_a_bias_of_zeros(folder: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(networks.exported(folder, "swinir-light").model)
    place = list(model.graph.node).index(node_of(model, "ShiftedWindowAttention"))
    product, bias, operator = list(model.graph.node)[place - 2 : place + 1]
    assert (product.op_type, bias.op_type) == ("MatMul", "Add")
    operator.input[0] = product.output[0]
    model.graph.node.remove(bias)
    made, found = fused(model, folder)
    assert found == EVERY
    images = networks.images(1, 3, 8, 8)
    assert networks.psnr(evaluated(made, images), evaluated(model, images)) >= APART


def test_weights_of_another_type_are_left_alone(folder: Path) -> None:
    """As no conversion of ours writes them."""
    model = onnx.ModelProto()
    model.CopyFrom(file_of("swinir-light", "float16", folder).model)
    for value in model.graph.value_info:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    assert fused(model, folder)[1] == {}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["SPAN", "HAT"])
def test_networks_of_spandrel_are_left_alone(architecture: str, tmp_path: Path) -> None:
    """The one has none of our operators, and the other keeps its tokens in one row, with nodes between."""
    pytest.importorskip("spandrel")
    made = load_script(Path(__file__).parents[2] / "tools" / "spandrel_networks.py").make_state(architecture)
    torch.save({"params_ema": made}, tmp_path / "checkpoint.pth")
    artifact = export_onnx(load_model(tmp_path / "checkpoint.pth"), tmp_path / "foreign.onnx")
    assert ("LayerNormalization" in {node.op_type for node in artifact.model.graph.node}) == (architecture == "HAT")
    assert fuse_blocks(artifact.model, tmp_path) == (artifact.model, {})


def test_an_int8_file_keeps_what_is_quantised(folder: Path) -> None:
    from ..export.written import quantised

    artifact = quantised(networks.exported(folder, "swinir-light"))
    assert fused(artifact.model, folder)[1] == {}
