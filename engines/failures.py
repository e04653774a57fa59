"""What a builder's or a runtime's messages mean, as typed errors. The messages are quoted as they were seen."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import (
    AgileIRError,
    EnvironmentProblem,
    InputError,
    InternalError,
    OnnxFileError,
    OutputError,
    Unsupported,
)
from ..json_form import JsonForm

__all__ = ["MEMORY", "BuildFailed", "Failure", "explain_build", "explain_crash", "explain_load"]


@dataclass(frozen=True)
class Failure(JsonForm):
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


class BuildFailed(Exception):
    """The builder refused; carries what it said."""

    def __init__(self, failure: Failure) -> None:
        super().__init__("; ".join(failure.messages))
        self.failure = failure


@dataclass(frozen=True)
class Rule:
    """A pattern of a message, and the error it means.

    Attributes:
        pattern: What is looked for; case does not matter.
        error: The kind of error.
        what: What happened, with ``{title}`` (the target), ``{subject}``, ``{node}`` and ``{operator}`` of the failure,
            ``{line}`` (where the pattern was found) and the pattern's groups ``{0}``, ``{1}``.
        why: The reason, in the same way.
        fix: What to do, in the same way.
    """

    pattern: str
    error: type[AgileIRError]
    what: str
    why: str = ""
    fix: str = ""

    def search(self, text: str) -> re.Match[str] | None:
        """Where a text has the pattern."""
        return re.search(self.pattern, text, re.IGNORECASE)

    def explain(self, text: str, failure: Failure, title: str) -> AgileIRError | None:
        """The error of a failure with these messages; None where they are about something else."""
        match = self.search(text)
        if match is None:
            return None
        groups = [TYPES.get(group, group) for group in match.groups()]
        named = {"title": title, "subject": failure.subject, "operator": failure.operator}
        named["node"] = failure.node or "without a name"
        named["line"] = _first(text[text.rfind("\n", 0, match.start()) + 1 :])
        what, why, fix = (part.format(*groups, **named) for part in (self.what, self.why, self.fix))
        return self.error(what, why=why, fix=fix)


def explain_build(failure: Failure, title: str) -> AgileIRError:
    """The error that a failed build means.

    Args:
        failure: What the builder said.
        title: Name of the target.
    """
    text = _without_noise(failure.messages)
    for rule in BUILD_RULES:
        if error := rule.explain(text, failure, title):
            return error
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
        if error := rule.explain(text, failure, title):
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

MEMORY = Rule(
    r"std::bad_alloc|Resource temporarily unavailable|out of memory|OutOfMemory|MEM_ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation",
    EnvironmentProblem,
    "Memory ran out while {title} worked on {subject}.",
    why="It says: {line}",
    fix="Close other programs, use smaller maximum sizes, fewer profiles and GPUs, or a machine with more memory.",
)
DRIVER = Rule(
    r"CUDA (?:driver version is insufficient|initialization failure with error)",
    EnvironmentProblem,
    "{title} found no NVIDIA driver that is new enough, and needs one for {subject}.",
    why="It says: {line}",
    fix="Update the driver; `agileir-export doctor` shows what it supports and what is needed.",
)

BUILD_RULES = (
    Rule(
        r"operation '([^']+)' for Turing \(SM75\): FP32 GEMM is not supported",
        Unsupported,
        "{title} has no float32 matrix products for Turing (sm75), and {subject} holds {0}.",
        fix="Leave sm75 out of --gpu, or build with --fp16; SemanIR chooses its keys in float32 all the same.",
    ),
    Rule(
        r"target\(s\) ([\w, ]+), because the model contains HW-specific datatypes: (\w+)",
        Unsupported,
        "{0} cannot compute in {1}, which {subject} holds.",
        why="{title} builds one engine for all GPUs of --gpu, and each must know the type.",
        fix="Build with --fp16, or leave {0} out of --gpu.",
    ),
    Rule(
        r"ITopKLayer ([^:\n]+):[^\n]*K exceeds the maximum value allowed \((\d+)\)",
        Unsupported,
        "{title} picks at most {1} largest values, and the node {0} of {subject} asks for more.",
        fix="Export with a --top-k of at most {1}.",
    ),
    Rule(
        r"Invalid optimization profiles for input|Dimension mismatch for tensor \S+ and profile \d+"
        r"|values for profile \d+ violate shape constraints"
        r"|static dimensions that don't match \w+ dimensions in profile"
        r"|no optimization profile has been defined",
        InputError,
        "{subject} does not take the sizes of the profile.",
        why="{title} says: {line}",
        fix="Check --min, --opt and --max: sides must be multiples of the model's, and a static file has one size.",
    ),
    Rule(
        r"Plugin not found, are the plugin name, version, and namespace correct",
        Unsupported,
        "{title} does not know the operator {operator} of {subject} (node {node}).",
        why="It is no ONNX operator, the file brings no function body for it, and no plugin has its name.",
        fix="Export the file again with `agileir-export onnx`.",
    ),
    Rule(
        r"no tactics to implement the operation within workspace limit",
        InputError,
        "{title} finds no kernel for {subject} within the workspace limit.",
        fix="Give a larger --workspace, or leave it out.",
    ),
    Rule(
        r"No space left on device|Disk quota exceeded|File too large",
        OutputError,
        "The disk is full: {title} could not finish {subject}.",
        why="It says: {line}",
        fix="Free some space, or raise the quota, in the output folder and in the folder for temporary files (TMPDIR).",
    ),
    Rule(
        r"Unable to load library: ([^\s:]+)",
        EnvironmentProblem,
        "{title} misses the library {0}, which {subject} needs.",
        fix="Install {title} completely; version-compatible engines need its lean runtime.",
    ),
    MEMORY,
    DRIVER,
)
"""Seen with TensorRT-RTX 1.7; of the names for lack of memory only the first two were."""

LOAD_RULES = (
    Rule(
        r"not compatible with this version of TensorRT|Version tag does not match|newer plan file"
        r"|with the same version of TensorRT",
        Unsupported,
        "{subject} was built with another version of {title}.",
        why="The runtime says: {line}",
        fix="Build the engine again here, or install the version it was built with.",
    ),
    Rule(
        r"generated on an incompatible device|Rebuild the engine for compute capability"
        r"|across different models of devices is not supported",
        Unsupported,
        "{subject} was built for another GPU.",
        why="The runtime of {title} says: {line}",
        fix="Build the engine again for this GPU; --gpu (TensorRT-RTX) and --hardware-compatible (TensorRT) widen the "
        "choice.",
    ),
    Rule(
        r"magicTag|Magic tag does not match|empty memory buffer",
        InputError,
        "{subject} is no plan of {title}, or a damaged one.",
        why="The runtime says: {line}",
        fix="Build the engine again.",
    ),
    MEMORY,
    DRIVER,
)
"""The last three seen with TensorRT-RTX 1.7; the others are texts its library holds, quoted in NVIDIA/TensorRT's issues
564, 2072, 2176 and 3031 of TensorRT-LLM."""
