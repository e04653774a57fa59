"""What of the benchmark of plugin engines can be tested without TensorRT: its files, its judgement, its logs."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from agileir_export.engines import create_session
from agileir_export.plugins.catalogue import CALLS, OPERATORS
from agileir_export.plugins.windows import relative_position_index

from ..export import networks
from ..export.written import half_file

pytest.importorskip("triton", reason="Triton is not installed")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"
registered: list[tuple[Any, ...]] = []
"""What was registered with TensorRT's stand-in."""

NAMES = ("measuring", "products_as_sums", "steps", "plugin_operators", "plugin_engines")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The scripts as modules, under the names they have when they are run, and only for one test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        del sys.modules[name]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    "kind", ["swinir-light", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("agileir", "semanir"))]
)
def test_products_become_sums(
    kind: str, precision: str, scripts: SimpleNamespace, folder: Path, tmp_path: Path
) -> None:
    plain = networks.exported(folder, kind)
    artifact = plain if precision == "float32" else half_file(plain, tmp_path / "half.onnx", precision)
    made = scripts.products_as_sums.as_sums(artifact.model)
    assert artifact.model == onnx.load(artifact.path)
    kinds = {node.op_type for node in made.graph.node}
    assert {"Mul", "ReduceSum", "Pad", "Slice"} <= kinds and not kinds & {"Conv", "MatMul"}
    images = networks.images(2, artifact.spec.channels, 16, 24)
    found, expected = (
        create_session(model.SerializeToString()).run(None, {"input": images})[0] for model in (made, artifact.model)
    )
    assert networks.psnr(found, expected) >= (120 if precision == "float32" else 55)


def test_other_convolutions_are_refused(scripts: SimpleNamespace) -> None:
    weights = ", ".join(["1.0"] * 36)
    text = (
        '<ir_version: 10, opset_import: ["": 20]> g (float[1,2,8,8] x) => (float[1,2,4,4] y) '
        f"<float[2,2,3,3] w = {{{weights}}}> {{ [down] y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w) }}"
    )
    with pytest.raises(ValueError, match="down is no convolution of stride 1"):
        scripts.products_as_sums.as_sums(onnx.parser.parse_model(text))


