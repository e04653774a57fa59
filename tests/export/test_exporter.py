"""`export_onnx`: what the file computes, what it looks like, what it says, and how it fails."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import agileir_export
from agileir_export.engines import create_session
from agileir_export.errors import Unsupported
from agileir_export.export import DEFAULT_OPSET, OnnxArtifact, export_onnx, read_artifact
from agileir_export.export.artifact import BLOCKS_KEY, PROVENANCE_KEY, SPEC_KEY
from agileir_export.export.translation import translation_table
from agileir_export.models import Restorer, build_preset
from agileir_export.plugins import OPERATORS

from ..scripts import run_python
from . import networks

DICTIONARY = "KeySemanticDictionary"
PARITY = 100.0  # dB, as the ladder's floor: ONNX float32 under ONNX Runtime against torch


def parity(artifact: OnnxArtifact, model: Restorer, sizes: list[tuple[int, int, int]]) -> None:
    """Asserts parity with torch for (batch, height, width), the latter two in units of the multiple."""
    session = create_session(str(artifact.path))
    multiple, scale = model.spec.pad_multiple, model.spec.scale
    for batch, rows, columns in sizes:
        images = networks.images(batch, model.spec.channels, rows * multiple, columns * multiple, seed=rows)
        with torch.no_grad():
            expected = model.network(torch.from_numpy(images)).numpy()
        (actual,) = session.run(["output"], {"input": images})
        assert actual.shape == (batch, model.spec.channels, images.shape[2] * scale, images.shape[3] * scale)
        assert networks.psnr(actual, expected) >= PARITY, (batch, rows, columns)
        assert actual.std() > 0.02, "the picture shows nothing"


def shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


# ---- what it computes ----


@pytest.mark.parametrize("kind", networks.EXPORTED)
def test_every_network_at_every_size(kind: str, folder: Path) -> None:
    """The size of the trace (2, 3, 2) and sizes that would be special cases of it, with one image and with three."""
    artifact, model = networks.exported(folder, kind), networks.shared(kind)
    parity(artifact, model, [(2, 3, 2), (1, 1, 1), (3, 1, 1), (1, 2, 3), (3, 2, 2), (1, 1, 5), (3, 4, 1)])
    assert onnx.load(artifact.path).opset_import[0].version == DEFAULT_OPSET
    assert artifact.fixed_sizes == {}


@pytest.mark.parametrize("opset", [18, *(pytest.param(opset, marks=pytest.mark.slow) for opset in (19, 21, 22)), 23])
@pytest.mark.parametrize("kind", networks.ONE_A_FAMILY)
def test_opsets(kind: str, opset: int, folder: Path) -> None:
    artifact = networks.exported(folder, kind, opset=opset)
    model = onnx.load(artifact.path)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": opset, "agileir": 1}
    assert {e.version for f in model.functions for e in f.opset_import} == {opset}
    found = operators(model)
    assert found.count("LayerNormalization") > 0
    assert ("Gelu" in found) == (opset >= 20)
    assert ("Erf" in found) == (opset < 20)
    parity(artifact, networks.shared(kind), [(1, 1, 2), (3, 2, 2)])


@pytest.mark.parametrize("kind", networks.ONE_A_FAMILY)
def test_equal_constants_are_stored_once(kind: str, folder: Path) -> None:
    graph = onnx.load(networks.exported(folder, kind).path).graph
    contents = [(t.data_type, tuple(t.dims), onnx.numpy_helper.to_array(t).tobytes()) for t in graph.initializer]
    assert len(contents) == len(set(contents))


def test_static(folder: Path) -> None:
    """Sizes are rounded up to the multiple, everything in the file is fixed, and nothing but that changes."""
    artifact = networks.exported(folder, "semanir", static=(5, 12))
    model = onnx.load(artifact.path)
    assert artifact.fixed_sizes == {"batch": 1, "height": 8, "width": 12}
    assert shape(model.graph.input[0]) == [1, 3, 8, 12]
    assert shape(model.graph.output[0]) == [1, 3, 24, 36]
    parity(artifact, networks.shared("semanir"), [(1, 2, 3)])


@pytest.mark.parametrize("kind", [pytest.param("swinir-light", marks=pytest.mark.slow), "semanir", "agileir"])
def test_decomposed(kind: str, folder: Path) -> None:
    """Only ONNX's own domain, no functions, the same numbers; names and metadata stay."""
    whole, plain = networks.exported(folder, kind), networks.exported(folder, kind, decomposed=True)
    model = onnx.load(plain.path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", DEFAULT_OPSET)]
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert operators(model).count("Softmax") >= sum(whole.operators.values()) - whole.operators.get(DICTIONARY, 0)
    assert operators(model).count("Shape") < sum(whole.operators.values()), "calls share their index arithmetic"
    assert shape(model.graph.output[0])[2:] == [f"{whole.spec.scale}*height", f"{whole.spec.scale}*width"]
    assert (plain.spec, plain.blocks, plain.operators) == (whole.spec, whole.blocks, {})
    parity(plain, networks.shared(kind), [(1, 1, 1), (3, 2, 3)])
    images = {"input": networks.images(2, 3, 8, 12)}
    first, second = (create_session(str(each.path)).run(None, images)[0] for each in (whole, plain))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


def test_bodies_that_differ_need_decomposed(tmp_path: Path) -> None:
    model, path = networks.build("agileir-mixed"), tmp_path / "model.onnx"
    with pytest.raises(Unsupported, match="--decomposed"):
        export_onnx(model, path)
    assert list(tmp_path.iterdir()) == []
    parity(export_onnx(model, path, decomposed=True), model, [(1, 1, 1), (3, 2, 3)])


# ---- what it looks like ----


@pytest.mark.parametrize("kind", networks.EXPORTED)
def test_free_dimensions_are_named(kind: str, folder: Path) -> None:
    artifact = networks.exported(folder, kind)
    graph = onnx.load(artifact.path).graph
    channels, scale = artifact.spec.channels, artifact.spec.scale
    factor = "" if scale == 1 else f"{scale}*"
    assert [value.name for value in (*graph.input, *graph.output)] == ["input", "output"]
    assert shape(graph.input[0]) == ["batch", channels, "height", "width"]
    assert shape(graph.output[0]) == ["batch", channels, f"{factor}height", f"{factor}width"]
    types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("kind", networks.EXPORTED)
def test_one_name_is_one_size(kind: str, folder: Path) -> None:
    """Engine builds merge what is asked of tensors of equal names."""
    artifact = networks.exported(folder, kind)
    model = onnx.load(artifact.path)
    calls = [node.input[0] for node in model.graph.node if node.domain == "agileir"]
    named = {value.name for value in model.graph.value_info if all(shape(value))}
    assert named.issuperset(calls)
    multiple, scale = artifact.spec.pad_multiple, artifact.spec.scale
    sizes = networks.named_sizes(model, 3, artifact.spec.channels, 4 * multiple, 5 * multiple)
    assert {name: len(values) for name, values in sizes.items()} == dict.fromkeys(sizes, 1)
    wanted = {"batch": 3, "height": 4 * multiple, "width": 5 * multiple, f"{scale}*width": 5 * multiple * scale}
    assert all(sizes.get(name, {size}) == {size} for name, size in wanted.items())
    assert {"batch", "height", "width"} <= sizes.keys()


@pytest.mark.parametrize("kind", networks.EXPORTED)
def test_operators_are_single_nodes(kind: str, folder: Path) -> None:
    """LayerNormalization and Gelu too; no padding, no windows and no masks in the main graph."""
    artifact = networks.exported(folder, kind)
    model = onnx.load(artifact.path)
    found = operators(model)
    blocks = [name for name in artifact.blocks if ".blocks." in name]
    stages = [name for name in artifact.blocks if ".blocks." not in name]
    attention = {
        "agileir": "GroupShiftedWindowAttention",
        "semanir": "KeySemanticAttention",
        "swinir": "ShiftedWindowAttention",
    }[artifact.spec.family]
    expected = {attention: len(blocks)}
    if artifact.spec.family == "semanir":
        expected["KeySemanticDictionary"] = len(stages)
    assert artifact.operators == expected
    assert {function.name for function in model.functions} == set(expected)
    for node in model.graph.node:
        if node.op_type in expected:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert node.domain == "agileir"
            # exactly what the TensorRT plugin of this name declares, and the namespace it is looked up in
            assert set(attributes) == {*OPERATORS[node.op_type].attributes, "plugin_namespace"}
            assert attributes["plugin_namespace"] == b"agileir"
            assert attributes["window_size"] == artifact.spec.window_size
    norms = 2 * len(blocks) + len(stages) * (artifact.spec.family == "semanir") + (2 if kind != "semanir-unet" else 1)
    assert found.count("Gelu") == len(blocks)
    assert found.count("LayerNormalization") == norms
    forbidden = {"Pad", "Softmax", "Gather", "ScatterND", "Where", "Erf", "ReduceMean", "Sqrt", "Einsum", "TopK"}
    assert not forbidden & set(found)
    shifts = {a.i for n in model.graph.node for a in n.attribute if a.name == "shift_size"}
    if kind != "swinir-real":  # of one block
        assert shifts == {0, artifact.spec.window_size // 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("agileir_lightest_x2", {"depths": (8,), "num_heads": (6,), "key_dims": (16,)}),
        ("swinir_light_x2", {"depths": (6,), "num_heads": (6,)}),
        ("semanir_s_x2", {"depths": (6,), "embed_dim": 60, "num_feat": 8}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_at_most_20_nodes_a_block(preset: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """One stage of a preset at its real depth: what block n needs that block n - 1 did not."""
    model = build_preset(preset, **changes)
    artifact = export_onnx(model, tmp_path / "model.onnx")
    graph = onnx.load(artifact.path).graph
    maker = {output: node for node in graph.node for output in node.output}

    def cone(tensor: str) -> set[str]:
        waiting, found = [tensor], set()
        while waiting:
            node = maker.get(waiting.pop())
            if node is not None and node.output[0] not in found:
                found.add(node.output[0])
                waiting.extend(node.input)
        return found

    cones = [cone(name) for name in artifact.blocks if ".blocks." in name]
    assert len(cones) == changes["depths"][0]
    sizes = [len(later - earlier) for earlier, later in itertools.pairwise(cones)]
    assert max(sizes) <= 20, sizes
    assert min(sizes) >= 9, f"{sizes}: a block has two norms, four products with biases, attention, gelu and two sums"
    assert len(graph.node) <= 20 * len(cones) + 40, "nodes outside of the blocks"


def test_tensors_have_the_names_of_the_model(folder: Path) -> None:
    artifact, model = networks.exported(folder, "swinir-light"), networks.shared("swinir-light")
    graph = onnx.load(artifact.path).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    made = {output for node in graph.node for output in node.output}
    assert artifact.blocks == (
        "layers.0",
        "layers.0.residual_group.blocks.0",
        "layers.0.residual_group.blocks.1",
        "layers.1",
        "layers.1.residual_group.blocks.0",
    )
    assert made.issuperset(artifact.blocks)
    for name, tensor in model.state_dict().items():
        if name.startswith("layers") and name.endswith(("fc1.weight", "qkv.weight", "proj.weight")):
            assert weights[f"{name}^T"] == tuple(tensor.shape[::-1])
        else:
            assert weights[name] == tuple(tensor.shape) if not name.endswith("fc2.weight") else True
    assert len(weights) == len(graph.initializer)


def test_blocks_hold_what_the_modules_return(folder: Path) -> None:
    """The tensor that carries a block's name is that block's result, for every block."""
    artifact, model = networks.exported(folder, "semanir"), networks.shared("semanir")
    seen: dict[str, np.ndarray[Any, Any]] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.numpy()}))
        for name, module in model.named_modules()
        if name in artifact.blocks
    ]
    images = networks.images(1, 3, 8, 12)
    with torch.no_grad():
        model.network(torch.from_numpy(images))
    for hook in hooks:
        hook.remove()
    graph = onnx.load(artifact.path)
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in artifact.blocks)
    for value in list(graph.graph.output)[1:]:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    session = create_session(graph.SerializeToString())
    values = session.run(list(artifact.blocks), {"input": images})
    for name, value in zip(artifact.blocks, values, strict=True):
        np.testing.assert_allclose(value, seen[name], rtol=1e-3, atol=1e-3, err_msg=name)


