"""Engines of TensorRT-RTX with plugins, built with the real builder on a machine without a GPU; nothing is executed."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from agileir_export.engines.building import engine as building
from agileir_export.engines.building import process
from agileir_export.engines.building.engine import build_engine, require_audit, write_engine
from agileir_export.engines.building.parser_library import LIBRARY, SEARCH_PATH, parser_environment
from agileir_export.engines.building.process import build_in_process
from agileir_export.engines.building.request import BuildOptions
from agileir_export.engines.doctor import TargetVerdict
from agileir_export.engines.profiles import Profile
from agileir_export.engines.targets import TARGETS
from agileir_export.errors import AuditMissed, EnvironmentProblem, InternalError, Unsupported
from agileir_export.export import export_onnx
from agileir_export.export.precision import to_precision
from agileir_export.models import build_preset, randomise
from agileir_export.plugins import DOMAIN, OPERATORS
from agileir_export.plugins.kernel_records import LAYOUT, records_in

from ..export import networks
from ..scripts import load_script
from .builds import request
from .rtx_builds import RTX_GPUS, needs_rtx, with_plugins

pytestmark = needs_rtx
pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

kernel_table = load_script(Path(__file__).resolve().parents[2] / "tools" / "kernel_table.py")

TYPES = ("float32", "float16", "bfloat16")
OTHERS = [kind for kind in networks.EXPORTED if kind not in networks.ONE_A_FAMILY]
EVERY = [(kind, precision) for kind in networks.ONE_A_FAMILY for precision in TYPES]
EVERY += [(kind, TYPES[index % len(TYPES)]) for index, kind in enumerate(OTHERS)]
QUICK = {("semanir", "float16")}


def cases(*each: tuple[str, str]) -> list[Any]:
    return [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in each]


@pytest.mark.parametrize(("kind", "precision"), cases(*EVERY))
def test_every_operator_becomes_a_plugin_with_its_kernel(kind: str, precision: str, folder: Path) -> None:
    """Of free size, for three GPUs; what the plan carries is assembled for each of them."""
    build = with_plugins(folder, kind, precision)
    assert build.audit.passed, build.audit.problems
    nodes = {node.name: node for node in build.artifact.model.graph.node if node.domain == DOMAIN}
    records = {record.layer: record for record in records_in(build.plan)}
    assert records.keys() == nodes.keys() and nodes
    plugins = [share for share in build.audit.shares if share.kind == "plugin"]
    assert sum(share.count for share in plugins) == len(nodes)
    exact = {node.name for node in nodes.values() if OPERATORS[node.op_type].float_reason}
    counts = {share.precision: share.count for share in plugins}
    assert counts.get("float32", 0) == (len(nodes) if precision == "float32" else len(exact))
    ptxas = kernel_table.find_ptxas()
    for kernel in {kernel for record in records.values() for kernel in record.kernels}:
        assert (kernel.target, kernel.tactic) == (80, 1)
        for gpu in RTX_GPUS:
            taken = kernel_table.assemble(kernel.ptx, int(gpu.removeprefix("sm")), ptxas)
            assert taken.shared + kernel.shared_bytes <= 99 * 1024


BLOCKS = [
    ("swinir-light", "float16"),
    ("swinir-jpeg", "bfloat16"),
    ("agileir_tiny_x2", "float16"),
    ("agileir", "float32"),
    ("semanir_tiny_x2", "float16"),
    ("semanir-unet", "bfloat16"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "precision"), BLOCKS)
def test_every_half_block_becomes_a_plugin_with_its_kernel(kind: str, precision: str, folder: Path) -> None:
    """The engine says of every layer which it is, and of every product where it went.

    One more is among the tests of the verb.
    """
    build = with_plugins(folder, kind, precision, blocks=True)
    assert build.audit.passed, build.audit.problems
    assert not any("in no kernel's origin" in unknown for unknown in build.audit.unknown)
    records = {record.layer: record for record in records_in(build.plan)}
    found = Counter(record.operator for record in records.values())
    blocks = found["HalfBlockTokenTail"]
    assert blocks == found["HalfBlockWindowAttention"] + found["HalfBlockNormProjection"] + found["HalfBlockNorm"] > 0
    assert build.build["half_blocks"] == 2 * blocks
    plugins = [share for share in build.audit.shares if share.kind == "plugin"]
    assert sum(share.count for share in plugins) == len(records)
    counts = {share.precision: share.count for share in plugins}
    exact = sum(count for name, count in found.items() if name in OPERATORS and OPERATORS[name].float_reason)
    assert counts.get("float32", 0) == (len(records) if precision == "float32" else exact)
    ptxas = kernel_table.find_ptxas()
    for kernel in {kernel for record in records.values() for kernel in record.kernels}:
        assert (kernel.target, kernel.tactic) == (80, 1)
        for gpu in RTX_GPUS:
            taken = kernel_table.assemble(kernel.ptx, int(gpu.removeprefix("sm")), ptxas)
            assert taken.shared + kernel.shared_bytes <= 48 * 1024, "as the quick form has them, too"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["agileir_lightest_x2", "swinir_light_x2"])
def test_full_presets_build(preset: str, folder: Path) -> None:
    """All presets and types: benchmarks/rtx_plugins.py."""
    model = build_preset(preset)
    randomise(model, 0)
    artifact = to_precision(export_onnx(model, folder / f"{preset}.onnx"), "float16")
    request = building.build_request(artifact, BuildOptions(target="rtx"), operators="plugin")
    build = building.make_engine(artifact, request)
    assert build.audit.passed, build.audit.problems
    assert len({record.layer for record in records_in(build.plan)}) == sum(artifact.operators.values())


def test_the_sidecar_says_what_the_plan_needs(folder: Path, tmp_path: Path) -> None:
    build = with_plugins(folder, "semanir", "float16")
    engine = write_engine(build, tmp_path / "a.plan")
    layers = sum(build.artifact.operators.values())
    assert engine.plugins == {"form": "python", "kernels_for": ["sm_80"], "layout": LAYOUT, "layers": layers}
    assert engine.needs_this_package
    assert (engine.facts["use_plugins"], engine.facts["plugin_form"]) == (True, "python")
    from agileir_export.engines.artifact import read_engine

    assert read_engine(tmp_path / "a.plan") == engine


def test_a_plan_without_some_kernels_misses_its_audit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = with_plugins(folder, "semanir", "float16")
    monkeypatch.setattr(building, "records_in", lambda plan: list(records_in(plan))[:1])
    plugins = {node.name: () for node in build.artifact.model.graph.node if node.domain == DOMAIN}
    result = process.BuildResult(build.plan, 1, (), None, None, 1.0, None, plugins)
    audit = building._audit(build.request, build.artifact, result)
    assert any("holds no kernels of" in problem for problem in audit.problems)
    with pytest.raises(AuditMissed):
        require_audit(audit)


def test_turing_takes_the_function_bodies_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifact = networks.exported(folder, "swinir-light", static=(8, 12))
    options = BuildOptions(target="rtx", gpus=("sm75", "sm86"))
    request = building.build_request(artifact, options, operators="plugin")
    assert "no plugins for sm75" in caplog.text and "written out" in caplog.text
    assert (request.use_plugins, request.plugin_form, request.form) == (False, "", "")


def test_what_plugins_need_is_asked_for_before_a_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = [
        TargetVerdict(TARGETS["rtx"].check, works=True),
        TargetVerdict("tensorrt-rtx plugins build", False, "triton is away", "get it"),
    ]
    monkeypatch.setattr("agileir_export.engines.targets.diagnose", lambda: SimpleNamespace(targets=lacking))
    artifact = networks.exported(folder, "swinir-light")
    for operators in ("decomposed", "plugin"):
        request = building.build_request(artifact, BuildOptions(target="rtx"), operators=operators)
        if operators == "decomposed":
            building.engine_facts(artifact, request)
            continue
        with pytest.raises(EnvironmentProblem, match="triton is away"):
            building.engine_facts(artifact, request)


def test_auto_takes_the_function_bodies(folder: Path) -> None:
    artifact = networks.exported(folder, "swinir-light")
    assert not building.build_request(artifact, BuildOptions(target="rtx")).use_plugins


def unsized(artifact: Any, path: Path) -> Path:
    """The file without the sizes between its nodes: what no kernel was made for is then seen by the builder only."""
    model = onnx.load(artifact.path)
    del model.graph.value_info[:]
    for node in model.graph.node:
        for attribute in node.attribute if node.domain == DOMAIN else ():
            if attribute.name == "num_heads":
                attribute.i = 5
    onnx.save(model, path)
    return path


def test_a_kernel_that_does_not_compile_in_a_build_is_an_error_and_no_crash(folder: Path, tmp_path: Path) -> None:
    """Twelve channels do not divide into five heads; TensorRT-RTX 1.7 ends the process on an exception there."""
    path = unsized(networks.exported(folder, "swinir-light"), tmp_path / "unsized.onnx")
    with pytest.raises(Unsupported, match=r"No plugin can run \w+.*5 heads"):
        build_in_process(request(path, use_plugins=True, profiles=(Profile(*[(1, 8, 12)] * 3),)))


# ---- the library that the parser opens ----


def test_the_parser_finds_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEARCH_PATH, "/of/the/user")
    found = parser_environment(TARGETS["rtx"], tmp_path)
    assert found is not None and found[SEARCH_PATH] == f"{tmp_path}:/of/the/user"
    assert (tmp_path / LIBRARY).resolve().name.startswith("libtensorrt_rtx.so.1")
    assert parser_environment(TARGETS["tensorrt"], tmp_path / "gone") is None
    monkeypatch.setattr(sys, "platform", "win32")
    assert parser_environment(TARGETS["rtx"], tmp_path / "gone") is None


@pytest.mark.slow
def test_without_it_the_parser_ends_the_process(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for the link: a parser that has learned the name does without."""
    monkeypatch.setattr(process, "parser_environment", lambda target, folder: None)
    artifact = networks.exported(folder, "swinir-light")
    with pytest.raises(InternalError, match=r"crashed while parsing.*SIGABRT"):
        build_engine(artifact, tmp_path / "a.plan", BuildOptions(target="rtx"), operators="plugin")
