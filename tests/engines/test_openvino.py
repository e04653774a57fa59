"""OpenVINO as a runner: the protocol, what it refuses, what it never tells anybody, and when it is taken."""

from __future__ import annotations

import importlib.util
import json
import logging
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from agileir_export.cache import Cache
from agileir_export.engines import OnnxRuntimeRunner, OpenVinoRunner, Runner, TorchRunner
from agileir_export.engines.onnxruntime.runner import create_session
from agileir_export.engines.openvino import choice, loading
from agileir_export.engines.openvino.choice import Check, choose_runner, compare_runtimes
from agileir_export.engines.openvino.graph import plain_graph
from agileir_export.engines.openvino.turns import ROUNDS, sample_input, take_turns
from agileir_export.errors import EnvironmentProblem, InputError, OnnxFileError, Unsupported
from agileir_export.export import OnnxArtifact
from agileir_export.export.artifact import artifact_of
from agileir_export.export.precision import to_precision
from agileir_export.restore.peak_memory import measuring

from ..export import networks
from ..export.written import quantised
from ..scripts import run_python

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")

KINDS = ("agileir", "swinir-light", "swinir-jpeg", "semanir-unet")
"""RGB and grey, scale 2 and 1, multiples 4, 7 and 8."""

NORM_AND_ADD = ("LayerNormalization", "Add")


# ---- the protocol ----


@needs_openvino
def test_it_is_a_runner_that_describes_itself(swinir: OnnxArtifact) -> None:
    runner = OpenVinoRunner(swinir)
    assert isinstance(runner, Runner)
    assert runner.spec == swinir.spec
    told = json.loads(json.dumps(runner.describe()))
    assert (told["target"], told["version"]) == ("openvino", loading.openvino_version())
    assert (told["precision"], told["sha256"]) == ("f32", swinir.sha256)


@needs_openvino
@pytest.mark.parametrize("kind", KINDS)
def test_any_size_as_the_torch_model_pads_it(kind: str, folder: Path) -> None:
    runner, reference = OpenVinoRunner(networks.exported(folder, kind)), TorchRunner(networks.shared(kind))
    for batch, rows, columns in ((1, 1, 9), (3, 7, 11), (1, 13, 6), (3, 7, 11)):
        images = networks.images(batch, runner.spec.channels, rows, columns, seed=rows)
        given = images.copy()
        output = runner.run(images)
        assert output.dtype == np.float32
        assert networks.psnr(output, reference.run(images)) >= 100
        np.testing.assert_array_equal(images, given)


@needs_openvino
def test_a_static_file_takes_its_size_only(folder: Path) -> None:
    static = networks.exported(folder, "swinir-light", static=(8, 12))
    images = networks.images(3, 3, 7, 12)
    runner = OpenVinoRunner(static)
    assert networks.psnr(runner.run(images), OnnxRuntimeRunner(static).run(images)) >= 100
    with pytest.raises(InputError, match="exported for 8x12 pixels, the image is 16x12"):
        runner.run(networks.images(1, 3, 16, 12))


@needs_openvino
def test_a_decomposed_file_and_one_with_functions_are_the_same_to_it(folder: Path, semanir: OnnxArtifact) -> None:
    decomposed = networks.exported(folder, "semanir", decomposed=True)
    images = networks.images(1, 3, 8, 9)
    first, second = (OpenVinoRunner(artifact, threads=1).run(images) for artifact in (semanir, decomposed))
    np.testing.assert_array_equal(first, second)


@needs_openvino
def test_int8_is_computed_as_onnx_runtime_computes_it(swinir: OnnxArtifact) -> None:
    int8 = quantised(swinir)
    images = networks.images(1, 3, 20, 28)
    first, second = (kind(int8).run(images) for kind in (OpenVinoRunner, OnnxRuntimeRunner))
    assert networks.psnr(first, second) >= 60, "a step of 8 bits here and there: sums are rounded in another order"


@needs_openvino
def test_a_quantised_concat_stays_where_it_is(folder: Path) -> None:
    """The U-Net joins its skips so; OpenVINO refused the file of semanir_tiny_dn25 in INT8."""
    model = quantised(networks.exported(folder, "semanir-unet")).model
    (guard,) = (node for node in plain_graph(model).graph.node if node.op_type == "Max" and "joined" in node.name)
    assert guard.input[0] in {node.output[0] for node in model.graph.node if node.op_type == "Concat"}
    images = networks.images(1, 1, 24, 32)
    first, second = (kind(artifact_of(model)).run(images) for kind in (OpenVinoRunner, OnnxRuntimeRunner))
    assert networks.psnr(first, second) >= 40, "keys that nearly tie may be exchanged"