# ---- what it says ----


def test_metadata(folder: Path) -> None:
    artifact, model = networks.exported(folder, "agileir"), networks.shared("agileir")
    written = onnx.load(artifact.path)
    assert {entry.key for entry in written.metadata_props} == {SPEC_KEY, PROVENANCE_KEY, BLOCKS_KEY}
    assert artifact == read_artifact(artifact.path)
    assert artifact.spec == model.spec
    assert artifact.sha256 == hashlib.sha256(artifact.path.read_bytes()).hexdigest()
    assert (artifact.precision, artifact.nodes) == ("float32", len(written.graph.node))
    assert artifact.provenance["version"] == agileir_export.__version__
    assert artifact.provenance["torch"] == importlib.metadata.version("torch")
    assert len(artifact.provenance["weights_sha256"]) == 64
    assert written.producer_name == "agileir-export"


def test_other_weights_have_another_digest(folder: Path, tmp_path: Path) -> None:
    other = networks.build("swinir-real")
    with torch.no_grad():
        other.conv_last.bias += 1e-3
    first = networks.exported(folder, "swinir-real").provenance["weights_sha256"]
    assert export_onnx(other, tmp_path / "other.onnx").provenance["weights_sha256"] != first


def test_nothing_local_is_in_the_file(folder: Path) -> None:
    """The exporter writes stack traces and source paths of this machine; none must stay."""
    local = [Path(agileir_export.__file__).parent, Path(torch.__file__).parents[1], Path.cwd(), Path.home()]
    local += [Path(sys.prefix), Path(tempfile.gettempdir())]
    words = [str(path) for path in local if len(path.parts) > 1]
    words += ["site-packages", ".py", "Traceback", "stack_trace", "pkg.torch"]
    for kind in networks.EXPORTED:
        data = networks.exported(folder, kind).path.read_bytes()
        assert not [word for word in words if word.encode() in data]
        assert data.count(b'File "') == 0


