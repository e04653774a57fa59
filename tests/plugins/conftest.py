from collections.abc import Iterator

import pytest

from .interpreter import Interpreter


@pytest.fixture(autouse=True)
def few_threads(one_thread: None) -> None:
    """In every test."""


@pytest.fixture(scope="module")
def run() -> Iterator[Interpreter]:
    """Kernels under Triton's interpreter."""
    with Interpreter() as interpreter:
        yield interpreter
