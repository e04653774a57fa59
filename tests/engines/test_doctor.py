import ctypes
import json
import subprocess
import sys

import pytest

from agileir_export.engines import doctor
from agileir_export.engines.cuda_driver import Device, Gpu, probe_gpu
from agileir_export.engines.doctor import Problem, diagnose
from agileir_export.errors import EnvironmentProblem

ADA = Gpu((13, 0), (Device(0, "NVIDIA GeForce RTX 4090", (8, 9)),))
NO_DRIVER = Gpu(why_not="no NVIDIA driver: its library libcuda.so.1 is not on this machine")
EVERYTHING = {
    "agileir-export": "0.1.0",
    "torch": "2.13.0",
    "numpy": "2.4.6",
    "onnx": "1.23.2",
    "onnxruntime": "1.31.1",
    "openvino": "2026.4.1",
    "tensorrt-cu13": "11.4.0.106",
    "tensorrt-rtx-cu13-libs": "1.7.1.116",
    "tensorrt-rtx-cu13-bindings": "1.7.1.116",
    "triton": "3.9.0",
    "cuda-bindings": "13.5.0",
}


def targets(
    versions=EVERYTHING, gpu=ADA, torch_cuda="13.0", platform_name="Linux x86_64", openvino=lambda: ("CPU: a",)
):
    diagnosis = diagnose(
        version_of=versions.get,
        gpu=lambda: gpu,
        torch_cuda=lambda: torch_cuda,
        platform_name=platform_name,
        openvino=openvino,
    )
    return {target.name: target for target in diagnosis.targets}


def without(*names):
    return {name: version for name, version in EVERYTHING.items() if name not in names}


class FakeCuda:
    """libcuda with the given devices and status codes; `_obj` is what ctypes.byref points at."""

    def __init__(self, devices=(), version=13000, statuses=None):
        self.devices, self.version, self.statuses = devices, version, statuses or {}

    def _status(self, function):
        return self.statuses.get(function, 0)

    def cuDriverGetVersion(self, out):
        out._obj.value = self.version
        return self._status("cuDriverGetVersion")

    def cuInit(self, flags):
        return self._status("cuInit")

    def cuDeviceGetCount(self, out):
        out._obj.value = len(self.devices)
        return self._status("cuDeviceGetCount")

    def cuDeviceGet(self, out, index):
        out._obj.value = index
        return self._status("cuDeviceGet")

    def cuDeviceGetName(self, buffer, size, handle):
        buffer.value = self.devices[handle.value][0].encode()[: size - 1]
        return self._status("cuDeviceGetName")

    def cuDeviceGetAttribute(self, out, attribute, handle):
        out._obj.value = self.devices[handle.value][1][{75: 0, 76: 1}[attribute]]
        return self._status("cuDeviceGetAttribute")

    def cuGetErrorString(self, status, out):
        out._obj.value = {100: b"no CUDA-capable device is detected"}.get(status)
        return 0 if out._obj.value else 1


def test_every_target_works_where_everything_is_there():
    found = targets()
    assert list(found) == [
        "onnxruntime-cpu",
        "openvino-cpu",
        "tensorrt-rtx build",
        "tensorrt-rtx run",
        "tensorrt-rtx plugins build",
        "tensorrt-rtx plugins run",
        "tensorrt build",
        "tensorrt run",
        "torch-cuda",
    ]
    assert all(target.works and not target.why_not and not target.fix for target in found.values())


def test_a_target_that_does_not_work_says_why_and_what_to_do():
    for case in (targets({}), targets(gpu=NO_DRIVER), targets(platform_name="Darwin arm64")):
        assert not all(target.works for target in case.values())
        for target in case.values():
            assert target.works != bool(target.why_not)
            assert target.works != bool(target.fix)


def test_without_a_gpu_rtx_still_builds_and_the_rest_names_the_driver():
    found = targets(gpu=NO_DRIVER)
    works = {name for name, target in found.items() if target.works}
    assert works == {"onnxruntime-cpu", "openvino-cpu", "tensorrt-rtx build", "tensorrt-rtx plugins build"}
    assert "libcuda.so.1" in found["tensorrt build"].why_not


