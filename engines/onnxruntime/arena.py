"""Memory of a session: an arena of its own, which grows by what is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import SessionOptions

__all__ = ["exact_arena"]

AS_ASKED = 1
"""``arena_extend_strategy`` of regions as large as what is asked for; 0, the default, doubles them."""

SHARED = ("session.use_env_allocators", "1")


@contextlib.contextmanager
def exact_arena(options: SessionOptions) -> Iterator[None]:
    """Gives the session that is created in the block an arena whose regions are as large as what was asked for.

    By itself an arena doubles its regions. A second run then cuts the large ones up for small tensors and takes new
    ones: semanir_tiny_dn25 held 5200 bytes a pixel at some sizes and 6800 at others; so it is 5200 to 5400 at all.

    Only arenas that are registered for the whole process can be told so. One is registered for this session, and
    another, empty one afterwards: the session is then the only one that holds its own, which ends with it. Sessions
    that two threads create at the same moment may share one. What the program registered itself is replaced for
    sessions that it creates later.

    Args:
        options: The session's options; they are changed.
    """
    import onnxruntime

    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    growth = onnxruntime.OrtArenaCfg({"arena_extend_strategy": AS_ASKED})
    onnxruntime.create_and_register_allocator(place, growth)
    options.add_session_config_entry(*SHARED)
    try:
        yield
    finally:
        onnxruntime.create_and_register_allocator(place, growth)
