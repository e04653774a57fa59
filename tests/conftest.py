import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before anything loads it: tests report nothing to anybody
# kernels that tests compile: not in the home
os.environ.setdefault("TRITON_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "triton"))

import pytest

from agileir_export.export import OnnxArtifact

from .export import networks
from .small_samples import cut_samples


@pytest.fixture(autouse=True)
def no_choice_of_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says which runtime, it is ONNX Runtime: a choice by time would make tests differ from run to run."""
    monkeypatch.setattr("agileir_export.engines.openvino.choice.openvino_version", lambda: "")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGILEIR_EXPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the exported files that tests share."""
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="session")
def swinir(folder: Path) -> OnnxArtifact:
    """The quickest file there is."""
    return networks.exported(folder, "swinir-light")


@pytest.fixture(scope="session")
def semanir(folder: Path) -> OnnxArtifact:
    """A file that chooses keys."""
    return networks.exported(folder, "semanir")


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """The packaged pictures, small."""
    return cut_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only lose by threads, a lot so on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data_dir():
    """The folder of development images beside the repository; without it, the test skips."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development images are not here")
    return folder
