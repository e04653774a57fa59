"""From an ONNX file to an engine with its sidecar: out of the cache, or built, audited and put there."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...errors import AuditMissed, EnvironmentProblem, OutputError
from ...export.artifact import OnnxArtifact
from ...files import check_output, write_atomic, write_together
from ...plugins.kernel_records import LAYOUT, records_in
from ...plugins.plugin_layers import Choices
from ...plugins.ptx import target_name
from ...progress import Progress, silent
from ..artifact import ENGINE_SUFFIXES, EngineArtifact, is_engine, sidecar_path
from ..audit.verdict import (
    LISTED,
    Audit,
    float32_nodes,
    judge,
    kernels_from_inspector,
    kernels_from_rtx_log,
    outside_plugins,
    product_nodes,
    quantised_nodes,
    standing_for,
)
from ..cuda_driver import probe_gpu
from ..profile_choice import NOTHING_SAID, Sizes, choose_profiles
from ..targets import PYTHON_FORM, Target, check_capabilities, choose_target, load_target
from .memory import least_memory
from .process import BuildResult, build_in_process
from .request import BuildOptions, BuildRequest, check_options, check_request, choose_plugins

if TYPE_CHECKING:
    from ...cache import Cache

__all__ = [
    "EngineBuild",
    "build_engine",
    "build_request",
    "check_plan_output",
    "check_target",
    "engine_facts",
    "make_engine",
    "require_audit",
    "write_engine",
]


NOTHING_MORE: Mapping[Path, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class EngineBuild:
    """An engine that is not written yet.

    Attributes:
        plan: The builder's bytes.
        artifact: The ONNX file it is made from.
        request: What was asked for.
        gpus: Compute capabilities it is for.
        facts: What its bytes depend on.
        audit: Realised precision of its kernels.
        build: ``seconds``, ``peak_memory_bytes``, ``layers`` of the parsed network, ``cached``, and
            ``least_memory_bytes`` (`least_memory`), of each profile; with half blocks also their number,
            ``half_blocks``.
    """

    plan: bytes
    artifact: OnnxArtifact
    request: BuildRequest
    gpus: tuple[str, ...]
    facts: Mapping[str, Any]
    audit: Audit
    build: Mapping[str, Any]


def build_engine(
    artifact: OnnxArtifact,
    output: str | Path,
    options: BuildOptions | None = None,
    *,
    sizes: Sizes = NOTHING_SAID,
    operators: str = "auto",
    cache: Cache | None = None,
    progress: Progress = silent,
) -> EngineArtifact:
    """Builds an engine, audits it, and writes it with its sidecar; both files appear, or neither.

    Args:
        artifact: The model; the engine computes in its precision.
        output: Plan to write or replace.
        options: How to build; for the target that can build here where None. A `BuildRequest` says everything: sizes
            and operators are not looked at then.
        sizes: Pictures that it is for; 64 to 512 pixels a side, or the only size of a static model, unless given.
        operators: Attention as ``"plugin"`` or ``"decomposed"``; ``"auto"``: as plugins where that has run, or where
            half blocks are asked for.
        cache: Where earlier builds are found and this one is kept; None for no cache.
        progress: Told each step.

    Raises:
        AuditMissed: The engine does not compute in the precision asked for; nothing is written.
        AgileIRError: What `build_request`, `make_engine` and `write_engine` raise.
    """
    output = Path(output)
    check_plan_output(output)
    request = options if isinstance(options, BuildRequest) else build_request(artifact, options, sizes, operators)
    build = make_engine(artifact, request, cache, progress)
    require_audit(build.audit)
    return write_engine(build, output)


def build_request(
    artifact: OnnxArtifact, options: BuildOptions | None = None, sizes: Sizes = NOTHING_SAID, operators: str = "auto"
) -> BuildRequest:
    """The request to build an artifact; target, GPUs, profiles and operators are resolved.

    Args:
        artifact: The model.
        options: How to build, of whatever model; None for the defaults.
        sizes: Sizes asked for, see `choose_profiles`.
        operators: ``"plugin"``, ``"decomposed"`` or ``"auto"``, see `choose_plugins`.

    Raises:
        InputError: Sizes that the model does not take, or plugins for one without operators.
        EnvironmentProblem: No target can build here.
    """
    options = options or BuildOptions(target="auto")
    target = choose_target(options.target)
    gpus = options.gpus or target.default_gpus
    if options.fuse_blocks and operators == "auto":
        operators = "plugin"
    plugins = choose_plugins(operators, target, artifact, gpus)
    resolved = replace(options, target=target.name, gpus=gpus, use_plugins=plugins)
    if operators == "plugin" and not plugins:  # with a warning: so no half blocks, either
        resolved = replace(resolved, fuse_blocks=False)
    resolved = replace(resolved, plugin_form=resolved.form)
    return BuildRequest(
        **vars(resolved),
        onnx=artifact.path,
        sha256=artifact.sha256,
        network=artifact.spec.name,
        precision=artifact.precision,
        profiles=choose_profiles(artifact, sizes),
    )


def check_plan_output(output: Path) -> None:
    """Says early that an engine cannot be written there.

    Raises:
        OutputError: No suffix of an engine; or see `imaging.check_output`.
    """
    if not is_engine(output):
        raise OutputError(
            f"{output} does not end in {', '.join(ENGINE_SUFFIXES)}, by which the other verbs know an engine.",
            fix="Add one of them.",
        )
    for path in (output, sidecar_path(output)):
        check_output(path, overwrite=True)


def make_engine(
    artifact: OnnxArtifact,
    request: BuildRequest,
    cache: Cache | None = None,
    progress: Progress = silent,
) -> EngineBuild:
    """Takes an engine from the cache, or builds and audits it. An engine that fails its audit is not cached.

    Raises:
        InputError: Profiles or numbers the file or the target does not take.
        Unsupported: The target cannot do what is asked.
        EnvironmentProblem: The target, its GPU or its driver is not here, or memory ran out.
        InternalError: The builder crashed.
    """
    facts, gpus = engine_facts(artifact, request)
    plan, audit, build = _from_cache_or_built(artifact, request, facts, cache, progress)
    least = [least_memory(artifact.model, profile) for profile in request.profiles]
    return EngineBuild(
        plan, artifact, request, gpus, facts, audit, {"cached": False, **build, "least_memory_bytes": least}
    )


def engine_facts(artifact: OnnxArtifact, request: BuildRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Everything that can be said of an engine before it is built: that it can be, what it depends on, what it is for.

    Returns:
        The facts that its bytes depend on, and the compute capabilities it is for.

    Raises:
        InputError: Profiles or numbers the file or the target does not take.
        Unsupported: The target cannot do what is asked.
        OutputError: The timing cache cannot be written.
        EnvironmentProblem: The target, its GPU or its driver is not here.
    """
    target = request.target_entry
    check_options(request, request.precision)
    check_request(request, artifact)
    trt = check_target(target, request.gpus, request.use_plugins)
    gpu, capability, driver = ("", "", "") if request.gpus else _gpu_here()
    return request.facts(trt.__version__, gpu, driver), request.gpus or (capability,)


