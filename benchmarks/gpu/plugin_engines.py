"""TensorRT engines with our plugins in them: built, executed, and compared; with TensorRT and a GPU.

Networks of products alone that are inside the plugins, or written as sums (`products_as_sums`), need no kernel of
TensorRT's that a GPU may lack::

    python benchmarks/gpu/plugin_engines.py prepare FOLDER          files and what they must give; needs no GPU
    python benchmarks/gpu/plugin_engines.py operators FOLDER OUT    every operator, tensor type and tactic, alone
    python benchmarks/gpu/plugin_engines.py models FOLDER OUT       a tiny network of each family, float32 and float16
    python benchmarks/gpu/plugin_engines.py bare FOLDER OUT         their plans in a process with nothing of ours

``--form python`` does ``operators`` and ``models`` with the plugins in Python, as engines of TensorRT-RTX have them;
``--blocks`` does ``models`` with half blocks as plugins, too. Each part takes names to do only these, writes
``OUT/PART[-blocks][-FORM][-NAMES].json`` after every step, and all that the builder says to ``OUT/*.log``. The exit
code is 1 where something failed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import measuring
from plugin_operators import named_after, operators
from steps import Report, now

PRECISIONS = ("float32", "float16")

MODELS = ("swinir", "agileir_tiny_x2", "semanir_tiny_x2")
SIDE = 64
"""Rows and columns of the pictures: products as sums take memory."""

TIMES = 10
"""Runs that are timed."""

BARE_SECONDS = 60

BLOCKS = "-blocks"
"""Ending of the names of files whose blocks keep their products, which half blocks take, and of results with these."""


def prepare(folder: Path) -> int:
    """Part ``prepare``: files of the networks, as sums, pictures, and what ONNX Runtime makes of them."""
    import onnx
    from products_as_sums import as_sums

    from agileir_export.engines import create_session
    from agileir_export.export import export_onnx
    from agileir_export.export.precision import to_precision
    from agileir_export.models import FAMILIES, load_model, randomise
    from agileir_export.plugins.block_fusion import fuse_blocks

    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        if name == "swinir":
            sizes: dict[str, Any] = {
                "embed_dim": 48,
                "depths": (2, 2),
                "num_heads": (3, 3),
                "window_size": 8,
                "scale": 2,
            }
            model = FAMILIES[name].build(**sizes, upsampler="pixelshuffledirect").eval()
            randomise(model, 0)
        else:
            model = load_model(name)
        plain = export_onnx(model, folder / f"{name}.onnx")
        images = np.random.default_rng(0).random((2, model.spec.channels, SIDE, SIDE), np.float32)
        np.save(folder / f"{name}.in.npy", images)
        np.save(folder / f"{name}.out.npy", create_session(plain.data).run(None, {"input": images})[0])
        for precision in PRECISIONS:
            made = plain if precision == "float32" else to_precision(plain, precision)
            onnx.save(as_sums(made.model), folder / f"{name}-{precision}.onnx")
            _, blocks = fuse_blocks(made.model, folder)
            inside = {node for nodes in blocks.values() for node in nodes}
            onnx.save(as_sums(made.model, inside), folder / f"{name}-{precision}{BLOCKS}.onnx")
            print(f"wrote {folder / name}-{precision}.onnx, and {BLOCKS} with {len(blocks)} half blocks", flush=True)
    return 0


def named(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Networks and precisions that are asked for, as ``NAME`` or ``NAME-PRECISION``; all by default."""
    for name in MODELS:
        for precision in PRECISIONS:
            if not names or {name, f"{name}-{precision}"} & set(names):
                yield name, precision


@contextlib.contextmanager
def kept_logs(out: Path, name: str) -> Iterator[None]:
    """Copies what a building process logs as it goes, so that it outlives the process's folder."""
    with tempfile.TemporaryDirectory() as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        ended = threading.Event()

        def copy() -> None:
            while True:
                last = ended.wait(0.5)
                for log in Path(folder).glob("*/log.jsonl"):
                    with contextlib.suppress(OSError):  # it is just being removed
                        (out / f"{name}.log").write_bytes(log.read_bytes())
                if last:
                    return

        thread = threading.Thread(target=copy)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            tempfile.tempdir = before