def test_two_exports_are_equal_byte_by_byte(folder: Path, tmp_path: Path) -> None:
    again = export_onnx(networks.build("agileir"), tmp_path / "again.onnx")
    assert again.path.read_bytes() == networks.exported(folder, "agileir").path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_writes_the_same_bytes(seed: str, folder: Path, tmp_path: Path) -> None:
    """Python orders sets of strings by a seed of its own in every process."""
    path = tmp_path / "other.onnx"
    program = "import sys; sys.path.insert(0, sys.argv[1]); import networks; from pathlib import Path;"
    program += "networks.export_onnx(networks.build('agileir'), Path(sys.argv[2]))"
    run_python("-c", program, str(Path(__file__).parent), path, PYTHONHASHSEED=seed)
    assert path.read_bytes() == networks.exported(folder, "agileir").path.read_bytes()


def test_the_model_is_not_changed(tmp_path: Path) -> None:
    """Not folded, not switched to evaluation, no gradient lost."""
    model = networks.build("agileir", depths=(1,), num_heads=(3,), key_dims=(4,)).train()
    before = copy.deepcopy(model)
    export_onnx(model, tmp_path / "model.onnx")
    assert model.spec == before.spec
    assert [(n, m.training, type(m)) for n, m in model.named_modules()] == [
        (n, m.training, type(m)) for n, m in before.named_modules()
    ]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == before.state_dict().keys()
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