@pytest.mark.parametrize("kind", ["agileir", "semanir"])
def test_norms_of_tokens_and_the_sums_before_them_are_computed_in_rows(kind: str, folder: Path) -> None:
    """Of four axes, OpenVINO takes them for pictures, and reorders them."""
    artifact = networks.exported(folder, kind)
    norms, adds = ([node.name for node in artifact.model.graph.node if node.op_type == op] for op in NORM_AND_ADD)
    nodes = {node.name: node for node in plain_graph(artifact.model).graph.node}
    assert norms
    for name in norms:
        assert nodes[name].input[0].endswith("/rows_0")
        assert nodes[name].output[0].endswith("/rows")
    in_rows = [name for name in adds if nodes[name].output[0].endswith("/rows")]
    assert len(in_rows) >= len(norms) // 2
    assert all(part.endswith(f"/rows_{place}") for name in in_rows for place, part in enumerate(nodes[name].input))


def test_products_that_are_split_are_several_products(folder: Path) -> None:
    """A Split copies number by number; in AgileIR, the projection of every group."""
    model = plain_graph(networks.exported(folder, "agileir").model)
    nodes = {output: node for node in model.graph.node for output in node.output}
    apart = [name.removesuffix("/weight") for name in nodes if name.endswith("/weight")]
    assert apart
    for name in apart:
        product, bias = nodes[name].input
        assert (nodes[name].op_type, bias) == ("Add", f"{name}/bias")
        assert (nodes[product].op_type, nodes[product].input[1]) == ("MatMul", f"{name}/weight")
    summed = {node.output[0] for node in model.graph.node if node.op_type == "Add"}
    assert not [node.name for node in model.graph.node if node.op_type == "Split" and node.input[0] in summed]