def check_target(target: Target, gpus: tuple[str, ...], plugins: bool = False) -> Any:
    """The target's module, where it can build here for these GPUs.

    Args:
        target: The target.
        gpus: Compute capabilities such as ``"sm86"``; empty for the GPU of this machine.
        plugins: Whether the engine is to have plugins.

    Raises:
        InputError: A GPU is unknown.
        EnvironmentProblem: The target, its GPU or its driver is not here.
    """
    verdict = target.verdict(plugins=plugins)
    if not verdict.works:
        raise EnvironmentProblem(f"{target.title} cannot build here: {verdict.why_not}.", fix=f"To do: {verdict.fix}")
    trt = load_target(target)
    check_capabilities(target, trt, gpus)
    return trt


def require_audit(audit: Audit, kept: Path | None = None) -> None:
    """Refuses an engine that is not what it was asked to be.

    Args:
        audit: The engine's audit.
        kept: The plan, where it was written all the same.

    Raises:
        AuditMissed: With the problems.
    """
    if audit.passed:
        return
    raise AuditMissed(
        f"The engine was asked for in {audit.precision}, and is not: {audit.problems[0]}.",
        why=" ".join(f"Also: {problem}." for problem in audit.problems[1:]),
        fix=f"{kept} was written for a look at it; do not use it."
        if kept
        else "Nothing was written. --keep-failed writes the engine for a look at it.",
    )


def write_engine(build: EngineBuild, output: Path, more: Mapping[Path, bytes] = NOTHING_MORE) -> EngineArtifact:
    """Writes a plan and its sidecar, together or not at all; existing ones are replaced.

    Args:
        build: The engine.
        output: Plan to write.
        more: Other files to write with them, content by path.

    Raises:
        OutputError: They cannot be written.
    """
    check_plan_output(output)
    engine = EngineArtifact(
        path=output,
        sha256=hashlib.sha256(build.plan).hexdigest(),
        target=build.request.target,
        precision=build.request.precision,
        profiles=build.request.profiles,
        gpus=build.gpus,
        spec=build.artifact.spec,
        facts=build.facts,
        plugins=_plugins(build),
        audit=build.audit.to_json(),
        provenance=build.artifact.provenance,
        build=build.build,
    )
    sidecar = (json.dumps(engine.to_json(), indent=2, sort_keys=True) + "\n").encode()
    write_together({sidecar_path(output): sidecar, output: build.plan, **more}, overwrite=True)
    return engine