# ---- how it fails ----


@pytest.mark.parametrize(("dim", "descending"), [(-1, False), (1, True)])
def test_a_stable_sort_keeps_equal_values_in_order(dim: int, descending: bool) -> None:
    """Networks of libraries sort tokens by their category; the torch exporter has no such operator of its own."""

    class Sort(torch.nn.Module):
        def forward(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            values, indices = torch.sort(numbers, dim=dim, descending=descending, stable=True)
            return values, indices

    numbers = torch.randint(0, 4, (2, 30, 7), generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        Sort(),
        (numbers,),
        dynamo=True,
        dynamic_shapes=(dict.fromkeys(range(3), torch.export.Dim.AUTO),),
        custom_translation_table=translation_table(),
        verbose=False,
    )
    assert program is not None
    other = torch.randint(0, 4, (3, 50, 9), generator=torch.Generator().manual_seed(1))
    found = create_session(program.model_proto.SerializeToString()).run(None, {"numbers": other.numpy()})
    for expected, got in zip(Sort()(other), found, strict=True):
        assert np.array_equal(expected.numpy(), got)


def test_an_exponent_may_be_a_parameter() -> None:
    """HVICIDNet reads its by ``item()``, which the exporter's own translation takes for a number that is known."""

    class Powers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.exponent = torch.nn.Parameter(torch.tensor(0.7))

        def forward(self, numbers: torch.Tensor) -> torch.Tensor:
            return numbers.pow(self.exponent.item()) + numbers**2

    numbers = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    try:
        exported = torch.export.export(Powers().eval(), (numbers,))
    except torch.fx.experimental.symbolic_shapes.GuardOnDataDependentSymNode:
        pytest.skip("torch.export itself looks at the exponent: PyTorch 2.10 does")
    table = translation_table()
    program = torch.onnx.export(exported, (numbers,), dynamo=True, custom_translation_table=table, verbose=False)
    assert program is not None
    (found,) = create_session(program.model_proto.SerializeToString()).run(None, {"numbers": numbers.numpy()})
    assert np.allclose(found, Powers()(numbers).detach().numpy(), atol=1e-6)
