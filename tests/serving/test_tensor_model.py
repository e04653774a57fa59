"""The picture model that calls a tensor model of its own server, as it does on a GPU.

The wheel's server has neither TensorRT's nor ONNX Runtime's backend: the tensor model here is one of the Python backend
with the same name, tensors and file. The calls between the models are the server's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.bundle import write_bundle
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.engines.profiles import Profile
from agileir_export.errors import InputError, InternalError
from agileir_export.export import OnnxArtifact
from agileir_export.restore import restore_pictures
from agileir_export.restore.server import ServerAddress, ServerClient
from agileir_export.serving.running import Address, RunningServer
from agileir_export.serving.tensor_model import TensorModelRunner
from agileir_export.serving.workplace import Workplace, read_bundle

from ..engines.sidecars import describe
from ..export import networks
from .pictures import good
from .servers import free_ports, installation

TENSOR_MODEL = """import os
import sys
import numpy as np
import triton_python_backend_utils as backend
from agileir_export.engines import OnnxRuntimeRunner

class TritonPythonModel:
    def initialize(self, args):
        sys.unraisablehook = lambda raised: None
        self.runner = OnnxRuntimeRunner(os.path.join(args["model_repository"], "1", "model.onnx"))

    def execute(self, requests):
        answers = []
        for request in requests:
            images = np.from_dlpack(backend.get_input_tensor_by_name(request, "input"))
            found = np.ascontiguousarray(self.runner.run(np.array(images)))
            answers.append(backend.InferenceResponse([backend.Tensor.from_dlpack("output", found)]))
        return answers
"""


@pytest.fixture
def server(swinir: OnnxArtifact, tmp_path: Path) -> Iterator[RunningServer]:
    found = installation()
    write_bundle(tmp_path / "bundle", swinir, name="small")
    bundle = read_bundle(tmp_path / "bundle")
    tensors = bundle.folder / "triton" / "small_onnx"
    config = (tensors / "config.pbtxt").read_text()
    config = config.replace('platform: "onnxruntime_onnx"', 'backend: "python"').replace("KIND_AUTO", "KIND_CPU")
    config = config.replace('default_model_filename: "model.onnx"\n', "")
    (tensors / "config.pbtxt").write_text(config[: config.index("model_warmup")])
    (tensors / "1" / "model.py").write_text(TENSOR_MODEL)
    settings = {"runtime": "tensors", "tile": "16", "overlap": 4, "pixels": 10_000}
    running = RunningServer(
        found, bundle, Workplace(settings, 4, 16, ["small_onnx"]), Address("127.0.0.1", *free_ports())
    )
    running.start(90)
    yield running
    running.close()


@pytest.mark.slow
def test_tiles_go_through_the_tensor_model(server: RunningServer, swinir: OnnxArtifact, tmp_path: Path) -> None:
    files = good(8)
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    restore_pictures(OnnxRuntimeRunner(swinir), tmp_path / "in", tmp_path / "out", tile=16, overlap=4)
    with ServerClient(ServerAddress(f"127.0.0.1:{server.address.grpc}", "small")) as client:
        assert client.about()["runner"]["target"] == "triton"
        for name, data in files.items():
            found = client.restore(data, Path(name).suffix[1:]).data
            assert found == (tmp_path / "out" / name).read_bytes(), name


class Backend:
    """What the runner uses of the backend's module; the tensor model doubles pixels."""

    TRITONSERVER_MEMORY_CPU = 0

    def __init__(self, error: str = "") -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.error = error
        outer = self

        class Tensor:
            @staticmethod
            def from_dlpack(name: str, images: Any) -> Any:
                assert name == "input"
                return images

        class InferenceRequest:
            def __init__(self, model_name: str, requested_output_names: list[str], inputs: list[Any], **_: Any) -> None:
                assert (model_name, requested_output_names) == ("m", ["output"])
                self.images = inputs[0]

            def exec(self) -> Any:
                outer.shapes.append(self.images.shape)
                return Response(self.images.repeat(2, -2).repeat(2, -1))

        class Response:
            def __init__(self, found: Any) -> None:
                self.found = found

            def has_error(self) -> bool:
                return bool(outer.error)

            def error(self) -> Any:
                return type("Error", (), {"message": lambda _: outer.error})()

        self.Tensor, self.InferenceRequest = Tensor, InferenceRequest

    @staticmethod
    def PreferredMemory(kind: int) -> int:
        return kind

    @staticmethod
    def get_output_tensor_by_name(response: Any, name: str) -> Any:
        assert name == "output"
        return response.found


def test_images_are_padded_and_split_as_a_plan_wants_them(swinir: OnnxArtifact, tmp_path: Path) -> None:
    profile = Profile((2, 16, 16), (2, 16, 32), (4, 32, 32))
    plan = describe(tmp_path / "a.plan", swinir.spec, b"plan", profiles=(profile,))
    backend = Backend()
    images = networks.images(5, 3, 13, 30)
    found = TensorModelRunner(backend, "m", plan).run(images)
    assert np.array_equal(found, images.repeat(2, -2).repeat(2, -1))
    assert backend.shapes == [(4, 3, 16, 32), (2, 3, 16, 32)]
    with pytest.raises(InputError, match="outside every profile of m"):
        TensorModelRunner(backend, "m", plan).run(networks.images(1, 3, 40, 8))


def test_a_static_file_goes_in_its_own_batches(folder: Path) -> None:
    static = networks.exported(folder, "swinir-light", static=(8, 12))
    backend = Backend()
    images = networks.images(2, 3, 8, 12)
    TensorModelRunner(backend, "m", static).run(images)
    assert backend.shapes == [(1, 3, 8, 12)] * 2


def test_the_error_of_a_tensor_model(swinir: OnnxArtifact) -> None:
    with pytest.raises(InternalError, match="tensor model m failed: out of order"):
        TensorModelRunner(Backend("out of order"), "m", swinir).run(networks.images(1, 3, 8, 8))