class Reference:
    """In the place of `Plan`: the operators in PyTorch on the CPU, which get the table back from its rows.

    Args:
        trt: Not used.
        logger: Told a line, as a builder would.
        model: The file.
        shapes: Kept.
    """

    wrong = False

    def __init__(self, trt: Any, logger: Any, model: bytes, shapes: Any) -> None:
        logger("INFO", "built")
        self.graph, self.shapes, self.bytes = onnx.load_from_string(model).graph, shapes, b"plan"

    def layers(self) -> Any:
        return {"Layers": [{"LayerType": "PluginV3"}]}

    def __call__(self, tensors: dict[str, Any]) -> Any:
        (node,) = self.graph.node
        operator = OPERATORS[node.op_type]
        image = tensors[node.input[0]]
        weights = {t.name: onnx.numpy_helper.to_array(t).astype(np.float32) for t in self.graph.initializer}
        given = [tensors[n] if n in tensors else torch.from_numpy(weights[n]).to(image.dtype) for n in node.input]
        numbers = {entry.name: entry.i for entry in node.attribute}
        if len(given) > 1 and given[-1].dim() == 4:
            window, width = numbers["window_size"], self.key_width(operator, given, numbers)
            rows, token = given[-1].float() / width**0.5, torch.arange(window * window)
            row, column = token // window, token % window
            pairs = rows[:, row[:, None] - row + window - 1, column[:, None], column]
            table = torch.zeros((2 * window - 1) ** 2, len(rows))
            table[relative_position_index(window).flatten()] = pairs.flatten(1).T
            given[-1] = table.to(image.dtype)
        result = operator.torch_operator()(*given, *(numbers[name] for name in operator.attributes))
        return result + 1 if self.wrong else result

    @staticmethod
    def key_width(operator: Any, given: list[Any], numbers: dict[str, int]) -> int:
        if operator.name == "GroupShiftedWindowAttention":
            return int(given[3].shape[1])
        return int(given[0].shape[3] // 3 // numbers["num_heads"])


@pytest.fixture
def rehearsed(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script where a stand-in is what TensorRT builds."""
    from agileir_export import plugins
    from agileir_export.engines import cuda_driver
    from agileir_export.engines.tensorrt import logger

    gpu = SimpleNamespace(devices=[SimpleNamespace(compute_capability=(9, 0))])
    monkeypatch.setattr(cuda_driver, "probe_gpu", lambda: gpu)
    monkeypatch.setattr(plugins, "register_tensorrt", lambda capability: registered.append(("quick", capability)))
    monkeypatch.setattr(
        plugins,
        "register_python_plugins",
        lambda trt, capabilities, every_tactic: registered.append(("python", *capabilities, every_tactic)),
    )
    monkeypatch.setattr(logger, "make_logger", lambda trt, sink: sink)
    monkeypatch.setattr(scripts.measuring, "machine", lambda device: {"device": "none"})
    tensorrt = ModuleType("tensorrt")
    tensorrt.__version__ = "0.0"  # type: ignore[attr-defined]
    tensorrt.__spec__ = ModuleSpec("tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setattr(scripts.plugin_operators, "Plan", Reference)
    monkeypatch.setattr(scripts.plugin_operators, "LARGE", ())
    return scripts.plugin_operators


def test_operators_take_either_form(rehearsed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins in Python have working memory of their own, and results of their own."""
    registered.clear()
    made: list[list[str]] = []
    model = rehearsed.operator_model

    def noted(*arguments: Any) -> bytes:
        text: bytes = model(*arguments)
        made.append(list(onnx.load_from_string(text).graph.node[0].output))
        return text

    monkeypatch.setattr(rehearsed, "operator_model", noted)
    monkeypatch.setattr(rehearsed, "FIRST", ("AgileIR tiny",))
    monkeypatch.setattr(rehearsed, "TYPES", ("float16",))
    outputs = {}
    for form in ("quick", "python"):
        made.clear()
        assert rehearsed.operators(tmp_path, tmp_path, ["group_shifted_window_attention"], form) == 0
        outputs[form] = {len(each) for each in made}
    assert outputs == {"quick": {2}, "python": {1}}
    assert registered == [("quick", 90), ("python", 90, True)]
    assert {path.name for path in tmp_path.glob("*.json")} == {
        "operators-group_shifted_window_attention.json",
        "operators-python-group_shifted_window_attention.json",
    }


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("operator", ["shifted_window_attention", "key_semantic_dictionary"])
def test_operators_are_judged(
    operator: str, wrong: bool, rehearsed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reference, "wrong", wrong)
    monkeypatch.setattr(rehearsed, "TYPES", ("float16",))
    assert rehearsed.operators(tmp_path, tmp_path, [operator]) == wrong
    report = json.loads((tmp_path / f"operators-{operator}.json").read_text())
    assert report["tensorrt"] == "0.0" and report["rows"]
    assert {row["passed"] for row in report["rows"]} == {not wrong}
    assert all(len(row["errors"]) == 3 and row["layers"] == ["PluginV3"] for row in report["rows"])
    logs = list(tmp_path.glob("*.log"))
    assert len(logs) == len(report["rows"]) and all(log.read_text() == "INFO: built\n" for log in logs)


class Runner:
    """In the place of the runner of an engine: ONNX Runtime, on the file that the engine was built from."""

    def __init__(self, plan: Any) -> None:
        self.session = create_session(plan.artifact.data)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {"name": "stand-in"}

    def run(self, images: Any) -> Any:
        return self.session.run(None, {"input": images})[0]


@pytest.mark.parametrize("form", ["quick", pytest.param("python", marks=pytest.mark.slow)])
def test_engines_with_half_blocks_are_judged_and_timed(
    form: str, scripts: SimpleNamespace, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of the file keep their products, which the pass finds; all others are sums."""
    from agileir_export import engines, models
    from agileir_export.engines.building import engine
    from agileir_export.plugins.block_fusion import fuse_blocks

    asked: list[Any] = []

    def build_engine(artifact: Any, path: Path, options: Any, **others: Any) -> Any:
        path.write_bytes(b"plan")
        asked.append((options, others["operators"], artifact))
        return SimpleNamespace(path=path, artifact=artifact, build={"half_blocks": 6}, audit={})

    script = scripts.plugin_engines
    monkeypatch.setattr(engine, "build_engine", build_engine)
    monkeypatch.setattr(engines, "TensorRTRunner", Runner)
    monkeypatch.setattr(scripts.measuring, "machine", lambda device: {"device": "none"})
    monkeypatch.setattr(scripts.measuring, "find_package", lambda: None)
    monkeypatch.setattr(script, "MODELS", ("agileir_tiny_x2",))
    monkeypatch.setattr(script, "SIDE", 16)
    monkeypatch.setattr(models, "load_model", lambda name: networks.shared("agileir"))
    nets, out = tmp_path / "nets", tmp_path / "out"
    assert script.main(["prepare", str(nets)]) == 0
    assert script.main(["models", "--blocks", "--form", form, str(nets), str(out)]) == 0
    name = "models-blocks.json" if form == "quick" else "models-blocks-python.json"
    report = json.loads((out / name).read_text())
    assert report["half_blocks"] and {row["passed"] for row in report["rows"]} == {True}
    assert all(len(row["run_seconds"]) == script.TIMES for row in report["rows"])
    for options, operators, artifact in asked:
        assert (options.fuse_blocks, options.plugin_form, operators) == (True, form, "plugin")
        made, found = fuse_blocks(artifact.model, nets)
        assert len(found) == 2 * sum(networks.SHAPES["agileir"]["depths"])
        assert not {node.op_type for node in made.graph.node} & {"MatMul", "Conv", "Gelu"}


def test_a_step_that_fails_is_kept_and_the_next_goes_on(scripts: SimpleNamespace, tmp_path: Path) -> None:
    report = scripts.steps.Report(tmp_path / "a.json")

    def broken(row: dict[str, Any]) -> None:
        row["reached"] = 1
        raise RuntimeError("no kernel")

    assert not report.step("one", broken)
    assert report.step("two", lambda row: None)
    assert report.finish() == 1
    first, second = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert (first["reached"], first["error"], second["passed"]) == (1, "RuntimeError: no kernel", True)


def test_a_file_of_one_operator_is_valid(scripts: SimpleNamespace) -> None:
    for call in CALLS:
        window = call.attributes["window_size"]
        free = 1 + len(call.integer_inputs)
        weights = [np.zeros(shape, np.float32) for shape in call.shapes(1, window, window)[free:]]
        model = onnx.load_from_string(scripts.plugin_operators.operator_model(call, "bfloat16", weights))
        (node,) = model.graph.node
        assert node.domain == "agileir" and len(model.graph.input) == free
        assert all(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer)
