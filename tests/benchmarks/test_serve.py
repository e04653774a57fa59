"""benchmarks/serve.py: its pictures, its clients, its table."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType

import pytest

from agileir_export.images import read_image

from ..scripts import load_script
from ..small_samples import use_samples

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(SCRIPT)


def test_the_pictures_are_crops_of_samples(
    bench: ModuleType, samples: list[tuple[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_samples(monkeypatch, samples)
    files = bench.make_pictures(tmp_path, 5, 16)
    assert [read_image(file).pixels.shape[1:] for file in files] == [(16, 16)] * 5
    assert len({file.read_bytes() for file in files}) == 5


def test_clients_wait_for_their_answers(bench: ModuleType) -> None:
    def ask(data: bytes) -> bytes:
        time.sleep(0.02)
        return data * 2

    total, seconds, answers = bench.send(ask, [b"a", b"b", b"c", b"d", b"e"], 2)
    assert answers == [b"aa", b"bb", b"cc", b"dd", b"ee"]
    assert len(seconds) == 5 and min(seconds) >= 0.02
    assert total >= 0.06, "three in a row by one of two clients"


def test_the_table_is_against_restore(bench: ModuleType) -> None:
    row = {
        "clients": 16,
        "rate": {"restore": 5.0, "served": 4.9, "plain": 3.0},
        "ratio": {"restore": 1.0, "served": 0.98, "plain": 0.6},
        "p50": {"served": 3.1, "plain": 5.2},
        "p95": {"served": 3.4, "plain": 5.5},
    }
    assert bench.table([row]).splitlines()[-1] == "| 16 | 5.00 | 0.98 | 3.10 / 3.40 s | 0.60 | 5.20 / 5.50 s |"
