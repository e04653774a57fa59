"""Reads mutated files with every reader of the package, and says what was not refused as it should be.

Hypothesis chooses the mutations of sound files. A reader may return or raise an `AgileIRError`; anything else is a
finding: another exception, the end of the process, more than 10 seconds of processor time, more than 1 GiB of memory
beside what the process held, a program started, a connection opened, a file written. Each reader has a process of its
own, which is started again where it ends. Findings are kept as files.

Usage::

    python tools/fuzz.py [pictures checkpoints ...] [--minutes 5] [--output fuzz.json] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agileir_export.errors import AgileIRError
from agileir_export.process_memory import PEAK, process_memory, restart_peak

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_readers import READERS, Reader

SECONDS = 10
"""Of processor time, for one file."""

MEMORY = 2**30
"""Resident bytes that one file may add to what the process held before: less than 2 GiB with PyTorch and all."""

ADDRESSES = 24 * 2**30
"""Bytes of address space: beyond, the process is refused memory before it harms the machine."""

PACKAGES = ("agileir-export", "hypothesis", "numpy", "pillow", "torch", "onnx", "safetensors", "spandrel")

TOKENS = (b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"null", b"true", b'""', b'"x"', b"[]", b"{}", b"[" * 5000)
"""What takes the place of a token of JSON."""

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")
"""Audit events that no reader may cause."""

Edit = tuple[str, int, int]


# ---- mutations ----


def _overwritten(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def _token(data: bytes, place: int, value: int) -> bytes:
    """Another token of JSON in place of the first after a place."""
    found = re.compile(rb'-?\d[\d.e+-]*|"[^"\\]*"|true|false|null').search(data, place)
    if found is None:
        return data
    return data[: found.start()] + TOKENS[value % len(TOKENS)] + data[found.end() :]


EDITS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "bits": lambda data, place, value: _overwritten(data, place, bytes([data[place] ^ (value % 255 + 1)])),
    "byte": lambda data, place, value: _overwritten(data, place, bytes([value % 256])),
    "little": lambda data, place, value: _overwritten(data, place, struct.pack("<I", NUMBERS[value % len(NUMBERS)])),
    "big": lambda data, place, value: _overwritten(data, place, struct.pack(">I", NUMBERS[value % len(NUMBERS)])),
    "without": lambda data, place, value: data[:place] + data[place + value % 64 + 1 :],
    "twice": lambda data, place, value: data[: place + value % 512 + 1] + data[place:],
    "with": lambda data, place, value: data[:place] + bytes([value % 256]) * (value % 300) + data[place:],
    "end": lambda data, place, value: data[:place],
    "token": _token,
}
"""By name: the data with one change at a place; ``value`` says which."""


def mutated(data: bytes, edits: Sequence[Edit]) -> bytes:
    """Data after some edits, with the check sums of PNG set right again."""
    for name, place, value in edits:
        if not data:
            break
        data = EDITS[name](data, place % len(data), value)
    return _with_checksums(data) if data.startswith(b"\x89PNG\r\n\x1a\n") else data


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the check sums that they should have, as far as it has chunks."""
    result, place = bytearray(data), 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(data):
            break
        result[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(result)


# ---- one reader in a process of its own ----


@dataclass
class Outcome:
    """What was seen of a reader.

    Attributes:
        files: Mutated files that were read.
        refused: Those that were refused with an error of the package.
        findings: What went wrong, by kind and place: how often, and the last file.
        peak_bytes: Most resident memory.
        longest_seconds: Of processor time, for one file.
    """

    files: int = 0
    refused: int = 0
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    peak_bytes: int = 0
    longest_seconds: float = 0.0


class Trial:
    """Reads mutated files and keeps count.

    Args:
        reader: What reads them.
        folder: Where they are written.
        keep: Where findings are kept.
    """

    def __init__(self, reader: Reader, folder: Path, keep: Path) -> None:
        self.reader, self.path, self.keep = reader, folder / reader.name, keep
        self.sound = list(reader.sound(folder))
        self.outcome = Outcome()
        self.watching = False
        self.caused: list[str] = []
        for data in self.sound:  # what is loaded once is loaded now
            self._write(data)
            with contextlib.suppress(AgileIRError):  # of a format that is not read
                reader.read(self.path)
        sys.addaudithook(self._watch)
        (folder / "ready").touch()

    def _write(self, data: bytes) -> None:
        self.path.write_bytes(data)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and (event in FORBIDDEN or (event == "open" and _writes(arguments, self.path))):
            self.caused.append(f"{event} {arguments[0]!r}")

    def read(self, data: bytes) -> None:
        """Reads one file; what goes wrong is counted and kept."""
        self._write(data)
        restart_peak()
        held = process_memory(PEAK) or 0
        self.caused.clear()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        begun, self.watching = time.process_time(), True
        found = None
        try:
            self.reader.read(self.path)
        except AgileIRError:
            self.outcome.refused += 1
        except Exception as error:
            found = _place(error)
        finally:
            self.watching = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        peak = process_memory(PEAK) or 0
        self.outcome.files += 1
        self.outcome.peak_bytes = max(self.outcome.peak_bytes, peak)
        self.outcome.longest_seconds = max(self.outcome.longest_seconds, time.process_time() - begun)
        if self.caused:
            found = f"did {self.caused[0]}"
        elif peak - held > MEMORY:
            found = f"took {(peak - held) / 2**30:.1f} GiB"
        if found is not None:
            told = self.outcome.findings.setdefault(found, {"times": 0})
            told["times"] += 1
            told["file"] = kept(self.keep, data, self.path.suffix)

    def run(self, seconds: float, number: int) -> None:
        """Reads what Hypothesis makes, for a time."""
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from hypothesis import strategies as st

        edit = st.tuples(st.sampled_from(sorted(EDITS)), st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1))
        edits = st.lists(edit, min_size=1, max_size=8)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            number += 1

            @seed(number)
            @settings(
                max_examples=200,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            @given(st.sampled_from(self.sound), edits)
            def read_some(sound: bytes, changes: list[Edit]) -> None:
                if time.monotonic() < until:
                    self.read(mutated(sound, changes))

            read_some()


def kept(folder: Path, data: bytes, suffix: str) -> str:
    """Writes a finding; returns its name."""
    name = f"{zlib.crc32(data):08x}{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return name


def _writes(arguments: tuple[Any, ...], path: Path) -> bool:
    """Whether a file outside the folder is opened to be written."""
    name, mode = arguments[0], str(arguments[1])
    return isinstance(name, str) and any(letter in mode for letter in "wax+") and not name.startswith(str(path.parent))


def _place(error: Exception) -> str:
    """The type of an error, and where in the package it arose."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "agileir_export" in frame.filename]
    frames = frames or traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__} in {Path(frames[-1].filename).name}, {frames[-1].name}"


def child(name: str, seconds: float, number: int, folder: Path, keep: Path) -> None:
    """Reads for a time; the outcome goes to a file of the folder after every thousand."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    trial = Trial(READERS[name], folder, keep)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # it ends the process, in code of C, too
    try:
        trial.run(seconds, number)
    finally:
        (folder / "outcome.json").write_text(json.dumps(asdict(trial.outcome)))


# ---- all of them ----


def fuzz(name: str, minutes: float, keep: Path) -> dict[str, Any]:
    """What comes of a reader in a time; its process is started again where it ends before."""
    begun, total, number = time.monotonic(), Outcome(), 0
    while (left := minutes * 60 - (time.monotonic() - begun)) > 0 and number < 50:
        number += 1
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            arguments = ["--child", name, str(left), str(number * 1_000_000), made, str(keep / name)]
            ended = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
            if not (folder / "ready").exists():
                sys.exit(f"{name}: the sound files cannot be read:\n{ended.stderr}")
            if ended.returncode:
                lines = ended.stderr.strip().splitlines()
                why = signal.Signals(-ended.returncode).name if ended.returncode < 0 else lines[-1] if lines else "?"
                file = folder / READERS[name].name
                told = total.findings.setdefault(f"ended by {why}", {"times": 0})
                told["times"] += 1
                if file.exists():
                    told["file"] = kept(keep / name, file.read_bytes(), file.suffix)
            if (folder / "outcome.json").exists():
                _add(total, json.loads((folder / "outcome.json").read_text()))
    return {"minutes": round((time.monotonic() - begun) / 60, 2), **asdict(total)}


def _add(total: Outcome, more: dict[str, Any]) -> None:
    total.files += more["files"]
    total.refused += more["refused"]
    total.peak_bytes = max(total.peak_bytes, more["peak_bytes"])
    total.longest_seconds = round(max(total.longest_seconds, more["longest_seconds"]), 2)
    for found, told in more["findings"].items():
        known = total.findings.setdefault(found, {"times": 0})
        known.update(told, times=known["times"] + told["times"])


def main() -> int:
    """Reads, tells, and ends with 1 where anything was found."""
    if sys.argv[1:2] == ["--child"]:
        name, seconds, number, folder, keep = sys.argv[2:]
        child(name, float(seconds), int(number), Path(folder), Path(keep))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", choices=[[], *READERS], help="Default: all.")
    parser.add_argument("--minutes", type=float, default=5, help="For each reader.")
    parser.add_argument("--output", type=Path, help="JSON with what was seen.")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="Folder of the findings.")
    options = parser.parse_args()
    seen = {}
    for name in options.readers or READERS:
        seen[name] = fuzz(name, options.minutes, options.keep)
        print(name, json.dumps(seen[name]), flush=True)
    if options.output is not None:
        told = {"date": time.strftime("%Y-%m-%d"), "versions": {each: version(each) for each in PACKAGES}}
        options.output.write_text(json.dumps({**told, "readers": seen}, indent=1) + "\n")
    return int(any(each["findings"] for each in seen.values()))


if __name__ == "__main__":
    sys.exit(main())