def models(folder: Path, out: Path, names: Sequence[str], form: str = "quick", blocks: bool = False) -> int:
    """Part ``models``: plans of whole networks, built and run as the package does, with half `blocks` or without."""
    from agileir_export.engines import TensorRTRunner
    from agileir_export.engines.building.engine import build_engine
    from agileir_export.engines.building.request import BuildOptions
    from agileir_export.engines.profile_choice import Sizes
    from agileir_export.engines.profiles import Profile
    from agileir_export.export.artifact import read_artifact
    from agileir_export.export.floors import file_floor
    from agileir_export.parity.metrics import psnr

    ending = BLOCKS if blocks else ""
    report = Report(out / f"{'-'.join([*named_after(f'models{ending}', form), *names])}.json")
    report.head = {"date": now(), "form": form, "half_blocks": blocks, **measuring.machine("cuda")}
    sizes = Sizes(exact=(Profile((1, SIDE // 2, SIDE // 2), (1, SIDE, SIDE), (2, SIDE, SIDE)),))

    def measure(name: str, precision: str, row: dict[str, Any]) -> None:
        artifact = read_artifact(folder / f"{name}-{precision}{ending}.onnx")
        options = BuildOptions(target="tensorrt", use_plugins=True, plugin_form=form, fuse_blocks=blocks)
        plan_name = "-".join(named_after(f"{name}-{precision}{ending}", form))
        with kept_logs(out, plan_name):
            plan = build_engine(
                artifact, folder / f"{plan_name}.plan", options, sizes=sizes, operators="plugin", progress=told
            )
        row |= {"build": dict(plan.build), "audit": plan.audit, "plan_bytes": plan.path.stat().st_size}
        images, expected = np.load(folder / f"{name}.in.npy"), np.load(folder / f"{name}.out.npy")
        with TensorRTRunner(plan) as runner:
            results = [runner.run(images) for _ in range(3)] + [runner.run(images[:1])]
            row["runner"] = dict(runner.describe())
            row["run_seconds"] = [seconds(lambda: runner.run(images)) for _ in range(TIMES)]
        row["psnr_db"] = [psnr(result, expected[: len(result)]) for result in results]
        row["floor_db"] = file_floor(precision, artifact.spec.top_k)
        row["passed"] = min(row["psnr_db"]) >= row["floor_db"]

    for name, precision in named(names):
        report.step(f"{name} {precision}", lambda row, n=name, p=precision: measure(n, p, row))
    return report.finish()


def seconds(work: Callable[[], object]) -> float:
    """Seconds that some work takes, the copies to the GPU and back among them."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def told(step: str, done: int = 0, total: int = 0, /) -> None:
    """Prints the steps of a build."""
    print(f"{datetime.datetime.now():%H:%M:%S} {step}", flush=True)


def bare(folder: Path, out: Path, names: Sequence[str]) -> int:
    """Part ``bare``: the plans of ``models`` where nothing but TensorRT, NumPy and the driver can be imported."""
    report = Report(out / "bare.json")
    report.head = {"date": now()}

    def measure(name: str, precision: str, row: dict[str, Any]) -> None:
        from agileir_export.export.artifact import read_artifact
        from agileir_export.export.floors import file_floor
        from agileir_export.parity.metrics import psnr

        result = out / f"{name}-{precision}.npy"
        script = Path(__file__).resolve().with_name("bare_plan.py")
        paths = [folder / f"{name}-{precision}.plan", folder / f"{name}.in.npy", result]
        command = [sys.executable, str(script), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BARE_SECONDS, check=False)
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
        row |= json.loads(done.stdout)
        row["psnr_db"] = psnr(np.load(result), np.load(folder / f"{name}.out.npy"))
        artifact = read_artifact(folder / f"{name}-{precision}.onnx")
        row["floor_db"] = file_floor(precision, artifact.spec.top_k)
        row["passed"] = row["psnr_db"] >= row["floor_db"]
        result.unlink()

    for name, precision in named(names):
        report.step(f"{name} {precision}", lambda row, n=name, p=precision: measure(n, p, row))
    return report.finish()


def main(given: Sequence[str] | None = None) -> int:
    """Does one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"operators": operators, "models": models}
    parser.add_argument("part", choices=("prepare", *parts, "bare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--form", choices=("quick", "python"), default="quick", help="of the plugins (%(default)s)")
    parser.add_argument("--blocks", action="store_true", help="half blocks as plugins, too (models)")
    options = parser.parse_args(given)
    if options.blocks and options.part != "models":
        parser.error("--blocks is for models")
    measuring.find_package()
    if options.part == "prepare":
        return prepare(options.folder)
    if options.out is None:
        parser.error(f"{options.part} needs OUT")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part == "bare":
        return bare(options.folder, options.out, options.names)
    more = {"blocks": True} if options.blocks else {}
    return parts[options.part](options.folder, options.out, options.names, options.form, **more)


if __name__ == "__main__":
    sys.exit(main())
