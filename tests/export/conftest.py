"""Fixtures of the export tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import networks


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.folder(tmp_path_factory)
