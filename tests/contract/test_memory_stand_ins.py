"""The stand-ins for PyTorch's CUDA part and for PyCUDA, compared with the real ones, which do nothing without a GPU."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ..engines import fake_pycuda, fake_torch
from ..engines.fake_cuda import Gpu


def test_torch_has_what_the_stand_in_offers() -> None:
    offered = fake_torch.module(Gpu())
    assert set(vars(offered)) <= set(dir(torch))
    assert set(vars(offered.cuda)) <= set(dir(torch.cuda))
    for stand_in, real in (
        (offered.cuda.Stream, torch.cuda.Stream),
        (offered.cuda.CUDAGraph, torch.cuda.CUDAGraph),
        (fake_torch.Tensor, torch.Tensor),
    ):
        assert {name for name in vars(stand_in) if not name.startswith("_")} <= set(dir(real))
    assert "self.cuda_stream" in inspect.getsource(torch.cuda.Stream)  # builds without CUDA have no such attribute
    for function in ("device_count", "get_device_capability", "get_device_name", "stream", "device", "graph"):
        given = list(inspect.signature(getattr(offered.cuda, function)).parameters)
        real = list(inspect.signature(getattr(torch.cuda, function)).parameters)
        assert set(given) <= set(real), function
        assert given[:1] == real[:1], function
    assert issubclass(torch.OutOfMemoryError, RuntimeError)
    host = np.arange(6, dtype=np.uint8)
    assert np.shares_memory(torch.from_numpy(host).numpy(), host)


@pytest.fixture(scope="module")
def wrapper(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The C++ file in which PyCUDA declares the module ``pycuda.driver``."""
    folder = tmp_path_factory.mktemp("pycuda")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
    command += ["--no-binary", ":all:", "-d", str(folder), "pycuda==2026.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(Path(folder).glob("pycuda-*.tar.gz"))
    if done.returncode or not archives:
        pytest.skip("PyCUDA's source cannot be had here")
    with tarfile.open(archives[0]) as archive:
        member = next(name for name in archive.getnames() if name.endswith("src/wrapper/wrap_cudadrv.cpp"))
        extracted = archive.extractfile(member)
        return extracted.read().decode()


@pytest.mark.slow
def test_pycuda_has_what_the_stand_in_offers(wrapper: str) -> None:
    offered = fake_pycuda.driver(Gpu())
    names = {name for name, value in vars(offered).items() if callable(value) and not name.startswith("_")}
    exposed = set(re.findall(r'py::def\("(\w+)"', wrapper))
    exposed |= set(re.findall(r"(?:DEF_SIMPLE_FUNCTION|DECLARE_EXC)\((\w+)", wrapper))
    exposed |= {
        name
        for declaration in re.findall(r"class_<([^;]*?)\)", wrapper)
        for name in re.findall(r'"(\w+)"', declaration)
    }
    assert names <= exposed
    for kind in (offered.Device, offered.Stream, offered.Context):
        declared = wrapper[wrapper.index(f'"{kind.__name__}"') :]
        declared = declared[: declared.index("\n  }\n")]
        methods = set(re.findall(r"DEF_SIMPLE_METHOD\((\w+)\)", declared))
        methods |= set(re.findall(r'\.(?:def|add_property)\("(\w+)"', declared))
        assert {name for name in vars(kind) if not name.startswith("_")} <= methods, kind.__name__
    for function in (offered.memcpy_htod_async, offered.memcpy_dtoh_async, offered.pagelocked_empty):
        declared = wrapper[wrapper.index(f'py::def("{function.__name__}"') :]
        real = re.findall(r'py::args?\("(\w+)"\)', declared[: declared.index(";")])
        assert list(inspect.signature(function).parameters) == real
