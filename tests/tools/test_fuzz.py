"""Mutated files: what the tool makes of sound ones, that it sees what goes wrong, and what it has found."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.calib import read_recipe
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.errors import InputError, OnnxFileError
from agileir_export.export import read_artifact
from agileir_export.json_form import parse_json
from agileir_export.restore.journal import JOURNAL, begun_outputs

from ..cli.command import run
from ..engines.rtx_builds import needs_rtx
from ..export import networks
from ..scripts import load_script

TOOLS = Path(__file__).resolve().parents[2] / "tools"
fuzz = load_script(TOOLS / "fuzz.py")

NEED_A_PLAN = ("plans", "sidecars")
SLOW = ("onnx", *NEED_A_PLAN)
"""Their sound files take seconds to make."""


def edits(number: int) -> list[tuple[str, int, int]]:
    """Some edits; the same for the same number."""
    chosen = random.Random(number)
    return [
        (chosen.choice(sorted(fuzz.EDITS)), chosen.randrange(2**32), chosen.randrange(2**16))
        for _ in range(chosen.randint(1, 8))
    ]


def trial(read: Callable[[Path], None], folder: Path) -> Any:
    return fuzz.Trial(fuzz.Reader("a.bin", lambda folder: iter([b"sound"]), read), folder, folder / "kept")


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [needs_rtx] * (name in NEED_A_PLAN) + [pytest.mark.slow] * (name in SLOW)


@pytest.mark.parametrize("name", [pytest.param(each, marks=marks(each)) for each in fuzz.READERS])
def test_readers_refuse_mutated_files(name: str, tmp_path: Path) -> None:
    """A few of the thousands that the tool reads."""
    tried = fuzz.Trial(fuzz.READERS[name], tmp_path, tmp_path / "kept")
    for number in range(40):
        tried.read(fuzz.mutated(tried.sound[number % len(tried.sound)], edits(number)))
    assert tried.outcome.files == 40 and not tried.outcome.findings
    assert tried.outcome.refused or name == "journals"  # lines that are not ours count for nothing there


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (("bits", 1, 2), b"0223456789"),
        (("byte", 12, 65), b"01A3456789"),
        (("little", 8, 7), b"01234567\x00\x00\x00\x80"),
        (("big", 0, 4), b"\x00\x00\x7f\xff456789"),
        (("without", 2, 1), b"01456789"),
        (("twice", 3, 1), b"012343456789"),
        (("with", 1, 514), b"0" + b"\x02" * 214 + b"123456789"),
        (("end", 4, 0), b"0123"),
        (("token", 4, 5), b"0123null"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_edits(edit: tuple[str, int, int], wanted: bytes) -> None:
    assert fuzz.mutated(b"0123456789", [edit]) == wanted
    assert fuzz.mutated(b"", [edit]) == b""


def test_pngs_keep_their_check_sums() -> None:
    chunk = b"\0\0\0\3" + b"abcd" + b"xyz"
    data = b"\x89PNG\r\n\x1a\n" + chunk + zlib.crc32(b"abcdxyz").to_bytes(4, "big")
    assert fuzz.mutated(data, [("byte", 16, 65)])[16:] == b"Ayz" + zlib.crc32(b"abcdAyz").to_bytes(4, "big")


def test_it_sees_what_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        match path.read_bytes():
            case b"refuse":
                raise InputError("no")
            case b"fail":
                raise KeyError("x")
            case b"start":
                subprocess.run([sys.executable, "--version"], check=True, capture_output=True)
            case b"write":
                Path(os.devnull).write_text("x")
            case b"memory":
                bytearray(b"x") * 2**27

    tried = trial(broken, tmp_path)
    for data in (b"sound", b"refuse", b"fail", b"fail", b"start", b"write"):
        tried.read(data)
    assert (tried.outcome.files, tried.outcome.refused) == (6, 1)
    times = {name.split("'")[0].strip(): told["times"] for name, told in tried.outcome.findings.items()}
    assert times == {"KeyError in test_fuzz.py, broken": 2, "did subprocess.Popen": 1, "did open": 1}
    name = tried.outcome.findings["KeyError in test_fuzz.py, broken"]["file"]
    assert (tmp_path / "kept" / name).read_bytes() == b"fail"
    monkeypatch.setattr(fuzz, "MEMORY", 2**26)
    held = bytearray(b"x") * 2**27  # before the file: not the file's
    tried.read(b"sound")
    assert len(tried.outcome.findings) == 3 and len(held) == 2**27
    tried.read(b"memory")
    assert "took 0.1 GiB" in tried.outcome.findings


@pytest.mark.parametrize("ending", ["hang", "crash"])
def test_a_process_that_ends_is_a_finding(ending: str, tmp_path: Path) -> None:
    """In a copy of the tool whose reader of recipes does so."""
    for name in ("fuzz.py", "fuzz_readers.py"):
        text = (TOOLS / name).read_text(encoding="utf-8").replace("SECONDS = 10", "SECONDS = 0.2")
        (tmp_path / name).write_text(text, encoding="utf-8")
    what = {"hang": "while True: pass", "crash": "os.abort()"}[ending]
    with (tmp_path / "fuzz_readers.py").open("a", encoding="utf-8") as script:
        script.write(f"import os, sys\n\ndef bad(path):\n    if path.read_bytes() != b'sound':\n        {what}\n")
        script.write('READERS["recipes"] = Reader("r.json", lambda folder: iter([b"sound"]), bad)\n')
    command = [sys.executable, tmp_path / "fuzz.py", "recipes", "--minutes", "0.03", "--keep", tmp_path / "kept"]
    result = subprocess.run([*command, "--output", tmp_path / "o.json"], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    found = json.loads((tmp_path / "o.json").read_text())["readers"]["recipes"]["findings"]
    (name,) = found
    assert name == f"ended by {'SIGPROF' if ending == 'hang' else 'SIGABRT'}"
    assert (tmp_path / "kept" / "recipes" / found[name]["file"]).exists()


# ---- what it has found ----

SILLY_JSON = {"deep": "[" * 100_000, "infinite": "[1e999]", "nan": '{"a": NaN}', "long": "9" * 5000, "cut": '{"a'}


@pytest.mark.parametrize("text", SILLY_JSON.values(), ids=SILLY_JSON)
def test_json_of_others_is_refused_with_a_value_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(InputError, match="is not a recipe"):
        read_recipe(tmp_path / "recipe.json")
    (tmp_path / JOURNAL).write_text(f'{{"begun": "a.png"}}\n{text}\n{{"done": "a.png", "bytes": 1e999}}\n')
    assert begun_outputs(tmp_path) == {tmp_path / "a.png"}


@pytest.mark.parametrize("place", [b"agileir.spec", b"ShiftedWindowAttention"])
def test_names_that_are_no_text(place: bytes, folder: Path, tmp_path: Path) -> None:
    data = networks.exported(folder, "swinir-light").path.read_bytes()
    (tmp_path / "a.onnx").write_bytes(data.replace(place, b"\xff" + place[1:], 1))
    with pytest.raises(OnnxFileError, match="no text"):
        read_artifact(tmp_path / "a.onnx")


def test_files_whose_parts_do_not_fit(folder: Path, tmp_path: Path) -> None:
    artifact = networks.exported(folder, "swinir-light")
    model = onnx.load_from_string(artifact.data)
    convolution = next(node for node in model.graph.node if node.op_type == "Conv" and node.input[0] != "input")
    del convolution.attribute[:]
    convolution.attribute.append(onnx.helper.make_attribute("group", 31))
    onnx.save(model, tmp_path / "group.onnx")
    with pytest.raises(OnnxFileError, match="cannot be run"):
        OnnxRuntimeRunner(tmp_path / "group.onnx").run(networks.images(1, 3, 8, 8))
    assert run("info", tmp_path / "group.onnx").exit_code == 2
    del model.opset_import[:]
    onnx.save(model, tmp_path / "opset.onnx")
    with pytest.raises(OnnxFileError, match="names no opset"):
        read_artifact(tmp_path / "opset.onnx")
