"""What every cached thing depends on: each file of the package, and the version of each library."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import agileir_export
from agileir_export.cache import Cache, program_facts
from agileir_export.cache.facts import facts_key, library_versions, package_digest
from agileir_export.calib.layers import find_layers
from agileir_export.calib.statistics import collect
from agileir_export.conversion import ConversionRequest
from agileir_export.conversion.prepared import source_facts
from agileir_export.models import LoadOptions

from ..engines.builds import request

ROOT = Path(agileir_export.__file__).resolve().parent
FILES = [
    path.relative_to(ROOT)
    for room in sorted(ROOT.glob("*/__init__.py"))
    for path in sorted(room.parent.rglob("*"))
    if path.is_file() and path.suffix != ".pyc"
] + [path.relative_to(ROOT) for path in sorted(ROOT.glob("*.py"))]
PRODUCT = """<ir_version: 10, opset_import: ["": 20]> g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
    <float[4, 4, 1, 1] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}> { y = Conv (x, w) }"""


def keys(folder: Path) -> dict[str, str]:
    """The keys of an engine, a prepared file, and what was measured on a picture."""
    model = onnx.parser.parse_model(PRODUCT)
    model.graph.node[0].name = "conv"
    ranges = Cache(folder)
    ranges.clear()
    collect(model, find_layers(onnx.shape_inference.infer_shapes(model)), [np.ones((1, 4, 8, 8), np.float32)], ranges)
    return {
        "engine": facts_key(request(Path("a.onnx")).facts("1", "", "")),
        "prepared": facts_key(source_facts("swinir_light_x2", LoadOptions(), ConversionRequest())),
        "ranges": ranges.entries()[0].key,
    }


def test_every_file_of_the_package_counts(tmp_path: Path) -> None:
    assert {Path("images/samples/chelsea.png"), Path("cli.py"), Path("plugins/launch.py")} <= set(FILES)
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, tmp_path / file)
    before = package_digest(tmp_path)
    assert before == package_digest()
    seen = {before}
    for file in FILES:
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content + b"#")
        seen.add(package_digest(tmp_path))
        (tmp_path / file).write_bytes(content)
    assert len(seen) == len(FILES) + 1


def test_what_lies_beside_the_package_does_not(tmp_path: Path) -> None:
    before = package_digest(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("a = 1")
    (tmp_path / "README.md").write_text("read me")
    assert package_digest(tmp_path) == before
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").touch()
    assert package_digest(tmp_path) != before


@pytest.mark.parametrize("name", sorted({"triton", *library_versions()}))
def test_another_release_of_a_library_changes_every_key(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = keys(tmp_path), metadata.version
    assert keys(tmp_path) == before

    def version(asked: str) -> Any:
        return "99.0" if asked == name else real(asked)

    monkeypatch.setattr(metadata, "version", version)
    after = keys(tmp_path)
    assert all(after[thing] != before[thing] for thing in before)


def test_another_program_changes_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(tmp_path)
    monkeypatch.setattr("agileir_export.cache.facts.package_digest", lambda: "another")
    after = keys(tmp_path)
    assert all(after[thing] != before[thing] for thing in before)


def test_every_dependency_is_among_the_facts() -> None:
    declared = {re.split(r"[^\w.-]", line)[0] for line in metadata.requires("agileir-export") or () if ";" not in line}
    assert declared and declared <= set(program_facts()["libraries"])
