"""What a builder's or a runtime's messages mean, as typed errors. The messages are quoted as they were seen."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import (
    AgileIRError,
    EnvironmentProblem,
    InputError,
    InternalError,
    OnnxFileError,
    OutputError,
    Unsupported,
)

__all__ = ["MEMORY", "BuildFailed", "Failure", "explain_build", "explain_crash", "explain_load"]

Made = Callable[["Failure", re.Match[str], str], AgileIRError]


@dataclass(frozen=True)
class Failure:
    """What is known of a failed build or load.

    Attributes:
        messages: What the builder or runtime logged as errors, and what the parser reported.
        subject: The file that was to be built or loaded.
        node: Name of the ONNX node the parser stopped at, or its number; empty where neither is known.
        operator: Type of that node.
        code: The parser's error code, such as ``"UNSUPPORTED_NODE"``; empty where it did not stop.
    """

    messages: tuple[str, ...]
    subject: str
    node: str = ""
    operator: str = ""
    code: str = ""

    def to_json(self) -> dict[str, Any]:
        """The failure as a JSON object."""
        return asdict(self)


class BuildFailed(Exception):
    """The builder refused; carries what it said."""

    def __init__(self, failure: Failure) -> None:
        super().__init__("; ".join(failure.messages))
        self.failure = failure


@dataclass(frozen=True)
class Rule:
    """A pattern of a message, and the error it means."""

    pattern: re.Pattern[str]
    error: Made


def explain_build(failure: Failure, title: str) -> AgileIRError:
    """The error that a failed build means.

    Args:
        failure: What the builder said.
        title: Name of the target.
    """
    text = _without_noise(failure.messages)
    for rule in BUILD_RULES:
        if match := rule.pattern.search(text):
            return rule.error(failure, match, title)
    if failure.code:
        return _parser_stopped(failure, title)
    return Unsupported(
        f"{title} did not build {failure.subject}.",
        why=f"It says: {_first(text)}",
        fix="Try another precision, smaller sizes, or another --target; agileir-export doctor shows what works here.",
    )


def explain_load(messages: Sequence[str], subject: str, title: str, built_with: str, here: str) -> AgileIRError:
    """The error that a plan which does not load means.

    Args:
        messages: Errors the runtime logged.
        subject: The plan.
        title: Name of the target.
        built_with: Version and GPU the plan was built with, as its sidecar tells.
        here: Version and GPU of this machine.
    """
    failure = Failure(tuple(messages), subject)
    text = _without_noise(messages)
    for rule in LOAD_RULES:
        if match := rule.pattern.search(text):
            error = rule.error(failure, match, title)
            error.why = f"It was built with {built_with}; this machine has {here}. {error.why}".strip()
            return error
    return Unsupported(
        f"{title} does not load {subject}.",
        why=f"It was built with {built_with}; this machine has {here}. The runtime says: {_first(text)}",
        fix="Build the engine again on this machine.",
    )


def explain_crash(status: int, subject: str, title: str, phase: str, last_lines: Sequence[str]) -> AgileIRError:
    """The error of a building process that died instead of answering.

    Args:
        status: Its exit status; negative for a signal.
        subject: The ONNX file.
        title: Name of the target.
        phase: What it was doing.
        last_lines: The last lines of its log.
    """
    named = [match for line in last_lines if (match := re.search(r"Parsing node: (\S*) \[(\S+)\]", line))]
    doing = f" while {phase}" if phase else ""
    node = f", at the node {named[-1][1] or 'without a name'} ({named[-1][2]})" if named and phase == "parsing" else ""
    if hasattr(signal, "SIGKILL") and status == -signal.SIGKILL:
        return EnvironmentProblem(
            f"The process that built {subject} was killed{doing}.",
            why="The system kills a process when memory runs out.",
            fix="Close other programs, build on a machine with more memory, or build for fewer GPUs and smaller sizes.",
        )
    try:
        reason = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    except ValueError:
        reason = f"signal {-status}"
    tail = " / ".join(_first(line) for line in last_lines)
    return InternalError(
        f"{title} crashed{doing}{node}: {reason}. The file is {subject}.",
        why=f"Its last log lines: {tail}" if tail else "It left no log.",
        fix="No file was written. Try `agileir-export onnx --decomposed`, another precision or another version of "
        f"{title}; the file and these lines are what a report to NVIDIA needs.",
    )


def _without_noise(messages: Sequence[str]) -> str:
    """The lines of all messages. Without a driver, TensorRT-RTX adds one about that to failures of other reasons."""
    lines = [line for message in messages for line in message.splitlines()]
    return "\n".join([line for line in lines if "catchCudaError" not in line] or lines)


def _first(text: str) -> str:
    """The first line of a message without the builder's source positions, at most 300 characters."""
    lines = text.strip().splitlines() or ["nothing"]
    line = re.sub(r"\s*\b[Ii]n \w+ at /_src/\S+", "", lines[0]).strip()
    return line if len(line) <= 300 else f"{line[:297]}..."