@pytest.mark.parametrize("missing", ["tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings"])
def test_rtx_needs_both_of_its_packages(missing):
    found = targets(without(missing))
    assert not found["tensorrt-rtx build"].works
    assert not found["tensorrt-rtx run"].works
    assert missing.replace("-", "_") in found["tensorrt-rtx build"].fix


@pytest.mark.parametrize(("missing", "half"), [("triton", "build"), ("cuda-bindings", "run")])
def test_engines_with_plugins_for_rtx_need_more(missing, half):
    found = targets(without(missing))
    lacking = found[f"tensorrt-rtx plugins {half}"]
    assert not lacking.works and missing in lacking.why_not and lacking.fix == f"pip install {missing}"
    assert all(target.works for name, target in found.items() if name != lacking.name)


def test_rtx_has_no_target_for_hopper_and_says_which_gpu_is_here():
    hopper = Gpu((13, 0), (Device(0, "NVIDIA H200", (9, 0)),))
    found = targets(gpu=hopper)
    assert found["tensorrt-rtx build"].works
    assert not found["tensorrt-rtx run"].works
    assert "NVIDIA H200 (9.0)" in found["tensorrt-rtx run"].why_not
    assert found["tensorrt run"].works


def test_one_suitable_gpu_of_two_is_enough():
    both = Gpu((13, 0), (Device(0, "Tesla V100", (7, 0)), *ADA.devices))
    assert targets(gpu=both)["tensorrt run"].works
    assert not targets(gpu=Gpu((13, 0), both.devices[:1]))["tensorrt run"].works


def test_a_driver_older_than_the_packages_is_named_with_both_versions():
    found = targets(gpu=Gpu((12, 4), ADA.devices))
    for name in ("tensorrt-rtx run", "tensorrt run", "torch-cuda"):
        assert "12.4" in found[name].why_not
        assert "CUDA 13 is needed" in found[name].why_not


@pytest.mark.parametrize(
    ("version", "works"),
    [("10.3.0", False), ("10.4.0", True), ("10.12.0", True), ("11.4.0.106", True), ("12.0.1", False)],
)
def test_tensorrt_has_a_range(version, works):
    assert targets({**EVERYTHING, "tensorrt-cu13": version})["tensorrt build"].works is works


def test_tensorrt_for_an_older_cuda_runs_on_its_older_driver():
    versions = {**without("tensorrt-cu13"), "tensorrt-cu12": "10.14.1.48"}
    assert targets(versions, gpu=Gpu((12, 4), ADA.devices))["tensorrt run"].works


def test_engines_run_through_a_cuda_build_of_torch_or_pycuda():
    cpu = {**EVERYTHING, "torch": "2.13.0+cpu"}
    for versions, works in ((cpu, False), (without("torch"), False), ({**cpu, "pycuda": "2026.1"}, True)):
        found = targets(versions, torch_cuda="")
        assert found["tensorrt build"].works
        for name in ("tensorrt run", "tensorrt-rtx run"):
            assert found[name].works is works
            assert works or "neither a CUDA build of PyTorch nor PyCUDA" in found[name].why_not
            assert works or "pip install pycuda" in found[name].fix


def test_a_cpu_build_of_torch_is_not_mistaken_for_cuda():
    found = targets({**EVERYTHING, "torch": "2.13.0+cpu"}, torch_cuda="")
    assert "2.13.0+cpu" in found["torch-cuda"].why_not


