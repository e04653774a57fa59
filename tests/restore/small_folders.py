"""Folders of small pictures, good and broken, a runner that needs no network, and a program to run and kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as pillow

from agileir_export.images.files import Image, write_image
from agileir_export.models import ModelSpec

SIDE = 16
BROKEN = ("truncated", "text", "empty", "gif", "webp", *(("unreadable",) if os.geteuid() else ("link",)))
"""Ways to be no picture; root reads everything, and gets a link to nothing instead of a file that may not be read."""


class Doubling:
    """Repeats pixels, and counts what it sees."""

    def __init__(self, digest: str = "0", seconds: float = 0.0) -> None:
        self.spec = ModelSpec("swinir", "custom", "super-resolution", 2, 3, window_size=1, pad_multiple=1)
        self.digest, self.seconds, self.count = digest, seconds, 0

    def run(self, images: Any) -> Any:
        self.count += 1
        time.sleep(self.seconds)
        return images.repeat(2, -2).repeat(2, -1)

    def describe(self) -> dict[str, Any]:
        return {"target": "doubling", "sha256": self.digest}


def make_pictures(folder: Path, count: int, seed: int = 0, suffix: str = ".png") -> list[Path]:
    """Numbered pictures of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    files = [folder / f"{number}{suffix}" for number in range(count)]
    for file in files:
        write_image(file, Image(generator.random((3, SIDE, SIDE), np.float32)))
    return files


def spoil(file: Path, kind: str) -> Path:
    """Makes a broken file of a good one, and gives its path: an animation has a suffix of its own."""
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif kind == "text":
        file.write_text("no picture", encoding="utf-8")
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "unreadable":
        file.chmod(0)
    elif kind == "link":
        file.unlink()
        file.symlink_to(f"gone-{file.name}")
    else:
        file.unlink()
        file = file.with_suffix(f".{kind}")
        frames = [pillow.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        frames[0].save(file, save_all=True, append_images=frames[1:])
    return file


def contents(folder: Path) -> dict[str, bytes]:
    """What lies below a folder, but for the journal."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".agileir-restore.jsonl")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


PROGRAM = """
import json, sys
from agileir_export.restore import restore_pictures
from small_folders import Doubling
runner = Doubling(seconds=float(sys.argv[3]))
print("ready", flush=True)
found = restore_pictures(runner, sys.argv[1], sys.argv[2], recursive=True, resume="--resume" in sys.argv)
print(runner.count, len(found.done), len(found.skipped), len(found.failed), flush=True)
"""


def start(source: Path, output: Path, *more: str, seconds: float = 0.0, **settings: Any) -> subprocess.Popen[str]:
    """A process that restores a folder, once its program is loaded."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(source), str(output), str(seconds), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        **settings,
    )
    assert process.stdout is not None
    told = b""
    while not told.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
        told += byte  # not by the stream, which would read on and keep what `communicate` is to find
    assert told == b"ready\n", process.stderr.read() if process.stderr else ""
    return process


class Signing(Doubling):
    """Writes a line for every picture into a file named as its process."""

    def __init__(self, folder: str, seconds: float) -> None:
        super().__init__(seconds=seconds)
        self.folder = Path(folder)

    def run(self, images: Any) -> Any:
        self.folder.mkdir(exist_ok=True)
        with (self.folder / str(os.getpid())).open("a") as stream:
            stream.write("one\n")
        return super().run(images)


class DyingOnce(Signing):
    """The first process to come to its fifth picture is killed there."""

    def run(self, images: Any) -> Any:
        result = super().run(images)
        if self.count == 5:
            with suppress(FileExistsError), self.folder.with_name("died").open("x"):
                os.kill(os.getpid(), 9)
        return result


class Dying(Doubling):
    """A black picture kills its process."""

    def run(self, images: Any) -> Any:
        if not images.any():
            os.kill(os.getpid(), 9)
        return super().run(images)


class Removing(Doubling):
    """Removes a folder at some picture."""

    def __init__(self, folder: str, count: int) -> None:
        super().__init__()
        self.folder, self.last = Path(folder), count

    def run(self, images: Any) -> Any:
        if self.count == self.last:
            self.folder.rename(self.folder.with_name(f"elsewhere-{os.getpid()}"))
        return super().run(images)
