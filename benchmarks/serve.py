"""Pictures a second through a real Triton server, against `restore` on the same machine and against a plain model.

Usage (from the root of the repository, with ``pip install '.[serve]'``)::

    python benchmarks/serve.py --json serve.json

One server has two models: the picture model of a bundle, and a plain one for the Python backend, which runs whole
pictures one by one, as anybody would write it first. In every round, `restore` takes the folder of pictures, then
clients send the same pictures to either model; each client waits for its answer before it sends the next. Clients,
server and `restore` share the machine's cores. Rates are medians of the rounds, and so are the ratios to the `restore`
of the same round, which bear other work on the machine better. Latencies are those of all rounds together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import surroundings

from agileir_export.bundle import write_bundle
from agileir_export.conversion import convert
from agileir_export.engines.opening import open_runner
from agileir_export.images import read_image, sample_images, write_image
from agileir_export.images.files import Image
from agileir_export.restore import restore_pictures
from agileir_export.restore.server import ServerAddress, ServerClient
from agileir_export.serving.finding import find_server
from agileir_export.serving.running import Address, RunningServer
from agileir_export.serving.workplace import Workplace, read_bundle

PACKAGES = ("nvidia-pytriton", "tritonclient", "onnxruntime", "numpy", "agileir-export")
PORTS = (18001, 18000, 18002)
PLAIN_CONFIG = """name: "plain"
backend: "python"
max_batch_size: 0
input { name: "picture" data_type: TYPE_UINT8 dims: [ -1 ] }
output { name: "restored" data_type: TYPE_UINT8 dims: [ -1 ] }
instance_group { count: 1 kind: KIND_CPU }
"""
PLAIN_MODEL = """import io, sys
import numpy as np
import triton_python_backend_utils as backend
from PIL import Image
from agileir_export.engines.opening import open_runner

class TritonPythonModel:
    def initialize(self, args):
        sys.unraisablehook = lambda raised: None  # see serving/backend.py
        self.runner = open_runner({onnx!r}, runtime={runtime!r})

    def execute(self, requests):
        answers = []
        for request in requests:
            data = np.from_dlpack(backend.get_input_tensor_by_name(request, "picture")).tobytes()
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
            restored = self.runner.run(np.ascontiguousarray(pixels))[0].transpose(1, 2, 0).clip(0, 1)
            file = io.BytesIO()
            Image.fromarray((restored * 255 + 0.5).astype(np.uint8)).save(file, "PNG")
            found = np.frombuffer(bytearray(file.getvalue()), np.uint8)
            answers.append(backend.InferenceResponse([backend.Tensor.from_dlpack("restored", found)]))
        return answers
"""


def make_pictures(folder: Path, count: int, side: int) -> list[Path]:
    """Crops of the packaged samples, as PNG."""
    samples = [read_image(path).pixels for _, path in sample_images()]
    generator = np.random.default_rng(0)
    files = []
    for number in range(count):
        pixels = samples[number % len(samples)]
        top, left = (int(generator.integers(0, size - side + 1)) for size in pixels.shape[1:])
        files.append(folder / f"{number}.png")
        write_image(files[-1], Image(np.ascontiguousarray(pixels[:, top : top + side, left : left + side])))
    return files


def ask_plain(address: str) -> Any:
    """A function that sends a picture's file to the plain model."""
    import tritonclient.grpc as grpc

    client = grpc.InferenceServerClient(address)

    def ask(data: bytes) -> bytes:
        picture = grpc.InferInput("picture", [len(data)], "UINT8")
        picture.set_data_from_numpy(np.frombuffer(data, np.uint8))
        found: bytes = client.infer("plain", [picture]).as_numpy("restored").tobytes()
        return found

    return ask


