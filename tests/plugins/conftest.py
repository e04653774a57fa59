import pytest


@pytest.fixture(autouse=True)
def few_threads(one_thread: None) -> None:
    """In every test."""
