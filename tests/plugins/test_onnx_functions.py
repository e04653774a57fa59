"""The ONNX schemas and function bodies: one-node models under ONNX Runtime against the torch operators."""

from __future__ import annotations

import copy
import itertools
import re
from functools import cache
from typing import Any, NamedTuple

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from agileir_export.plugins import DOMAIN, NAMESPACE_ATTRIBUTE, OPERATORS, VERSION, Operator
from agileir_export.plugins.catalogue import by_name
from agileir_export.plugins.registry import MINIMUM_OPSET

from .cases import Group, Heads, group_tensors, heads_tensors, normal, random_dictionary, seeded

OPSETS = (18, 20, 23)
TYPES = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16, torch.int32: TensorProto.INT32}
NAMES = sorted(OPERATORS)
WINDOW = {"window_size": 4}
MORE = {
    "GroupShiftedWindowAttention": {"groups": 3, "key_dim": 4, "value_dim": 5, "kernel_height": 3, "kernel_width": 5},
    "KeySemanticDictionary": {"region_holds_all": 0},
}
"""What bodies are written for, in tests of the text alone."""


EVERY = pytest.mark.parametrize("operator", OPERATORS.values(), ids=list(OPERATORS))


# ---- one-node models ----


def function(operator: Operator, opset: int = MINIMUM_OPSET) -> onnx.FunctionProto:
    return operator.function(opset, **WINDOW, **MORE.get(operator.name, {}))


@cache
def model(
    name: str, kind: int, opset: int, ranks: tuple[int, ...], statics: tuple[tuple[str, int], ...], **attributes: int
) -> onnx.ModelProto:
    """The node, its function and nothing else; every dimension of every input is free."""
    operator = OPERATORS[name]

    def value(tensor: str, rank: int) -> onnx.ValueInfoProto:
        number = TensorProto.INT32 if tensor in operator.integer_tensors else kind
        return helper.make_tensor_value_info(tensor, number, [f"{tensor}_{axis}" for axis in range(rank)])

    node = helper.make_node(
        name, operator.inputs, [operator.output], domain=DOMAIN, **attributes, **{NAMESPACE_ATTRIBUTE: DOMAIN}
    )
    output = value(operator.output, 3 if operator.output in operator.integer_tensors else 4)
    inputs = [value(tensor, rank) for tensor, rank in zip(operator.inputs, ranks, strict=True)]
    built = helper.make_model(
        helper.make_graph([node], "one node", inputs, [output]),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[operator.function(opset, **dict(statics))],
        ir_version=10,
    )
    operator.schema()
    onnx.checker.check_model(built, full_check=True)
    return built


@cache
def session(name: str, *arguments: Any, **attributes: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    serialised = model(name, *arguments, **attributes).SerializeToString()
    return onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])


def run(name: str, tensors: tuple[Tensor, ...], attributes: tuple[int, ...], opset: int = MINIMUM_OPSET) -> Tensor:
    """Runs the one-node model of an operator under ONNX Runtime."""
    operator = OPERATORS[name]
    given = dict(zip(operator.inputs, tensors, strict=True))
    numbers = dict(zip(operator.attributes, attributes, strict=True))
    statics = operator.statics({tensor: tuple(array.shape) for tensor, array in given.items()}, numbers)
    runtime = session(
        name,
        TYPES[tensors[0].dtype],
        opset,
        tuple(tensor.ndim for tensor in tensors),
        tuple(statics.items()),
        **numbers,
    )
    (output,) = runtime.run(None, {tensor: array.numpy() for tensor, array in given.items()})
    return torch.from_numpy(output)


def compare(name: str, tensors: tuple[Tensor, ...], attributes: tuple[int, ...], opset: int = MINIMUM_OPSET) -> None:
    """Asserts that the function body gives what the torch operator gives, as well as the type can hold it."""
    expected = OPERATORS[name].torch_operator()(*tensors, *attributes)
    actual = run(name, tensors, attributes, opset)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if expected.dtype == torch.int32:
        assert torch.equal(actual, expected)
        return
    # Half: intermediate results of size about one are rounded to 2^-11, in a cascade of groups several times.
    limit = 1e-5 if expected.dtype == torch.float32 else 5e-3
    torch.testing.assert_close(actual, expected, rtol=limit, atol=limit)
    if expected.dtype == torch.float16:
        assert (actual.float() - expected.float()).square().mean().sqrt() < 1e-3


# ---- arguments ----


