"""The torch and ONNX Runtime runners: one protocol, one padding, one set of refusals."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from agileir_export.engines import OnnxRuntimeRunner, Runner, TorchRunner, create_session
from agileir_export.errors import InputError, OnnxFileError
from agileir_export.export import OnnxArtifact, read_artifact

from ..export import networks
from ..scripts import run_python

KINDS = ("swinir-light", "semanir-unet", "swinir-jpeg")
"""RGB and grey, scale 2 and 1, multiples 4, 8 and 7."""


@pytest.fixture
def runners(request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    kind = getattr(request, "param", "swinir-light")
    return {
        "torch": TorchRunner(networks.shared(kind)),
        "onnxruntime": OnnxRuntimeRunner(networks.exported(folder, kind)),
    }


@pytest.fixture(scope="session")
def static(folder: Path) -> OnnxArtifact:
    """A file for 8 x 12 pixels, multiple 4."""
    return networks.exported(folder, "swinir-light", static=(8, 12))


# ---- the protocol ----


def test_both_are_runners(runners: dict[str, Any]) -> None:
    for runner in runners.values():
        assert isinstance(runner, Runner)
        assert runner.spec == networks.shared("swinir-light").spec
    assert not isinstance(object(), Runner)
    assert not isinstance(networks.shared("swinir-light"), Runner)


def test_descriptions_are_json(runners: dict[str, Any]) -> None:
    described = {name: json.loads(json.dumps(runner.describe())) for name, runner in runners.items()}
    assert {name: answer["target"] for name, answer in described.items()} == {name: name for name in runners}
    assert described["torch"]["version"] == torch.__version__
    assert described["onnxruntime"]["version"] == onnxruntime.__version__
    assert described["onnxruntime"]["providers"] == ["CPUExecutionProvider"]
    assert described["onnxruntime"]["sha256"] == runners["onnxruntime"].artifact.sha256


@pytest.mark.parametrize("runners", KINDS, indirect=True)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1), (7, 11), (8, 8), (13, 6)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_any_size_as_the_torch_model_pads_it(batch: int, size: tuple[int, int], runners: dict[str, Any]) -> None:
    """The network reads padding everywhere near the border, so another padding is another picture."""
    spec = runners["torch"].spec
    images = networks.images(batch, spec.channels, *size, seed=sum(size))
    given = images.copy()
    with torch.no_grad():
        expected = runners["torch"].model(torch.from_numpy(images)).numpy()
    for runner in runners.values():
        output = runner.run(images)
        assert output.shape == (batch, spec.channels, size[0] * spec.scale, size[1] * spec.scale)
        assert output.dtype == np.float32
        assert networks.psnr(output, expected) >= 100
    np.testing.assert_array_equal(images, given)


def test_the_result_is_not_clamped(runners: dict[str, Any]) -> None:
    images = networks.images(1, 3, 8, 8) * 20 - 10
    outputs = [runner.run(images) for runner in runners.values()]
    assert min(output.min() for output in outputs) < 0
    assert max(output.max() for output in outputs) > 1
    assert networks.psnr(*outputs) >= 80


def test_a_path_an_artifact_and_threads(folder: Path) -> None:
    artifact = networks.exported(folder, "swinir-light")
    images = networks.images(1, 3, 5, 6)
    sources = [artifact, artifact.path, str(artifact.path)]
    outputs = [OnnxRuntimeRunner(source, threads=1).run(images) for source in sources]
    assert all(np.array_equal(outputs[0], output) for output in outputs[1:])
    assert OnnxRuntimeRunner(artifact, threads=1).session.get_session_options().intra_op_num_threads == 1


def test_the_torch_runner_evaluates() -> None:
    """A model left in training mode would normalise with the statistics of the batch."""
    model = networks.build("agileir", depths=(1,), num_heads=(3,), key_dims=(4,))
    images = networks.images(2, 3, 8, 8)
    expected = TorchRunner(model).run(images)
    runner = TorchRunner(model.train())
    np.testing.assert_array_equal(runner.run(images), expected)


# ---- files of one size ----


def shapes_fed(runner: OnnxRuntimeRunner) -> list[list[tuple[int, ...]]]:
    """The shapes of the inputs of every later call of the runner's session."""
    calls, session = [], runner.session

    class Watched:
        def run(self, names: Any, feed: dict[str, Any]) -> Any:
            calls.append([array.shape for array in feed.values()])
            return session.run(names, feed)

        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

    runner.session = Watched()  # type: ignore[assignment]
    return calls


