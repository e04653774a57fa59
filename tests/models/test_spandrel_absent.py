"""The library spandrel where it is not asked for, not installed, or cannot be imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agileir_export.errors import EnvironmentProblem
from agileir_export.models import load_model
from agileir_export.models.spandrel import library

from .checkpoints import refused, saved, state_of, write

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")

UNKNOWN = {f"body.{i}.weight": torch.ones(2) for i in range(5)}

LOADS = """
import sys
from agileir_export.models import load_model
load_model("swinir_light_x2", random_weights=0)
load_model(sys.argv[1])
print(sorted({"spandrel", "torchvision"} & sys.modules.keys()))
"""

HELP = """
import sys
from agileir_export.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print(sorted({"spandrel", "torchvision", "torch"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("code", [LOADS, HELP], ids=["own families", "help"])
def test_it_is_not_imported_where_it_is_not_needed(code: str, tmp_path: Path) -> None:
    path = write(tmp_path, saved(state_of()))
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_without_it_an_unknown_network_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(library, "find_spec", lambda name: None if name == "spandrel" else found(name))
    error = refused(write(tmp_path, saved(UNKNOWN)), "architecture is not known")
    assert "spandrel" in error.why and "not installed" in error.why
    assert "pip install 'agileir-export[spandrel]'" in error.fix
    with pytest.raises(EnvironmentProblem, match="not installed") as caught:
        library.load_spandrel.__wrapped__()
    assert caught.value.fix == "pip install 'agileir-export[spandrel]'"


@pytest.mark.parametrize(
    "raised",
    [
        'RuntimeError("operator torchvision::nms does not exist")',
        "ModuleNotFoundError(\"No module named 'torchvision'\")",
        'AttributeError("partially initialized module torchvision has no attribute extension")',
        "ImportError()",
    ],
    ids=["operator", "absent", "half", "silent"],
)
def test_torchvision_of_another_release(raised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spandrel").mkdir()
    (tmp_path / "spandrel" / "__init__.py").write_text(f"raise {raised}\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "spandrel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    library.load_spandrel.cache_clear()
    path = write(tmp_path, saved(UNKNOWN))
    with pytest.raises(EnvironmentProblem, match="spandrel cannot be imported") as caught:
        load_model(path)
    told = str(caught.value)
    assert (
        "torchvision works with one release of PyTorch" in caught.value.why
        and torch.__version__.partition("+")[0] in told
    )
    assert "pip install" in caught.value.fix
    assert "Traceback" not in told and "\n" not in told and ".py" not in told
    load_model(write(tmp_path, saved(state_of())))  # our own families need none of it
    library.load_spandrel.cache_clear()
