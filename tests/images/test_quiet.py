"""Warnings are quiet in one thread only."""

from __future__ import annotations

import threading
import warnings

import pytest

from agileir_export.images.quiet import quietly


def test_only_the_thread_that_asked_is_quiet() -> None:
    inside, told = threading.Event(), threading.Event()

    def other() -> None:
        with quietly():
            inside.set()
            assert told.wait(60)
            warnings.warn("of the quiet one", stacklevel=1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(60)
        warnings.warn("of this one", stacklevel=1)
        told.set()
        thread.join()
    assert [str(warning.message) for warning in caught] == ["of this one"]


def test_it_ends_with_the_block_and_may_be_nested() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quietly():
            with quietly():
                warnings.warn("unheard", stacklevel=1)
            warnings.warn("unheard", stacklevel=1)
        with pytest.raises(UserWarning, match="heard"):
            warnings.warn("heard", stacklevel=1)
