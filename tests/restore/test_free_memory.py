"""What is free, from made-up trees of /proc and /sys."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from agileir_export.restore import free_memory as subject
from agileir_export.restore.free_memory import free_memory

GIB = 2**30


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


MEMINFO = {"proc/meminfo": f"MemTotal: {16 * 2**20} kB\nMemFree: 1024 kB\nMemAvailable: {8 * 2**20} kB"}
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 8 * GIB, id="no groups"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/job",
                f"{V2}/job/memory.max": 4 * GIB,
                f"{V2}/job/memory.current": 3 * GIB,
                f"{V2}/job/memory.stat": f"anon 1\ninactive_file {GIB}",
            },
            2 * GIB,
            id="version 2, cache counts as free",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/outer/inner",
                f"{V2}/outer/inner/memory.max": "max",
                f"{V2}/outer/inner/memory.current": 5,
                f"{V2}/outer/memory.max": 3 * GIB,
                f"{V2}/outer/memory.current": GIB,
            },
            2 * GIB,
            id="version 2, a group further up",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/not/visible/here",
                f"{V2}/memory.max": 2 * GIB,
                f"{V2}/memory.current": GIB,
            },
            GIB,
            id="version 2, in a container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/job\n0::/",
                f"{V1}/job/memory.limit_in_bytes": 6 * GIB,
                f"{V1}/job/memory.usage_in_bytes": 2 * GIB,
                f"{V1}/job/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}",
                f"{V1}/memory.limit_in_bytes": 9223372036854771712,
                f"{V1}/memory.usage_in_bytes": 2 * GIB,
            },
            5 * GIB,
            id="version 1",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/job", f"{V2}/job/memory.max": 10, f"{V2}/job/memory.current": 20},
            0,
            id="over the limit",
        ),
    ],
)
def test_what_is_free(files: dict[str, object], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert free_memory(tree(tmp_path, MEMINFO | files)) == expected


def test_a_limit_on_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3 * GIB, 4 * GIB))
    monkeypatch.setattr(subject, "process_memory", lambda _: GIB)
    assert free_memory(tree(tmp_path, MEMINFO)) == 2 * GIB


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None
