from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the exported files that tests share."""
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="session")
def data_dir():
    """The folder of development images beside the repository; without it, the test skips."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development images are not here")
    return folder