class Grid(NamedTuple):
    """Batch, window rows, window columns, window and shift."""

    batch: int
    rows: int
    columns: int
    window: int
    shift: int

    @property
    def image(self) -> tuple[int, int, int]:
        return self.batch, self.rows * self.window, self.columns * self.window


# Every shift of a window of 4; one window with and without shift; batches; N = 49, 25, 9 and 1, which fill no word.
GRIDS = [
    Grid(1, 2, 3, 4, 0),
    Grid(1, 3, 2, 4, 1),
    Grid(2, 2, 2, 4, 2),
    Grid(1, 2, 2, 4, 3),
    Grid(2, 1, 1, 4, 0),
    Grid(2, 1, 1, 4, 2),
    Grid(1, 1, 2, 7, 3),
    Grid(3, 2, 1, 7, 0),
    Grid(1, 1, 4, 5, 4),
    Grid(2, 3, 1, 3, 1),
    Grid(2, 2, 3, 1, 0),
    Grid(1, 1, 2, 8, 4),
]
GRID_IDS = ["-".join(map(str, grid)) for grid in GRIDS]


Arguments = tuple[tuple[Tensor, ...], tuple[int, ...]]


def group_arguments(grid: Grid, groups: int, key: int, value: int, kernel: tuple[int, int]) -> Arguments:
    return group_tensors(Group(*grid, groups, value, key, kernel), 2), (grid.window, grid.shift)


def heads_arguments(grid: Grid, heads: int, width: int) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """Queries to values, sets that no top-k would choose, the table, and the attributes."""
    case = Heads(*grid, heads, width)
    qkv, table = heads_tensors(case)
    return qkv, random_dictionary(case), table, (grid.window, grid.shift, heads)


def half(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.half() if tensor.is_floating_point() else tensor for tensor in tensors)


def all_arguments(grid: Grid) -> dict[str, Arguments]:
    """Arguments of every operator over one grid."""
    qkv, chosen, table, heads = heads_arguments(grid, 3, 4)
    features = normal(seeded(7), *grid.image, 6).mul(100).round().div(16)  # exact products, in half precision too
    return {
        "GroupShiftedWindowAttention": group_arguments(grid, 3, 4, 5, (3, 5)),
        "KeySemanticAttention": ((qkv, chosen, table), heads),
        "KeySemanticDictionary": ((features,), (grid.window, grid.shift, max(1, grid.window**2 // 3))),
        "ShiftedWindowAttention": ((qkv, table), heads),
    }


# ---- agreement ----


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS, ids=GRID_IDS)
def test_the_function_is_the_torch_operator(name: str, grid: Grid) -> None:
    tensors, attributes = all_arguments(grid)[name]
    compare(name, tensors, attributes)
    compare(name, half(tensors), attributes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("opset", OPSETS)
def test_opsets(name: str, opset: int) -> None:
    for grid in (Grid(2, 2, 3, 4, 0), Grid(1, 3, 2, 4, 2)):
        tensors, attributes = all_arguments(grid)[name]
        compare(name, tensors, attributes, opset)
        compare(name, half(tensors), attributes, opset)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3), (1, 7)], ids=str)
@pytest.mark.parametrize(("groups", "key", "value"), [(1, 3, 4), (2, 1, 6), (6, 8, 2), (4, 2, 1)])
def test_groups_widths_and_filters(groups: int, key: int, value: int, kernel: tuple[int, int]) -> None:
    compare("GroupShiftedWindowAttention", *group_arguments(Grid(1, 2, 1, 4, 1), groups, key, value, kernel))


@pytest.mark.parametrize(("heads", "width"), [(1, 5), (2, 1), (6, 3), (8, 2)])
def test_heads(heads: int, width: int) -> None:
    qkv, chosen, table, attributes = heads_arguments(Grid(2, 1, 2, 4, 1), heads, width)
    compare("ShiftedWindowAttention", (qkv, table), attributes)
    compare("KeySemanticAttention", (qkv, chosen, table), attributes)


