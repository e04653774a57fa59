"""How much memory this process may still take (Linux): what is free, what its control groups and limits leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..process_memory import ADDRESSES, process_memory

__all__ = ["free_memory"]

GROUPS = "sys/fs/cgroup"
V1, V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")
"""Files of a group's limit and of its use, in the two versions of control groups."""


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be taken without swapping and without being killed.

    The least of ``MemAvailable``, of what every control group of the process leaves below its limit (versions 1 and 2,
    groups further up included; page cache that nobody uses counts as free, as the kernel gives it back), and of
    ``RLIMIT_AS``.

    Args:
        root: Where ``proc`` and ``sys`` lie.

    Returns:
        None where the system does not tell.
    """
    available = _fields(root / "proc/meminfo").get("MemAvailable")
    if available is None:
        return None
    return max(min([available * 1024, *_groups(root), *_address_space()]), 0)


def _groups(root: Path) -> Iterator[int]:
    """What the groups with a limit leave."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top, names = root / GROUPS, V2
        elif "memory" in controllers.split(","):
            top, names = root / GROUPS / "memory", V1
        else:
            continue
        group = top / path.lstrip("/")  # in a container it may not be visible under this name; those above are
        for folder in (group, *group.parents):
            left = _left(folder, names)
            if left is not None:
                yield left
            if folder == top:
                break


def _left(group: Path, names: tuple[str, str]) -> int | None:
    """What one group leaves; None without a limit."""
    try:
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in names)
    except OSError:
        return None
    if not limit.isdecimal():  # "max"
        return None
    statistics = _fields(group / "memory.stat")
    return int(limit) - int(used) + statistics.get("total_inactive_file", statistics.get("inactive_file", 0))


def _address_space() -> Iterator[int]:
    import resource  # not on every system; those that tell what is free have it

    limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], process_memory(ADDRESSES)
    if limit != resource.RLIM_INFINITY and used is not None:
        yield limit - used


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file with a name and a number a line; empty where there is no such file."""
    try:
        words = [line.replace(":", " ").split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return {}
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdecimal()}
