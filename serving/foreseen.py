"""What would keep a server from starting, said before it is started."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..cache.facts import installed_version
from ..engines.cuda_driver import Gpu, probe_gpu
from ..errors import EnvironmentProblem, InputError, Unsupported
from .finding import Installation
from .workplace import ServedBundle

__all__ = ["check_backends", "check_plans", "check_ports", "models_to_load", "tensorrt_release"]

BACKENDS = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}
"""The backend of a tensor model by its platform."""

LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/tensorrt/lib", "/opt/tensorrt/lib")
"""Where NVIDIA's containers and packages have TensorRT."""


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Refuses addresses that the server could not have.

    Args:
        host: Address of this machine (IPv4).
        ports: By what they are for, such as ``"gRPC"``.

    Raises:
        InputError: Two are the same, or `host` is no address of this machine.
        EnvironmentProblem: One is in use, or may not be used.
    """
    if len(set(ports.values())) < len(ports):
        raise InputError("Two of the ports are the same.", fix="Give each its own.")
    for name, port in ports.items():
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been left counts as free
            try:
                trial.bind((host, port))
            except OSError as error:
                raise _refused(error, host, port, name) from error


def _refused(error: OSError, host: str, port: int, name: str) -> EnvironmentProblem | InputError:
    option = f"--{name.lower()}-port"
    if error.errno == errno.EADDRINUSE:
        return EnvironmentProblem(
            f"Port {port} of {host} ({name}) is in use.", fix=f"End what uses it, or name another: {option} N."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return EnvironmentProblem(f"Port {port} ({name}) may not be used.", fix=f"Name one above 1023: {option} N.")
    return InputError(f"{host} is no address of this machine: {error.strerror or error}.", fix="Give another --host.")


def models_to_load(bundle: ServedBundle, runtime: str, tensor_models: bool, gpu: Gpu | None = None) -> list[str]:
    """The tensor models to load beside the picture model: those that are wanted, and those that it calls.

    Args:
        bundle: What is served.
        runtime: That of the picture model.
        tensor_models: Whether all are wanted.
        gpu: What `probe_gpu` found, if it was asked.
    """
    if tensor_models:
        return list(bundle.tensors)
    here = bool(bundle.plans and runtime in ("auto", "tensors") and (gpu or probe_gpu()).devices)
    if here:
        return list(dict.fromkeys(Path(plan).parts[0] for plan in bundle.plans))
    return [Path(bundle.onnx).parts[0]] if runtime == "tensors" else []


def check_backends(server: Installation, bundle: ServedBundle, models: Iterable[str]) -> None:
    """Refuses tensor models that the server has no backend for.

    Args:
        server: The server.
        bundle: What is served.
        models: Names of the models that are going to be loaded.

    Raises:
        Unsupported: A backend is missing.
    """
    for model in models:
        backend = BACKENDS[bundle.tensors[model]]
        if not server.has(backend):
            there = sorted(path.name for path in server.backends.iterdir() if server.has(path.name))
            raise Unsupported(
                f"{model} needs the backend {backend}, and {server.program} has {', '.join(there)} only.",
                fix="Use a server that has it (NVIDIA's container), or leave the model out: --runtime onnxruntime, "
                "without --tensor-models.",
            )


def check_plans(
    server: Installation, bundle: ServedBundle, models: Sequence[str], runtime: str, root: Path = Path("/")
) -> None:
    """Refuses plans of another TensorRT than what is to run them: a plan runs with the release that built it.

    Args:
        server: The server.
        bundle: What is served.
        models: Names of the models that are going to be loaded.
        runtime: That of the picture model, which with ``plan`` runs them by the TensorRT of this Python.
        root: Where the system's libraries lie.

    Raises:
        InputError: A plan is to be run, and there is none.
        Unsupported: The releases differ, as far as they are known.
    """
    own = runtime == "plan"
    if own and not bundle.plans:
        raise InputError(
            f"{bundle.folder} has no plan to run.", fix="Bundle one with --engine, or leave --runtime out."
        )
    here = _package_release() if own else tensorrt_release(server, root)
    for plan, engine in zip(bundle.plans, bundle.engines, strict=True):
        built = str(engine.facts.get("target_version", ""))
        if not (own or Path(plan).parts[0] in models) or engine.facts.get("version_compatible"):
            continue
        ours, theirs = (".".join(release.split(".")[:3]) for release in (built, here))
        if ours and theirs and ours != theirs:
            raise Unsupported(
                f"{plan} was built with TensorRT {ours}, and {'this Python' if own else 'the server'} has {theirs}.",
                why="A plan runs with the release that built it.",
                fix="Build it again with that release, or use what has this one.",
            )


def _package_release() -> str:
    names = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt")
    return next((version for name in names if (version := installed_version(name))), "")


def tensorrt_release(server: Installation, root: Path = Path("/")) -> str:
    """The release of TensorRT's library that a server would load, by its file's name; empty where none is found."""
    places = [*server.libraries, server.backends / "tensorrt"]
    places += [Path(place) for place in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if place]
    places += [root / place.lstrip("/") for place in LIBRARIES]
    found = [file.name for place in places for file in sorted(place.glob("libnvinfer.so.*"))]
    releases = [
        match[1] for name in found if (match := re.fullmatch(r"libnvinfer\.so\.(\d+\.\d+\.\d+(?:\.\d+)?)", name))
    ]
    return releases[0] if releases else ""
