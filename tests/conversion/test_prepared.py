"""Files made from a model on the way to an engine are kept, and taken again where nothing they depend on changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agileir_export import export
from agileir_export.cache.store import CacheWarning
from agileir_export.conversion import ConversionRequest, Int8Request, convert
from agileir_export.conversion import prepared as prepared_module
from agileir_export.conversion.prepared import PreparedFiles, source_facts
from agileir_export.models import LoadOptions

from ..cli.command import PRESET, run

OPTIONS = LoadOptions(random_weights=3)
WANTED = ConversionRequest("float32")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that were exported."""
    made: list[Any] = []
    real = export.export_onnx

    def counted(model: Any, **keywords: Any) -> Any:
        made.append(model)
        return real(model, **keywords)

    monkeypatch.setattr(export, "export_onnx", counted)
    return made


def source(
    wanted: ConversionRequest = WANTED, name: str = PRESET, keep: bool = True, **changes: Any
) -> tuple[str, str]:
    """Digest and name of the prepared artifact."""
    artifact = convert(name, wanted, replace(OPTIONS, **changes), keep=keep)
    assert artifact.path is None
    return artifact.sha256, artifact.file_name


def test_a_second_engine_needs_no_second_export(exports: list[Any]) -> None:
    first = source()
    assert source() == first
    assert len(exports) == 1
    half = source(replace(WANTED, precision="float16"))
    assert half != first and source(replace(WANTED, precision="float16")) == half
    assert len(exports) == 2


def test_whatever_matters_makes_another_file(
    exports: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = source_facts(PRESET, OPTIONS, WANTED)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with_pictures = replace(WANTED, int8=Int8Request(images=(pictures,)))
    others = [
        source_facts("swinir_light_x2", OPTIONS, WANTED),
        source_facts(PRESET, replace(OPTIONS, random_weights=4), WANTED),
        source_facts(PRESET, OPTIONS, replace(WANTED, static=(8, 8))),
        source_facts(PRESET, OPTIONS, replace(WANTED, rescale=False)),
        source_facts(PRESET, OPTIONS, with_pictures),
    ]
    (pictures / "a.png").write_bytes(b"one")
    others.append(source_facts(PRESET, OPTIONS, with_pictures))
    (pictures / "a.png").write_bytes(b"two")
    others.append(source_facts(PRESET, OPTIONS, with_pictures))
    monkeypatch.setattr(prepared_module, "program_facts", lambda: {"program": "another"})
    others.append(source_facts(PRESET, OPTIONS, WANTED))
    monkeypatch.undo()
    assert all(other != facts for other in others)
    assert len({str(other) for other in others}) == len(others)
    assert source_facts(PRESET, OPTIONS, WANTED) == facts


def test_a_checkpoint_counts_by_its_bytes(exports: list[Any], files: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tmp_path / "w.pth"
    checkpoint.write_bytes(files["swinir"].read_bytes())
    options = {"random_weights": None}
    first = source(name=str(checkpoint), **options)
    assert source(name=str(checkpoint), **options) == first
    assert len(exports) == 1
    checkpoint.write_bytes(files["semanir"].read_bytes())
    assert source(name=str(checkpoint), **options) != first
    assert len(exports) == 2


def test_nothing_is_kept_or_taken_unless_wanted(exports: list[Any], own_cache: Path) -> None:
    source(keep=False)
    assert not list(own_cache.iterdir())
    source()
    source(keep=False)
    assert len(exports) == 3


def test_a_damaged_file_is_made_again(exports: list[Any], own_cache: Path) -> None:
    first = source()
    (kept,) = (own_cache / "sources").glob("*/content")
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.warns(CacheWarning, match="damaged"):
        assert source() == first
    assert len(exports) == 2


def test_clear_removes_them(exports: list[Any], own_cache: Path) -> None:
    source()
    assert run("cache", "clear", "--unused-for", 1).exit_code == 0
    assert list((own_cache / "sources").glob("*/content"))
    assert run("cache", "clear").exit_code == 0
    assert not list((own_cache / "sources").glob("*/content"))
    assert PreparedFiles().fetch(source_facts(PRESET, OPTIONS, WANTED)) is None