@pytest.mark.parametrize("quantise", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("kind", ["agileir", "swinir-light", "semanir", "semanir-unet"])
def test_what_it_reads_computes_what_the_file_does(kind: str, quantise: bool, folder: Path) -> None:
    """Under another runtime, bit for bit but for the order of a few sums."""
    artifact = networks.exported(folder, kind)
    artifact = quantised(artifact) if quantise else artifact
    model = plain_graph(artifact.model)
    onnx.checker.check_model(model)
    session = create_session(model.SerializeToString())
    for batch, rows, columns in ((1, 2, 3), (2, 4, 1)):
        multiple = artifact.spec.pad_multiple
        images = networks.images(batch, artifact.spec.channels, rows * multiple, columns * multiple)
        given = session.run(None, {session.get_inputs()[0].name: images})[0]
        assert networks.psnr(given, OnnxRuntimeRunner(artifact).run(images)) >= 120


def best_of(rank: int, axis: int | None) -> onnx.ModelProto:
    """A model of one TopK, three of 20 along an axis; None: its default, the last."""
    node = helper.make_node("TopK", ["x", "k"], ["values", "places"], **({} if axis is None else {"axis": axis}))
    graph = helper.make_graph(
        [node],
        "best",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3, 20, 20][-rank:])],
        [
            helper.make_tensor_value_info("values", onnx.TensorProto.FLOAT, None),
            helper.make_tensor_value_info("places", onnx.TensorProto.INT64, None),
        ],
        [helper.make_tensor("k", onnx.TensorProto.INT64, [1], [3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@needs_openvino
@pytest.mark.parametrize(("rank", "axis"), [(4, -1), (4, 3), (3, None), (2, 1)])
def test_of_equal_values_the_first_are_best(rank: int, axis: int | None) -> None:
    """As ONNX says; along the last axis, OpenVINO (2026.4) takes others."""
    import onnxruntime

    model = best_of(rank, axis)
    x = np.random.default_rng(0).integers(0, 4, (2, 3, 20, 20)[-rank:]).astype(np.float32)
    turned = plain_graph(model)
    assert [node.op_type for node in turned.graph.node] == ["Transpose", "TopK", "Transpose", "Transpose"]
    given = loading.core().compile_model(loading.core().read_model(turned.SerializeToString(), b""), "CPU")([x])
    wanted = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, expected in zip(("values", "places"), wanted.run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(given[name], expected)


def test_the_best_of_columns_stay_where_they_are() -> None:
    assert [node.op_type for node in plain_graph(best_of(4, 2)).graph.node] == ["TopK"]


@needs_openvino
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_refused(precision: str, swinir: OnnxArtifact) -> None:
    with pytest.raises(Unsupported, match="half precision") as caught:
        OpenVinoRunner(to_precision(swinir, precision))
    assert "onnxruntime" in caught.value.fix


@needs_openvino
def test_what_openvino_does_not_know_is_named(swinir: OnnxArtifact, tmp_path: Path) -> None:
    model = onnx.load(str(swinir.path))
    model.graph.node[0].op_type = "Imaginary"
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(OnnxFileError, match="Imaginary") as caught:
        OpenVinoRunner(tmp_path / "broken.onnx")
    assert loading.openvino_version() in caught.value.what


@needs_openvino
def test_a_pickle_runs_alike(swinir: OnnxArtifact) -> None:
    runner = OpenVinoRunner(swinir, threads=1)
    images = networks.images(1, 3, 9, 10)
    again: Any = pickle.loads(pickle.dumps(runner))
    np.testing.assert_array_equal(again.run(images), runner.run(images))
    assert again._compiled.get_property("INFERENCE_NUM_THREADS") == 1


@linux
@needs_openvino
def test_its_memory_is_measured_in_a_process_of_its_own(swinir: OnnxArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    with measuring(OpenVinoRunner(swinir)) as measure:
        small, large = measure(1, 64, 64), measure(1, 192, 192)
    assert 0 < small.bytes < large.bytes


SHORT_OF_MEMORY = """
import resource, sys
import numpy as np
from agileir_export.engines import OpenVinoRunner
from agileir_export.errors import EnvironmentProblem
runner = OpenVinoRunner(sys.argv[1], threads=1)
runner.run(np.zeros((1, 3, 8, 12), np.float32))
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**26, held + 2**26))
try:
    print(runner.run(np.zeros((1, 3, 512, 512), np.float32)).shape)
except EnvironmentProblem as error:
    print(error.what)
"""


@linux
@pytest.mark.slow
@needs_openvino
def test_too_little_memory_is_an_error(swinir: OnnxArtifact) -> None:
    answer = run_python("-c", SHORT_OF_MEMORY, str(swinir.path))
    assert answer.stdout == "OpenVINO ran out of memory, at 1 image(s) of 512x512 pixels or before.\n"


@needs_openvino
def test_an_empty_result_is_no_result_and_the_last(swinir: OnnxArtifact) -> None:
    """What OpenVINO gives where it could not allocate a tensor; what comes after it is not to be trusted."""
    runner = OpenVinoRunner(swinir, threads=1)
    images = networks.images(1, 3, 8, 12)
    empty = SimpleNamespace(infer=lambda given: [np.zeros((0, 3, 0, 0), np.float32)])
    runner._compiled = SimpleNamespace(create_infer_request=lambda: empty)
    for _ in range(2):
        with pytest.raises(EnvironmentProblem, match=r"out of memory, at 1 image.* of 8x12"):
            runner.run(images)
    assert runner._compiled is None


# ---- what is imported, and what is told to whom ----


IMPORTS = """
import sys
import numpy as np
from agileir_export.commands import calibrate, restore, verify
from agileir_export.engines.opening import open_runner
print(open_runner(sys.argv[1], runtime=sys.argv[2]).run(np.zeros((1, 3, 5, 6), np.float32)).shape)
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("openvino", "openvino_telemetry")
             and sys.modules[name] is not None))
"""


def test_it_is_not_imported_where_it_is_not_asked_for(swinir: OnnxArtifact) -> None:
    answer = run_python("-c", IMPORTS, str(swinir.path), "onnxruntime")
    assert answer.stdout.splitlines() == ["(1, 3, 10, 12)", "[]"]


TOLD = """
import sys
def listen(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "urllib", "subprocess.", "os.fork", "os.posix_spawn")):
        print(event, arguments[:2], file=sys.stderr)
sys.addaudithook(listen)
from agileir_export.engines.openvino.loading import devices
from agileir_export.engines.opening import open_runner
import numpy as np
print(devices()[0][:4])
print(open_runner(sys.argv[1], runtime="openvino").run(np.zeros((1, 3, 5, 6), np.float32)).shape)
print([name for name in sys.modules if "openvino_telemetry" in name and sys.modules[name] is not None])
"""


@needs_openvino
def test_nothing_is_reported_to_its_maker(swinir: OnnxArtifact, tmp_path: Path) -> None:
    """As it comes, importing it starts a process that reports, and writes an identity into the user's home."""
    answer = run_python("-c", TOLD, str(swinir.path), HOME=str(tmp_path), CI="")
    assert answer.stdout.splitlines() == ["CPU:", "(1, 3, 10, 12)", "[]"]
    assert answer.stderr == ""
    assert not (tmp_path / "intel").exists()


def test_where_it_is_missing_the_fix_is_said(monkeypatch: pytest.MonkeyPatch, swinir: OnnxArtifact) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # an import of it then fails
    monkeypatch.setattr(loading, "openvino_version", lambda: "")
    with pytest.raises(EnvironmentProblem, match="OpenVINO is not installed") as caught:
        OpenVinoRunner(swinir)
    assert caught.value.fix == loading.INSTALL
    monkeypatch.setattr(loading, "openvino_version", lambda: "2026.4.1")
    with pytest.raises(EnvironmentProblem, match="cannot be loaded"):
        OpenVinoRunner(swinir)


# ---- which of the two is taken ----


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """OpenVINO is there; the next check finds the last of these."""
    found: list[Check] = []
    monkeypatch.setattr(choice, "openvino_version", loading.openvino_version)
    monkeypatch.setattr(choice, "compare_runtimes", lambda *_: found.pop())
    return found


@needs_openvino
@pytest.mark.parametrize(
    ("check", "target", "said"),
    [
        (Check(130.0, 100.0, 0.8), "openvino", "in 0.80 of ONNX Runtime's time"),
        (Check(float("inf"), 100.0, 0.8), "openvino", "in 0.80 of ONNX Runtime's time"),
        (Check(130.0, 100.0, 1.08), "onnxruntime", "it takes 1.08 of ONNX Runtime's time here"),
        (Check(99.0, 100.0, 0.8), "onnxruntime", "99.0 dB from ONNX Runtime's, and the floor is 100 dB"),
        (Check(float("-inf"), 100.0, 0.8), "onnxruntime", "-inf dB"),
    ],
    ids=["faster", "identical", "slower", "below", "nan"],
)
def test_it_is_taken_where_it_holds_and_is_faster(
    check: Check,
    target: str,
    said: str,
    checks: list[Check],
    swinir: OnnxArtifact,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    checks.append(check)
    for _ in range(2):  # the second time it is known: there is no other check to find
        caplog.clear()
        with caplog.at_level(logging.INFO, "agileir_export"):
            assert choose_runner(swinir, Cache(tmp_path)).describe()["target"] == target
        assert said in caplog.text
    with pytest.raises(IndexError):  # another file is checked by itself
        choose_runner(networks.exported(swinir.path.parent, "agileir"), Cache(tmp_path))


@needs_openvino
def test_half_precision_is_onnx_runtimes(checks: list[Check], swinir: OnnxArtifact, tmp_path: Path) -> None:
    assert choose_runner(to_precision(swinir, "float16"), Cache(tmp_path)).describe()["target"] == "onnxruntime"


def test_what_openvino_refuses_is_onnx_runtimes(
    monkeypatch: pytest.MonkeyPatch, swinir: OnnxArtifact, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise OnnxFileError("OpenVINO refuses it")

    monkeypatch.setattr(choice, "openvino_version", lambda: "2026.4.1")
    monkeypatch.setattr(choice, "OpenVinoRunner", refuse)
    with caplog.at_level(logging.INFO, "agileir_export"):
        assert isinstance(choose_runner(swinir, Cache(tmp_path)), OnnxRuntimeRunner)
    assert "OpenVINO refuses it" in caplog.text


def test_where_it_is_not_installed_nothing_is_checked(swinir: OnnxArtifact, tmp_path: Path) -> None:
    """`conftest.py` hides it from the choice."""
    assert isinstance(choose_runner(swinir, Cache(tmp_path)), OnnxRuntimeRunner)
    assert not list(tmp_path.iterdir())


@needs_openvino
def test_the_check_compares_results_and_times(swinir: OnnxArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agileir_export.engines.openvino.turns.SIDE", 32)
    runner = OnnxRuntimeRunner(swinir)
    check = compare_runtimes(runner, OpenVinoRunner(swinir))
    assert check.psnr >= check.floor == 100
    assert check.time_ratio > 0

    class Broken(OnnxRuntimeRunner):
        def run(self, images: Any) -> Any:
            return np.full_like(super().run(images), np.nan)

    assert compare_runtimes(Broken(swinir), OpenVinoRunner(swinir)).objection


def test_runners_take_turns_on_a_picture_that_the_file_takes(folder: Path) -> None:
    for artifact, shape in (
        (networks.exported(folder, "swinir-light"), (1, 3, 128, 128)),
        (networks.exported(folder, "swinir-jpeg"), (1, 1, 128, 128)),
        (networks.exported(folder, "swinir-light", static=(8, 12)), (1, 3, 8, 12)),
    ):
        assert sample_input(artifact).shape == shape
    calls: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, images: Any) -> Any:
            calls.append(self.name)
            return images

    images = networks.images(1, 1, 2, 2)
    times, outputs = take_turns([Named("a"), Named("b")], images)  # type: ignore[list-item]
    assert calls == ["a", "b"] * (ROUNDS + 1)
    assert [len(each) for each in times] == [ROUNDS, ROUNDS]
    assert all(output is images for output in outputs)
