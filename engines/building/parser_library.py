"""The library that TensorRT-RTX's parser opens by a name which its wheel does not have."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ..targets import Target

__all__ = ["parser_environment"]

PACKAGE, LIBRARY = "tensorrt_rtx_libs", "libtensorrt_rtx.so"
"""Where the library lies, with a number behind its name only."""

SEARCH_PATH = "LD_LIBRARY_PATH"


def parser_environment(target: Target, folder: Path) -> dict[str, str] | None:
    """The environment of a process whose parser may meet a plugin.

    When TensorRT-RTX 1.7's parser looks for a plugin, it opens ``libtensorrt_rtx.so``, and ends the process where the
    linker does not find it. The wheel has ``libtensorrt_rtx.so.1`` only: a link in a folder of the search path cures
    that.

    Args:
        target: What builds.
        folder: A folder of the build's own; the link goes there.

    Returns:
        None where nothing has to change: for another target, without the wheel, or on another system.
    """
    found = importlib.util.find_spec(PACKAGE) if target.builds_without_gpu and sys.platform == "linux" else None
    places = [] if found is None else map(Path, found.submodule_search_locations or ())
    libraries = [library for place in places for library in sorted(place.glob(f"{LIBRARY}.*"))]
    if not libraries:
        return None
    (folder / LIBRARY).symlink_to(libraries[0])
    before = os.environ.get(SEARCH_PATH)
    return {**os.environ, SEARCH_PATH: f"{folder}{os.pathsep}{before}" if before else str(folder)}