def _parser_stopped(failure: Failure, title: str) -> AgileIRError:
    node = f"node {failure.node or 'without a name'}"
    what = f"operator {failure.operator} ({node})" if failure.operator else node
    said = _first("\n".join(failure.messages))
    if failure.code.startswith("UNSUPPORTED"):
        return Unsupported(
            f"{title} does not support the {what} of {failure.subject}.",
            why=f"Its parser says: {said}",
            fix="Use another target; `agileir-export onnx` writes files with supported operators only.",
        )
    if failure.code == "MODEL_DESERIALIZE_FAILED":
        return OnnxFileError(f"{failure.subject}: {title} cannot read it as ONNX.", why=f"Its parser says: {said}")
    return Unsupported(
        f"{title} does not parse {failure.subject}: it stops at the {what}.",
        why=f"Its parser says: {said}",
        fix="Export the file again; a file changed by other tools may mix number types.",
    )


# ---- the rules ----

TYPES = {"b16": "bfloat16", "bf16": "bfloat16", "fp8_e4m3": "float8", "fp4": "float4"}


def _turing_float32(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return Unsupported(
        f"{title} has no float32 matrix products for Turing (sm75), and {failure.subject} holds {match[1]}.",
        fix="Leave sm75 out of --gpu, or build with --fp16; SemanIR chooses its keys in float32 all the same.",
    )


def _type_of_hardware(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    kind = TYPES.get(match[2], match[2])
    return Unsupported(
        f"{match[1]} cannot compute in {kind}, which {failure.subject} holds.",
        why=f"{title} builds one engine for all GPUs of --gpu, and each must know the type.",
        fix=f"Build with --fp16, or leave {match[1]} out of --gpu.",
    )


def _top_k(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return Unsupported(
        f"{title} picks at most {match[2]} largest values, and the node {match[1]} of {failure.subject} asks for more.",
        fix=f"Export with a --top-k of at most {match[2]}.",
    )


def _profile(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return InputError(
        f"{failure.subject} does not take the sizes of the profile.",
        why=f"{title} says: {_first(match[0])}",
        fix="Check --min, --opt and --max: sides must be multiples of the model's, and a static file has one size.",
    )


def _plugin_missing(failure: Failure, _: re.Match[str], title: str) -> AgileIRError:
    return Unsupported(
        f"{title} does not know the operator {failure.operator} of {failure.subject} "
        f"(node {failure.node or 'without a name'}).",
        why="It is no ONNX operator, the file brings no function body for it, and no plugin has its name.",
        fix="Export the file again with `agileir-export onnx`.",
    )


def _workspace(failure: Failure, _: re.Match[str], title: str) -> AgileIRError:
    return InputError(
        f"{title} finds no kernel for {failure.subject} within the workspace limit.",
        fix="Give a larger --workspace, or leave it out.",
    )


def _memory(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return EnvironmentProblem(
        f"Memory ran out while {title} worked on {failure.subject}.",
        why=f"It says: {_first(match[0])}",
        fix="Close other programs, use smaller maximum sizes, fewer profiles and GPUs, or a machine with more memory.",
    )


def _driver(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return EnvironmentProblem(
        f"{title} found no NVIDIA driver that is new enough, and needs one for {failure.subject}.",
        why=f"It says: {_first(match[0])}",
        fix="Update the driver; `agileir-export doctor` shows what it supports and what is needed.",
    )


def _no_space(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return OutputError(
        f"The disk is full: {title} could not finish {failure.subject}.",
        why=f"It says: {_first(match[0])}",
        fix="Free some space, or raise the quota, in the output folder and in the folder for temporary files (TMPDIR).",
    )


def _library(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return EnvironmentProblem(
        f"{title} misses the library {match[1]}, which {failure.subject} needs.",
        fix=f"Install {title} completely; version-compatible engines need its lean runtime.",
    )


def _other_version(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return Unsupported(
        f"{failure.subject} was built with another version of {title}.",
        why=f"The runtime says: {_first(match[0])}",
        fix="Build the engine again here, or install the version it was built with.",
    )


def _other_gpu(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return Unsupported(
        f"{failure.subject} was built for another GPU.",
        why=f"The runtime of {title} says: {_first(match[0])}",
        fix="Build the engine again for this GPU; --gpu (TensorRT-RTX) and --hardware-compatible (TensorRT) widen the "
        "choice.",
    )


def _no_plan(failure: Failure, match: re.Match[str], title: str) -> AgileIRError:
    return InputError(
        f"{failure.subject} is no plan of {title}, or a damaged one.",
        why=f"The runtime says: {_first(match[0])}",
        fix="Build the engine again.",
    )


def _rule(pattern: str, error: Made) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE), error)


MEMORY = _rule(
    r"[^\n]*(std::bad_alloc|Resource temporarily unavailable|out of memory|OutOfMemory|MEM_ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation)[^\n]*",
    _memory,
)
DRIVER = _rule(r"[^\n]*CUDA (driver version is insufficient|initialization failure with error)[^\n]*", _driver)

BUILD_RULES = (
    _rule(r"operation '([^']+)' for Turing \(SM75\): FP32 GEMM is not supported", _turing_float32),
    _rule(r"target\(s\) ([\w, ]+), because the model contains HW-specific datatypes: (\w+)", _type_of_hardware),
    _rule(r"ITopKLayer ([^:\n]+):[^\n]*K exceeds the maximum value allowed \((\d+)\)", _top_k),
    _rule(r"[^\n]*Invalid optimization profiles for input[^\n]*", _profile),
    _rule(r"[^\n]*Dimension mismatch for tensor \S+ and profile \d+[^\n]*", _profile),
    _rule(r"[^\n]*values for profile \d+ violate shape constraints[^\n]*", _profile),
    _rule(r"[^\n]*static dimensions that don't match \w+ dimensions in profile[^\n]*", _profile),
    _rule(r"[^\n]*no optimization profile has been defined[^\n]*", _profile),
    _rule(r"Plugin not found, are the plugin name, version, and namespace correct", _plugin_missing),
    _rule(r"no tactics to implement the operation within workspace limit", _workspace),
    _rule(r"[^\n]*(No space left on device|Disk quota exceeded|File too large)[^\n]*", _no_space),
    _rule(r"Unable to load library: ([^\s:]+)", _library),
    MEMORY,
    DRIVER,
)
"""Seen with TensorRT-RTX 1.7; of the names for lack of memory only the first two were."""

LOAD_RULES = (
    _rule(
        r"[^\n]*(not compatible with this version of TensorRT|Version tag does not match|newer plan file"
        r"|with the same version of TensorRT)[^\n]*",
        _other_version,
    ),
    _rule(
        r"[^\n]*(generated on an incompatible device|Rebuild the engine for compute capability"
        r"|across different models of devices is not supported)[^\n]*",
        _other_gpu,
    ),
    _rule(r"[^\n]*(magicTag|Magic tag does not match|empty memory buffer)[^\n]*", _no_plan),
    MEMORY,
    DRIVER,
)
"""The last three seen with TensorRT-RTX 1.7; the others are texts its library holds, quoted in NVIDIA/TensorRT's issues
564, 2072, 2176 and 3031 of TensorRT-LLM."""
