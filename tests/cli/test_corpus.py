"""Bad and odd input by the hundred: no traceback, no exit code of a defect, nothing left behind.

Files of every kind where another is wanted, damaged ones, and silly values of every option of every verb, read off the
command line itself, so that a new option is in the corpus as it is added.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image as pillow

from agileir_export.cli import main
from agileir_export.commands.options import OutputType

from ..export import networks
from .command import KIND, run

pytestmark = pytest.mark.slow

SILLY = ("", ".", "nan", "-1", "0", "99999999999999", "1e400", "x\ny", "ünï/\u202e", "--", "../..", "0x0", "[a]{b}")
FEW = SILLY[::3]
"""For verbs that take a second."""
DONE = (0, 1, 2, 3, 4)
"""Every exit code but that of a defect, 5."""

BASES: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "{swinir}", "-o", "a.onnx", "--no-verify"),
    "verify": ("verify", "{onnx}", "--reference", "{swinir}", "--size", "8x8"),
    "restore": ("restore", "{onnx}", "{picture}", "-o", "a.png"),
    "calibrate": ("calibrate", "none.onnx", "-o", "c.onnx"),  # a calibration for every value would take a quarter hour
    "trt": ("trt", "{onnx}", "-o", "a.plan", "--target", "rtx", "--dry-run"),
    "bundle": ("bundle", "{onnx}", "-o", "b", "--no-verify"),
    "polygraphy": ("polygraphy", "{onnx}", "--rtx"),
    "models": ("models",),
    "info": ("info", "{onnx}"),
    "doctor": ("doctor",),
}


def options() -> Iterator[tuple[str, str]]:
    """Every option of every verb that takes a value."""
    for verb in BASES:
        for parameter in main.commands[verb].params:
            if isinstance(parameter, click.Option) and not parameter.is_flag:
                yield verb, parameter.opts[0]


def sound(arguments: list[str], files: dict[str, Path]) -> None:
    """Runs a verb: it ends as it should, says why in words, and leaves only what it was asked for."""
    before = {path: path.read_bytes() for path in files.values() if path.is_file()}
    here = {path.name for path in Path.cwd().iterdir()}
    result = run(*arguments)
    assert result.exit_code in DONE, (arguments, result.output)
    assert "Traceback" not in result.output and "defect" not in result.output
    if result.exit_code:
        assert "rror" in result.stderr or "Usage" in result.stderr, arguments
    left = {path.name for path in Path.cwd().iterdir()} - here
    assert result.exit_code == 0 or not left, (arguments, left)
    assert not [name for name in left if name.startswith(".agileir-") and name.endswith(".tmp")]
    assert {path: path.read_bytes() for path in before} == before
    if "--json" in arguments and result.stdout.strip():
        json.loads(result.stdout)


@pytest.mark.parametrize(("verb", "option"), options(), ids=[f"{verb} {option}" for verb, option in options()])
def test_silly_values(verb: str, option: str, files: dict[str, Path], tmp_path: Path) -> None:
    output = next(
        isinstance(parameter.type, OutputType) or parameter.name == "output"
        for parameter in main.commands[verb].params
        if option in parameter.opts
    )
    base = [argument.format_map(files) for argument in BASES[verb]]
    for number, value in enumerate(FEW if verb in ("onnx", "verify") else SILLY):
        if output and value == "../..":
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            sound([*base, option, value, "--json"], files)


class Code:
    """Runs when it is unpickled by anyone who is careless."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def encoded(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    pillow.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def contents(files: dict[str, Path]) -> dict[str, bytes]:
    """What no verb can use: by what it is."""
    state = networks.shared(KIND).state_dict()
    first = next(iter(state))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Code()))
    generator = np.random.default_rng(1)
    found = {
        "empty": b"",
        "a byte": b"\0",
        "zeros": bytes(4096),
        "noise": generator.bytes(4096),
        "text": b"no network\n",
        "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
        "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n",
        "JSON": b'{"a": [1, 2, {"b": null}]}',
        "a pickle": pickle.dumps({"a": 1}),
        "code": pickle.dumps(Code()),
        "code in a zip": zipped.getvalue(),
        "code in a checkpoint": saved(Code()),
        "a list": saved([1, 2, 3]),
        "a number": saved(5),
        "a tensor": saved(torch.zeros(3)),
        "no tensors": saved({"a": 1, "b": "c"}),
        "not finite": saved({**state, first: torch.full_like(state[first], float("nan"))}),
        "a part": saved({first: state[first]}),
        "another shape": saved({**state, first: torch.zeros(1, 1)}),
        "another type": saved({**state, first: state[first].to(torch.complex64)}),
        "half a checkpoint": saved(dict(state))[:-5000],
        "half an ONNX file": files["onnx"].read_bytes()[: files["onnx"].stat().st_size // 2],
        "an ONNX file and more": files["onnx"].read_bytes() + b"\xff" * 100,
        "a safetensors header": (10**12).to_bytes(8, "little") + b"{}",
        "a safetensors header that is no JSON": (8).to_bytes(8, "little") + b"notjson!",
    }
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"):
        data = encoded(kind)
        found[f"half a {kind}"] = data[: len(data) // 2]
        found[f"a {kind} with holes"] = data[:40] + bytes(60) + data[100:]
        found[f"the beginning of a {kind}"] = data[:12]
    png = encoded("PNG")
    found["a PNG of 2 billion pixels a side"] = png[:16] + (2**31 - 1).to_bytes(4, "big") * 2 + png[24:]
    found["a PNG of no pixels"] = png[:16] + bytes(8) + png[24:]
    frames = [pillow.new("RGB", (24, 24), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        found[f"an animated {kind}"] = encoded(kind, save_all=True, append_images=frames)
    return found


PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "onnx": (".pth", ("onnx", "{bad}", "-o", "a.onnx")),
    "safetensors": (".safetensors", ("info", "{bad}")),
    "info": (".onnx", ("info", "{bad}")),
    "verify": (".onnx", ("verify", "{bad}")),
    "verify images": (".png", ("verify", "{onnx}", "--reference", "{swinir}", "--images", "{bad}")),
    "restore": (".png", ("restore", "{onnx}", "{bad}", "-o", "a.png")),
    "restore by": (".onnx", ("restore", "{bad}", "{picture}", "-o", "a.png")),
    "an engine": (".plan", ("restore", "{bad}", "{picture}", "-o", "a.png")),
    "a recipe": (".json", ("calibrate", "{onnx}", "-o", "c.onnx", "--recipe", "{bad}")),
    "a list of pictures": (".txt", ("calibrate", "{onnx}", "-o", "c.onnx", "--images", "{bad}", "--quick")),
    "a video": (".mp4", ("restore", "{onnx}", "{bad}", "-o", "a.mkv")),
}


@pytest.mark.parametrize("place", PLACES)
def test_other_files(place: str, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    suffix, arguments = PLACES[place]
    folder = tmp_path_factory.mktemp("bad")
    for number, (name, content) in enumerate(contents(files).items()):
        bad = folder / f"{number} {name}{suffix}".replace("/", " ")
        bad.write_bytes(content)
        sound([argument.format_map({**files, "bad": str(bad)}) for argument in arguments], {"bad": bad})
        assert not Path("executed").exists(), name
        for path in Path.cwd().iterdir():  # of what could be done all the same
            path.unlink()


def test_the_corpus_is_large(files: dict[str, Path]) -> None:
    assert len(list(options())) * len(SILLY) + len(PLACES) * len(contents(files)) >= 250
