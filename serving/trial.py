"""One picture through a server, and through `restore` here: whether both make the same bytes."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ..engines.opening import open_runner
from ..images.files import sample_images
from ..json_form import JsonForm
from ..restore import restore_pictures
from ..restore.server import ServerAddress, ServerClient
from ..restore.tiled_runner import Tile

__all__ = ["Trial", "try_server"]


@dataclass(frozen=True)
class Trial(JsonForm):
    """What was seen.

    Attributes:
        picture: Name of the packaged sample.
        equal: Whether server and `restore` made the same bytes.
        seconds: From the request to the answer.
        local_seconds: Of `restore`, with reading and writing.
    """

    picture: str
    equal: bool
    seconds: float
    local_seconds: float


def try_server(address: ServerAddress, onnx: Path, runtime: str, tile: Tile, overlap: int | None) -> Trial:
    """Sends a packaged sample, and compares.

    Args:
        address: The server and its picture model.
        onnx: The file that it runs.
        runtime: What runs the file, as the server was told.
        tile: Likewise.
        overlap: Likewise.

    Raises:
        AgileIRError: The server does not answer, or the picture cannot be restored.
    """
    name, path = sample_images()[0]
    with ServerClient(address) as client:
        start = time.perf_counter()
        answer = client.restore(path.read_bytes(), path.suffix[1:])
        seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory(prefix="agileir-check-") as folder:
        output = Path(folder, path.name)
        runner = open_runner(onnx, runtime=runtime)
        start = time.perf_counter()
        restore_pictures(runner, path, output, tile=tile, overlap=overlap)
        return Trial(name, output.read_bytes() == answer.data, seconds, time.perf_counter() - start)