@pytest.mark.parametrize("grid", GRIDS, ids=GRID_IDS)
@pytest.mark.parametrize("features", ["ties", "flat", "zero", "distinct"])
def test_dictionary_bits_are_equal(features: str, grid: Grid) -> None:
    """Whole numbers: similarities are exact, and their ties as well."""
    x = {
        "ties": normal(seeded(8), *grid.image, 3).round().clamp(-1, 1),
        "flat": torch.full((*grid.image, 3), 1.5),
        "zero": torch.zeros(*grid.image, 3),
        "distinct": normal(seeded(9), *grid.image, 3).mul(100).round(),
    }[features]
    tokens = grid.window**2
    for top_k in sorted({1, 2, max(1, tokens // 3), max(1, tokens - 1), tokens, tokens + 5}):
        for typed in (x, x.half()):
            compare("KeySemanticDictionary", (typed,), (grid.window, grid.shift, top_k))


def test_the_short_body_is_taken_only_where_every_region_holds_all() -> None:
    """Regions of the corner window are the smallest; siblings with half a window of shift and none must agree."""
    operator = OPERATORS["KeySemanticDictionary"]
    taken = 0
    for window, shift in ((w, s) for w in range(1, 10) for s in range(w)):
        sides = [side for side in (shift, window - shift) if side]
        smallest = min(a * b for a in sides for b in sides)
        for top_k in range(1, window * window + 2):
            numbers = {"window_size": window, "shift_size": shift, "top_k": top_k}
            short = operator.statics({}, numbers)
            assert not short["region_holds_all"] or top_k <= smallest
            taken += short["region_holds_all"]
            if shift == window // 2:
                assert short == operator.statics({}, numbers | {"shift_size": 0})
    assert taken


@pytest.mark.parametrize("top_k", [3, 12])
@pytest.mark.parametrize("shift", [0, 2])
def test_words_of_a_dictionary_stay_words_where_features_overflow(shift: int, top_k: int) -> None:
    """A network that overflows in half precision has to give a bad picture, and not an index out of range."""
    x = normal(seeded(11), 1, 8, 8, 4)
    for value in (torch.nan, torch.inf):
        x[:, :3, 1:7] = value
        words = run("KeySemanticDictionary", (x,), (4, shift, top_k))
        assert words.min() >= 0 and words.max() <= 0xFFFF


@pytest.mark.parametrize("shift", [0, 4])
def test_dictionary_of_a_real_window(shift: int) -> None:
    """256 tokens and 48 channels as in a network; sums of float32 in another order may swap near ties."""
    x = torch.nn.functional.layer_norm(normal(seeded(10), 1, 16, 32, 48), (48,))
    expected = OPERATORS["KeySemanticDictionary"].torch_operator()(x, 16, shift, 64)
    actual = run("KeySemanticDictionary", (x,), (16, shift, 64))
    differ = ((actual ^ expected)[..., None] >> torch.arange(16)) & 1
    assert differ.sum() <= 4, "more than two swapped pairs in 512 rows"


def test_a_dictionary_of_all_tokens_is_window_attention() -> None:
    for grid in (Grid(2, 2, 2, 4, 1), Grid(1, 1, 2, 7, 3)):
        qkv, _, table, attributes = heads_arguments(grid, 2, 3)
        dictionary = run("KeySemanticDictionary", (qkv,), (grid.window, grid.shift, grid.window**2))
        restricted = run("KeySemanticAttention", (qkv, dictionary, table), attributes)
        torch.testing.assert_close(
            restricted, run("ShiftedWindowAttention", (qkv, table), attributes), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", NAMES)
def test_one_model_runs_at_every_size(name: str) -> None:
    """Batch, height and width are free: no session but the first is made."""
    sizes = [(1, 1, 1), (1, 2, 1), (1, 1, 3), (2, 3, 2), (5, 1, 2), (1, 4, 5)]
    for shift in (0, 1):
        sessions = set()
        for batch, rows, columns in sizes:
            tensors, attributes = all_arguments(Grid(batch, rows, columns, 4, shift))[name]
            compare(name, tensors, attributes)
            sessions.add(session.cache_info().misses)
        assert len(sessions) == 1


def test_mask_adds_minus_100_and_does_not_remove() -> None:
    """Logits that differ by more than 100, exact in float32: a token of another region can win."""
    grid = Grid(1, 2, 2, 3, 1)
    qkv = normal(seeded(1), *grid.image, 24).mul(4).round()
    table = normal(seeded(2), 25, 2).mul(60).round()
    compare("ShiftedWindowAttention", (qkv, table), (3, 1, 2))
    compare("KeySemanticAttention", (qkv, random_dictionary(Heads(*grid, 2, 4)), table), (3, 1, 2))


# ---- schemas ----


@EVERY
def test_names_equal_the_torch_schema(operator: Operator) -> None:
    schema, arguments = operator.schema(), operator.torch_operator().default._schema.arguments
    tensors = [argument.name for argument in arguments if str(argument.type) == "Tensor"]
    numbers = [argument.name for argument in arguments if str(argument.type) == "int"]
    assert [argument.name for argument in arguments] == tensors + numbers
    assert [parameter.name for parameter in schema.inputs] == tensors == list(operator.inputs)
    assert list(operator.attributes) == numbers
    assert set(schema.attributes) == {*numbers, NAMESPACE_ATTRIBUTE}
    assert all(schema.attributes[name].required for name in numbers)
    assert not schema.attributes[NAMESPACE_ATTRIBUTE].required


@EVERY
def test_the_schema_is_registered_with_onnx(operator: Operator) -> None:
    schema = operator.schema()
    assert onnx.defs.get_schema(operator.name, VERSION, DOMAIN).since_version == VERSION
    assert schema is operator.schema(), "a second call must not register again"
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    assert all(parameter.option == single for parameter in (*schema.inputs, *schema.outputs))
    assert {name: parameter.type_str for parameter in schema.inputs for name in [parameter.name]} == {
        name: "tensor(int32)" if name == "dictionary" else "T" for name in operator.inputs
    }
    (constraint,) = schema.type_constraints
    assert set(constraint.allowed_type_strs) == {"tensor(float)", "tensor(float16)", "tensor(bfloat16)"}


@EVERY
def test_the_checker_knows_the_operator(operator: Operator) -> None:
    """A node without a required attribute is refused, because the schema is registered."""
    tensors, attributes = all_arguments(Grid(1, 1, 1, 4, 0))[operator.name]
    numbers = dict(zip(operator.attributes, attributes, strict=True))
    statics = operator.statics(dict(zip(operator.inputs, (t.shape for t in tensors), strict=True)), numbers)
    how = (TensorProto.FLOAT, MINIMUM_OPSET, tuple(t.ndim for t in tensors), tuple(statics.items()))
    broken = copy.deepcopy(model(operator.name, *how, **numbers))
    del broken.functions[:]
    onnx.checker.check_model(broken)
    (node,) = broken.graph.node
    for missing in operator.attributes:
        kept = [attribute for attribute in node.attribute if attribute.name != missing]
        incomplete = copy.deepcopy(broken)
        del incomplete.graph.node[0].attribute[:]
        incomplete.graph.node[0].attribute.extend(kept)
        with pytest.raises(onnx.checker.ValidationError, match=missing):
            onnx.checker.check_model(incomplete)


def test_function_names_are_unique_in_all_domains() -> None:
    taken = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain != DOMAIN}
    assert not taken & set(OPERATORS)


@pytest.mark.parametrize("opset", OPSETS)
@EVERY
def test_bodies_follow_the_rules(operator: Operator, opset: int) -> None:
    body = function(operator, opset)
    assert (body.domain, body.name) == (DOMAIN, operator.name)
    assert list(body.input) == list(operator.inputs)
    assert list(body.output) == [operator.output]
    assert list(body.attribute) == list(operator.attributes)
    assert [(entry.domain, entry.version) for entry in body.opset_import] == [("", opset)]
    for node in body.node:
        assert node.domain == ""
        assert node.op_type not in {"Pad", "NonZero", "Unique", "Col2Im", "Loop", "If", "Scan"}, node
        names = {attribute.name for attribute in node.attribute}
        assert not (node.op_type.startswith("Scatter") and "reduction" in names), node
        assert "" not in node.input, f"an omitted optional input: {node}"
        fmod = {attribute.i for attribute in node.attribute if attribute.name == "fmod"}
        assert node.op_type != "Mod" or fmod == {1}, f"ten layers in TensorRT: {node}"
    made = list(itertools.chain(body.input, *(node.output for node in body.node)))
    assert len(made) == len(set(made)), "a name is assigned twice"


@EVERY
def test_every_attribute_reaches_the_body(operator: Operator) -> None:
    """The window size is written into it."""
    referenced = {attribute.ref_attr_name for node in function(operator).node for attribute in node.attribute} - {""}
    assert referenced | set(WINDOW) == set(operator.attributes)


def test_two_operators_of_one_name_are_an_error() -> None:
    operator = OPERATORS["KeySemanticAttention"]
    with pytest.raises(ValueError, match=re.escape("KeySemanticAttention is registered twice")):
        by_name([*OPERATORS.values(), operator])
