from pathlib import Path

import pytest

from ..small_samples import use_samples


@pytest.fixture
def small_samples(samples: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """The packaged pictures, small."""
    use_samples(monkeypatch, samples)
    return samples


@pytest.fixture(autouse=True)
def few_threads(one_thread: None) -> None:
    """In every test."""
