from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ..small_samples import cut_samples, use_samples


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    return cut_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture
def small_samples(samples: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """The packaged pictures, small."""
    use_samples(monkeypatch, samples)
    return samples


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only lose by threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