def _plugins(build: EngineBuild) -> dict[str, Any]:
    """What a sidecar says of an engine's plugins: nothing where there are none."""
    form = build.request.form
    if not form:
        return {}
    targets: Iterable[int] = Choices.of(build.request.kernel_capabilities(build.gpus), every_tactic=False).targets
    more: dict[str, Any] = {}
    if form == PYTHON_FORM:
        records = {record.layer: record for record in records_in(build.plan)}
        targets = sorted({kernel.target for record in records.values() for kernel in record.kernels})
        more = {"layout": LAYOUT, "layers": len(records)}
    return {"form": form, "kernels_for": [target_name(target) for target in targets], **more}


def _gpu_here() -> tuple[str, str, str]:
    """Name and compute capability of the GPU that builds, and its driver."""
    found = probe_gpu()
    device = found.devices[0]
    major, minor = device.compute_capability
    driver = "CUDA {}.{}".format(*found.cuda) if found.cuda else ""
    return device.name, f"sm{major}{minor}", driver


Made = tuple[bytes, Audit, dict[str, Any]]
"""Plan, audit and build of an `EngineBuild`; of the latter ``cached`` only where it is true."""


def _from_cache_or_built(
    artifact: OnnxArtifact, request: BuildRequest, facts: Mapping[str, Any], cache: Cache | None, progress: Progress
) -> Made:
    if cache is None:
        return _built(artifact, request, progress)
    with cache.lock(facts, waiting=lambda: progress("waiting for another build of the same engine")):
        entry = cache.find(facts)
        if entry is not None:
            details = dict(entry.details)
            audit = Audit.from_json(details.pop("audit"))
            with contextlib.suppress(OSError):  # another process has just cleared the cache
                plan = entry.content.read_bytes()
                return plan, audit, {**details, "cached": True}
        expected = _expected(cache, facts, progress)
        total = "" if expected is None else f", about {expected:.0f} s in all"
        plan, audit, build = _built(artifact, request, lambda step, done=0, of=0, /: progress(step + total))
        if audit.passed:
            cache.store(facts, plan, {**build, "audit": audit.to_json()})
        return plan, audit, build


def _built(artifact: OnnxArtifact, request: BuildRequest, progress: Progress) -> Made:
    result = build_in_process(request, artifact.data, progress)
    if request.timing_cache is not None and result.timing_cache is not None:
        write_atomic(request.timing_cache, result.timing_cache, overwrite=True)
    progress("auditing")
    audit = _audit(request, artifact, result)
    effort = {"peak_memory_bytes": result.peak_memory_bytes, "layers": result.layers}
    if request.fuse_blocks:
        effort["half_blocks"] = sum(bool(nodes) for nodes in result.plugins.values())
    return result.plan, audit, {"seconds": round(result.seconds, 3), **effort}


def _expected(cache: Cache, facts: Mapping[str, Any], progress: Progress) -> float | None:
    """Seconds that earlier builds of the network took; tells why this one is not in the cache, too."""
    nearest = cache.nearest(facts)
    if nearest is not None and nearest.facts.get("network") == facts["network"]:
        changed = ", ".join(difference.field for difference in cache.explain(facts))
        progress(f"not in the cache: another {changed} than last time")
    return cache.estimate(facts)


# ---- audit ----


def _audit(request: BuildRequest, artifact: OnnxArtifact, result: BuildResult) -> Audit:
    if result.inspection is None:
        kernels = kernels_from_rtx_log([message for _, message in result.messages])
    else:
        kernels = kernels_from_inspector(result.inspection)
    kernels = standing_for(kernels, result.plugins)
    audit = judge(
        kernels,
        "tf32" if request.tf32 else request.precision,
        expected_int8=quantised_nodes(artifact.model),
        products=outside_plugins(product_nodes(artifact.model), kernels),
        by_design=float32_nodes(artifact.model, artifact.conversion.get("float32_nodes", ())),
    )
    if request.use_plugins and not any(kernel.kind == "plugin" for kernel in kernels):
        audit = replace(audit, unknown=(*audit.unknown, "plugins were asked for, and no layer says that it is one"))
    if request.fuse_blocks and not any(result.plugins.values()):
        audit = replace(audit, unknown=(*audit.unknown, "half blocks were asked for, and the file has none"))
    if request.form == PYTHON_FORM and (missing := _without_kernels(request, result)):
        problem = f"the plan holds no kernels of {len(missing)} plugins: {', '.join(sorted(missing)[:LISTED])}"
        audit = replace(audit, problems=(*audit.problems, problem))
    return audit


def _without_kernels(request: BuildRequest, result: BuildResult) -> set[str]:
    """The plugins of a network whose kernels, for every GPU of a request, are not in its plan."""
    wanted = set(Choices.of(request.kernel_capabilities(request.gpus), every_tactic=False).targets)
    carried = {
        record.layer
        for record in records_in(result.plan)
        if not request.gpus or wanted <= {kernel.target for kernel in record.kernels}
    }
    return set(result.plugins) - carried