@pytest.mark.parametrize(
    ("line", "cuda"),
    [
        ("cuda: Optional[str] = None", ""),
        ("cuda: Optional[str] = '13.0'", "13.0"),
        ('cuda = "12.8"', "12.8"),
        ("hip: Optional[str] = '6.2'", ""),
    ],
)
def test_torch_cuda_is_read_from_its_version_file(tmp_path, monkeypatch, line, cuda):
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemError('imported')")
    (package / "version.py").write_text(f"debug = False\n{line}\ngit_version = 'a'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert doctor._torch_cuda() == cuda


def test_the_json_form_is_json_and_holds_what_was_found():
    diagnosis = diagnose(version_of=EVERYTHING.get, gpu=lambda: ADA, torch_cuda=lambda: "", platform_name="X y")
    document = json.loads(json.dumps(diagnosis.to_json()))
    assert document["platform"] == "X y"
    assert document["components"]["tensorrt"] == {
        "distribution": "tensorrt-cu13",
        "version": "11.4.0.106",
    }
    assert document["components"]["pycuda"] == {"distribution": None, "version": None}
    assert document["torch_cuda"] is None
    assert document["gpu"] == {
        "cuda": [13, 0],
        "devices": [{"index": 0, "name": "NVIDIA GeForce RTX 4090", "compute_capability": [8, 9]}],
        "why_not": "",
    }
    assert {"name", "works", "why_not", "fix"} == set(document["targets"][0])


def test_a_new_target_has_its_own_check(monkeypatch):
    monkeypatch.setitem(doctor.CHECKS, "abacus", lambda found: Problem("no beads", "buy some"))
    assert targets()["abacus"].fix == "buy some"


def test_the_driver_reports_its_devices():
    fake = FakeCuda([("NVIDIA A10", (8, 6)), ("NVIDIA H200", (9, 0))], version=12080)
    gpu = probe_gpu(lambda name: fake)
    assert gpu == Gpu((12, 8), (Device(0, "NVIDIA A10", (8, 6)), Device(1, "NVIDIA H200", (9, 0))))


def test_no_driver_library():
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    gpu = probe_gpu(missing)
    assert gpu.devices == ()
    assert gpu.cuda is None
    assert "no NVIDIA driver" in gpu.why_not


def test_a_library_without_the_functions_is_not_a_driver():
    gpu = probe_gpu(lambda name: object())
    assert "cuDriverGetVersion" in gpu.why_not


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ({"cuInit": 100}, "no CUDA-capable device is detected (CUDA error 100)"),
        ({"cuInit": 999}, "CUDA error 999"),
        ({"cuDeviceGetCount": 3}, "cannot count GPUs: CUDA error 3"),
        ({"cuDeviceGetName": 3}, "shows no GPU"),
    ],
)
def test_every_failing_call_becomes_a_sentence(monkeypatch, statuses, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = probe_gpu(lambda name: FakeCuda([("NVIDIA A10", (8, 6))], statuses=statuses))
    assert gpu.devices == ()
    assert gpu.cuda == (13, 0)
    assert gpu.why_not.endswith(expected)


def test_hidden_devices_are_mentioned(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpu = probe_gpu(lambda name: FakeCuda(statuses={"cuInit": 100}))
    assert gpu.why_not.endswith("CUDA_VISIBLE_DEVICES is ''")


def test_openvino_is_asked_for_its_devices_where_it_is_installed():
    told = diagnose(version_of=EVERYTHING.get, openvino=lambda: ("CPU: a", "GPU: Intel(R) Arc(TM)")).to_json()
    assert told["openvino_devices"] == ["CPU: a", "GPU: Intel(R) Arc(TM)"]

    def broken():
        raise EnvironmentProblem("OpenVINO cannot be loaded.", why="no libtbb.so.12", fix="pip install it")

    assert diagnose(version_of=without("openvino").get, openvino=broken).to_json()["openvino_devices"] == []
    assert "not installed" in targets(without("openvino"), openvino=broken)["openvino-cpu"].why_not
    found = targets(openvino=broken)["openvino-cpu"]
    assert (found.why_not, found.fix) == ("OpenVINO cannot be loaded. no libtbb.so.12", "pip install it")


def test_this_machine_is_diagnosed_without_a_framework(tmp_path):
    program = (
        "import sys; from agileir_export.engines.doctor import diagnose\n"
        "document = diagnose().to_json()\n"
        "assert document['components']['onnxruntime']['version']\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'tensorrt'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_the_real_loader_accepts_the_name_it_is_given():
    assert isinstance(probe_gpu(ctypes.CDLL), Gpu)
