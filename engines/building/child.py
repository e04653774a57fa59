"""The process that builds one engine. NVIDIA's parser can abort its process, so every build has one of its own.

The parent sends one line of JSON on standard input, a request and a folder, and keeps the pipe open while it lives.
Lines of JSON come back on standard output: the phases as texts, in the end the outcome as an object. The folder
receives ``plan``, ``timing_cache`` and ``log.jsonl``, which is written as the build goes and so outlives a crash.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import AgileIRError, InternalError
from ...export.artifact import parse_onnx
from ...plugins import DOMAIN
from ...plugins.plugin_layers import plugin_failures
from ...plugins.python_plugins import register_python_plugins, require_triton
from ...process_memory import PEAK, process_memory
from ...progress import Progress
from ..cuda_driver import probe_gpu
from ..failures import BuildFailed, Failure
from ..targets import PYTHON_FORM, load_target
from ..tensorrt.logger import ERRORS, make_logger
from .builder import build
from .request import BuildRequest

if TYPE_CHECKING:
    import onnx

__all__ = ["MODEL", "main"]

MODEL = "network.onnx"
"""Where a model that is in memory only lies in the folder of its build."""


def main() -> None:
    """Reads a request, builds, and says how that went."""
    order = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what NVIDIA's libraries print is no answer
    folder = Path(order["folder"])
    watching = threading.Thread(target=_die_with_the_parent, args=(folder,), daemon=True)
    watching.start()
    request = BuildRequest.from_json(order["request"])

    def answer(value: Any) -> None:
        try:
            print(json.dumps(value), file=answers, flush=True)
        except BrokenPipeError:  # the parent is gone
            watching.join()  # which ends the process, once the folder is away

    try:
        answer({"result": _run(request, folder, lambda phase, done=0, total=0, /: answer(phase))})
    except BuildFailed as failed:
        answer({"failure": failed.failure.to_json()})
    except AgileIRError as error:
        answer({"error": {"type": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix}})
    except (MemoryError, OSError) as error:
        said = getattr(error, "strerror", None) or f"out of memory {error}".strip()
        answer({"failure": Failure((said,), request.subject).to_json()})
    except Exception as error:
        answer({"error": _defect(error)})


def _with_plugins(
    trt: Any, request: BuildRequest, model: onnx.ModelProto, folder: Path
) -> tuple[onnx.ModelProto, dict[str, tuple[str, ...]]]:
    """Registers the plugins.

    Returns:
        The file in the form that they want, and by the name of every plugin's node those of the nodes that it stands
        for, beside the operator's own.
    """
    from ...plugins.engine_files import engine_form

    capabilities, in_python = _capabilities(request), request.form == PYTHON_FORM
    if in_python:
        from ...plugins.cuda_kernels import cuda_driver

        require_triton()
        times_tactics = not request.target_entry.builds_without_gpu
        if times_tactics:
            cuda_driver()
        register_python_plugins(trt, capabilities, every_tactic=times_tactics)
    else:
        from ...plugins.tensorrt_plugins import register_tensorrt

        register_tensorrt(next(iter(capabilities), None))
    fused: dict[str, tuple[str, ...]] = {}
    if request.fuse_blocks:
        from ...plugins.block_fusion import fuse_blocks

        model, fused = fuse_blocks(model, folder)
    made = engine_form(model, folder, scratch_outputs=not in_python)
    return made, {node.name: fused.get(node.name, ()) for node in made.graph.node if node.domain == DOMAIN}


def _capabilities(request: BuildRequest) -> tuple[int, ...]:
    """Compute capabilities (times ten) of the GPUs that the engine is for; none where any is to run it."""
    if request.gpus or request.hardware_compatible == "ampere-plus":
        return request.kernel_capabilities(request.gpus)
    major, minor = probe_gpu().devices[0].compute_capability
    return request.kernel_capabilities([f"sm{major}{minor}"])


def _defect(error: Exception) -> dict[str, str]:
    """What is told of an error that nobody foresaw: a crash of NVIDIA's would have ended the process."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "type": InternalError.__name__,
        "what": f"{type(error).__name__}: {error}",
        "why": f"Raised in {Path(place.filename).name}, line {place.lineno}, while building.",
        "fix": "This is a defect of agileir-export. Please report it with these lines.",
    }


def _die_with_the_parent(folder: Path) -> None:
    """Ends the process, whatever the builder does, when the parent is gone."""
    while os.read(0, 1):  # not sys.stdin, whose lock would stand in the way of a normal end
        pass
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.05)  # the builder wrote a file meanwhile
    os._exit(1)


def _run(request: BuildRequest, folder: Path, progress: Progress) -> dict[str, Any]:
    started = time.perf_counter()
    errors: list[str] = []
    with (folder / "log.jsonl").open("w", encoding="utf-8", buffering=1) as log:

        def sink(severity: str, message: str) -> None:
            if severity in ERRORS:
                errors.append(message)
            try:
                log.write(json.dumps([severity, message]) + "\n")
            except OSError as error:  # must not pass through the builder's C++ frames
                errors.append(str(error.strerror))

        path = request.onnx or folder / MODEL
        model = path.read_bytes()
        trt = load_target(request.target_entry)
        plugins: dict[str, tuple[str, ...]] = {}
        if request.use_plugins:
            made, plugins = _with_plugins(trt, request, parse_onnx(model, path), path.parent)
            model = made.SerializeToString()
        with plugin_failures(every_thread=True):
            built = build(trt, make_logger(trt, sink), request, model, progress, lambda: tuple(errors))
        (folder / "plan").write_bytes(memoryview(built.plan))
        if built.timing_cache is not None:
            (folder / "timing_cache").write_bytes(built.timing_cache)
    return {
        "layers": built.layers,
        "plugins": plugins,
        "inspection": built.inspection,
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": process_memory(PEAK),
    }