def send(ask: Any, files: Sequence[bytes], clients: int) -> tuple[float, list[float], list[bytes]]:
    """Sends pictures by so many clients: seconds of all, of each, and the answers."""
    left, lock = list(enumerate(files)), threading.Lock()
    seconds, answers = [0.0] * len(files), [b""] * len(files)

    def one() -> None:
        while True:
            with lock:
                if not left:
                    return
                number, data = left.pop(0)
            start = time.perf_counter()
            answers[number] = ask(data)
            seconds[number] = time.perf_counter() - start

    threads = [threading.Thread(target=one) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, seconds, answers


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Rows of the table."""
    artifact = convert(options.model)
    bundle = read_bundle(write_bundle(folder / "bundle", artifact, name="pictures").folder)
    onnx = bundle.folder / "triton" / bundle.onnx
    (folder / "in").mkdir()
    paths = make_pictures(folder / "in", options.pictures, options.side)
    files = [path.read_bytes() for path in paths]
    settings = {"runtime": options.runtime, "pixels": 4 * options.side**2}
    place = Workplace(settings, options.at_once, 64, ["plain"])
    plain = place.repository / "plain" / "1"
    plain.mkdir(parents=True)
    (plain / "model.py").write_text(PLAIN_MODEL.format(onnx=str(onnx), runtime=options.runtime))
    (plain.parent / "config.pbtxt").write_text(PLAIN_CONFIG)
    server = RunningServer(find_server(), bundle, place, Address("127.0.0.1", *PORTS))
    runner = open_runner(onnx, runtime=options.runtime)
    where = f"127.0.0.1:{PORTS[0]}"
    rows = []
    try:
        server.start(600)
        with ServerClient(ServerAddress(where, "pictures")) as client:
            models = {"served": lambda data: client.restore(data, "png").data, "plain": ask_plain(where)}
            for ask in models.values():  # what is loaded on first use
                send(ask, files[:4], 2)
            restore_pictures(runner, paths[:4], folder / "first")
            for clients in options.clients:
                rows.append(rounds(options, folder, runner, models, files, clients))
                print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    finally:
        server.close()
    return rows


def rounds(
    options: argparse.Namespace, folder: Path, runner: Any, models: dict[str, Any], files: list[bytes], clients: int
) -> dict[str, Any]:
    """One row: a number of clients."""
    rates: dict[str, list[float]] = {name: [] for name in ("restore", *models)}
    latencies: dict[str, list[float]] = {name: [] for name in models}
    equal = True
    for number in range(options.rounds):
        output = folder / f"out-{clients}-{number}"
        start = time.perf_counter()
        restore_pictures(runner, folder / "in", output)
        rates["restore"].append(len(files) / (time.perf_counter() - start))
        for name, ask in models.items():
            total, seconds, answers = send(ask, files, clients)
            rates[name].append(len(files) / total)
            latencies[name] += seconds
            if name == "served":
                equal &= answers == [(output / f"{i}.png").read_bytes() for i in range(len(files))]
    ratios = {
        name: statistics.median(a / b for a, b in zip(found, rates["restore"], strict=True))
        for name, found in rates.items()
    }
    return {
        "clients": clients,
        "pictures": len(files),
        "side": options.side,
        "equal": equal,
        "rate": {name: statistics.median(found) for name, found in rates.items()},
        "ratio": ratios,
        "p50": {name: float(np.percentile(found, 50)) for name, found in latencies.items()},
        "p95": {name: float(np.percentile(found, 95)) for name, found in latencies.items()},
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The Markdown table."""
    lines = [
        "| clients | `restore`, pictures/s | served, of `restore` | p50 / p95 | plain, of `restore` | p50 / p95 |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [f"{row['clients']}", f"{row['rate']['restore']:.2f}"]
        for name in ("served", "plain"):
            cells.append(f"{row['ratio'][name]:.2f}")
            cells.append(f"{row['p50'][name]:.2f} / {row['p95'][name]:.2f} s")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(description="Pictures a second through a Triton server, against restore.")
    parser.add_argument("--model", default="agileir_tiny_x2")
    parser.add_argument("--runtime", choices=("onnxruntime", "openvino"), default="onnxruntime")
    parser.add_argument("--clients", nargs="+", type=int, default=(1, 4, 16, 32))
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--side", type=int, default=96, help="pixels of the pictures' sides")
    parser.add_argument("--at-once", type=int, default=8, help="pictures in work at once on the server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="agileir-benchmark-") as folder:
        rows = measure(options, Path(folder))
    if options.json:
        facts = {
            **surroundings(PACKAGES),
            "model": options.model,
            "runtime": options.runtime,
            "at_once": options.at_once,
            "rounds": options.rounds,
            "results": rows,
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