@pytest.mark.parametrize("size", [(8, 12), (5, 9), (7, 12), (8, 10)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_static_file_takes_what_pads_to_its_size(batch: int, size: tuple[int, int], static: OnnxArtifact) -> None:
    """It holds one image: a batch goes through it one by one."""
    images = networks.images(batch, 3, *size)
    runner = OnnxRuntimeRunner(static)
    calls = shapes_fed(runner)
    output = runner.run(images)
    assert calls == [[(1, 3, 8, 12)]] * batch
    assert networks.psnr(output, TorchRunner(networks.shared("swinir-light")).run(images)) >= 100


def test_a_free_file_takes_a_batch_at_once(runners: dict[str, Any]) -> None:
    runner = runners["onnxruntime"]
    calls = shapes_fed(runner)
    runner.run(networks.images(3, 3, 8, 8))
    assert calls == [[(3, 3, 8, 8)]]


@pytest.mark.parametrize("size", [(4, 12), (8, 13), (9, 12), (1, 1), (12, 8)], ids=str)
def test_a_static_file_refuses_another_size(size: tuple[int, int], static: OnnxArtifact) -> None:
    runner = OnnxRuntimeRunner(static)
    padded = tuple(side + -side % 4 for side in size)
    with pytest.raises(InputError) as caught:
        runner.run(networks.images(1, 3, *size))
    for words in ("8x12", f"{size[0]}x{size[1]}", f"padded {padded[0]}x{padded[1]}", str(static.path)):
        assert words in caught.value.what
    assert "--static" in caught.value.fix


# ---- refusals ----


@pytest.mark.parametrize("target", ["torch", "onnxruntime"])
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (networks.images(1, 1, 8, 8), "takes 3 channel(s), the images have 1"),
        (networks.images(1, 4, 8, 8), "takes 3 channel(s), the images have 4"),
        (networks.images(1, 3, 8, 8).astype(np.float64), "got float64 [1, 3, 8, 8]"),
        ((networks.images(1, 3, 8, 8) * 255).astype(np.uint8), "got uint8 [1, 3, 8, 8]"),
        (networks.images(3, 8, 8), "got float32 [3, 8, 8]"),
        (networks.images(0, 3, 8, 8), "got float32 [0, 3, 8, 8]"),
        (networks.images(1, 3, 0, 8), "got float32 [1, 3, 0, 8]"),
        (networks.images(1, 3, 8, 0), "got float32 [1, 3, 8, 0]"),
    ],
    ids=["grey", "alpha", "float64", "uint8", "no batch", "no image", "no height", "no width"],
)
def test_images_that_do_not_fit(target: str, images: Any, words: str, runners: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        runners[target].run(images)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OnnxFileError, match="does not exist"):
        OnnxRuntimeRunner(tmp_path / "missing.onnx")


def test_onnxruntime_refuses_a_model(folder: Path, tmp_path: Path) -> None:
    """Readable, with our metadata, but with an operator nobody has."""
    model = onnx.load(networks.exported(folder, "swinir-light").path)
    model.graph.node[0].op_type = "Imaginary"
    path = tmp_path / "broken.onnx"
    onnx.save(model, path)
    assert read_artifact(path).nodes == len(model.graph.node)
    with pytest.raises(OnnxFileError, match="Imaginary") as caught:
        OnnxRuntimeRunner(path)
    assert str(path) in caught.value.what
    assert onnxruntime.__version__ in caught.value.what
    with pytest.raises(OnnxFileError, match="refuses the model"):
        create_session(b"nothing")


# ---- what it costs to import ----


HELD = """
import gc, sys
import numpy as np
from agileir_export.engines import create_session
from agileir_export.process_memory import RESIDENT, process_memory
def held():
    gc.collect()
    return [process_memory(name) // 2**20 for name in ("VmSize", RESIDENT)]
def run(rows):
    session.run(None, {"x": np.ones((rows, 2**20), np.float32)})
    return held()
session = create_session(sys.argv[1], threads=1)
told = [held()]
told += map(run, (40, 40, 50))
del session
told.append(held())
print(told)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds")
def test_a_session_holds_what_its_tensors_take_and_gives_it_back(tmp_path: Path) -> None:
    """Of two tensors of 160 MiB, made one from the other; regions that double would be 256 and 512 MiB.

    Of two of 200 MiB afterwards, which no region of 160 can hold.
    """
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], ["turned"]),
        onnx.helper.make_node("Transpose", ["turned"], ["back"]),
        onnx.helper.make_node("ReduceMax", ["back"], ["most"], keepdims=0),
    ]
    floats = onnx.TensorProto.FLOAT
    x, most = (onnx.helper.make_tensor_value_info(*each) for each in (("x", floats, ["n", "m"]), ("most", floats, [])))
    graph = onnx.helper.make_graph(nodes, "held", [x], [most])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "held.onnx")
    answer = run_python("-c", HELD, str(tmp_path / "held.onnx"))
    loaded, first, second, larger, gone = json.loads(answer.stdout)
    for kind in (0, 1):  # of address space, and of memory
        assert 320 <= first[kind] - loaded[kind] <= 360
        assert abs(second[kind] - first[kind]) <= 8
        assert 400 <= larger[kind] - loaded[kind] <= 440
        assert abs(gone[kind] - loaded[kind]) <= 8


def test_onnxruntime_needs_no_torch(folder: Path) -> None:
    """Importing the runner loads neither PyTorch nor ONNX Runtime; restoring an image loads no PyTorch."""
    artifact = networks.exported(folder, "swinir-light")
    program = """
import sys
import numpy as np
from agileir_export.engines.onnxruntime import runner as onnxruntime_runner
print(sorted({"torch", "onnxruntime", "tensorrt"} & set(sys.modules)))
runner = onnxruntime_runner.OnnxRuntimeRunner(sys.argv[1])
print(runner.run(np.zeros((1, 3, 5, 6), np.float32)).shape, "torch" in sys.modules)
"""
    answer = run_python("-c", program, str(artifact.path))
    assert answer.stdout.splitlines() == ["[]", "(1, 3, 10, 12) False"]
