"""Kernels as PTX text, made ahead of time and without a GPU, with an entry that any launcher can call.

The text targets compute capability 8.0 and PTX ISA 8.0, so that drivers from CUDA 12.0 on can compile it for every GPU
since Ampere; or Hopper alone (`own_instructions`), whose products of matrices no other GPU has. Triton appends two
pointers to every entry (scratch memory for features that these kernels do not use); they are taken off, so that the
entry is exactly inputs, height, width, output, and scratch where the launch has some.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..errors import InternalError, Unsupported
from .launch import MAX_SHARED_BYTES, Launch

__all__ = ["TARGET", "CompiledKernel", "argument_types", "compile_kernel", "own_instructions", "target_name"]

POINTERS = {
    "float32": "*fp32",
    "float16": "*fp16",
    "bfloat16": "*bf16",
    "int32": "*i32",
}
"""Triton's names of pointer types."""

TARGET = 80
HOPPER = 90
PTX_ISA = 80
"""It has sm_90a, too."""

ALIGNMENT = 16
"""Bytes to which every tensor is aligned; PyTorch and TensorRT allocate at multiples of 256."""

HIDDEN = 2
"""Pointers that Triton appends: global scratch and profile scratch."""

ENTRY = re.compile(r"\.visible\s+\.entry\s+(?P<name>\w+)\s*\((?P<list>.*?)\)", re.DOTALL)


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel ready to be launched by the driver.

    Attributes:
        name: Name of the entry.
        ptx: The text.
        shared_bytes: Dynamic shared memory of a launch.
        num_threads: Threads of a block.
    """

    name: str
    ptx: str
    shared_bytes: int
    num_threads: int


def without_hidden(ptx: str, visible: int) -> str:
    """Takes the appended, never read pointers off the entry, so that it has `visible` parameters."""
    match = ENTRY.search(ptx)
    if match is None:
        raise InternalError("the PTX holds no visible entry")
    parameters = [line.strip() for line in match["list"].strip().split(",")]
    for parameter in parameters[visible:]:
        name = parameter.split()[-1]
        if ptx.count(name) != 1:
            raise InternalError(
                f"the kernel {match['name']} reads its hidden argument {name}",
                why="It uses Triton's scratch memory, which only Triton's own launcher provides.",
            )
    if len(parameters) - visible not in (0, HIDDEN):
        raise InternalError(
            f"the kernel {match['name']} has {len(parameters)} parameters, expected {visible} and {HIDDEN} hidden ones",
            fix="This version of Triton is not known; use 3.6 to 3.9.",
        )
    kept = ",\n\t".join(parameters[:visible])
    return f"{ptx[: match.start('list')]}\n\t{kept}\n{ptx[match.end('list') :]}"


def compile_kernel(
    launch: Launch, inputs: Sequence[str], output: str, target: int = TARGET, most_shared: int | None = None
) -> CompiledKernel:
    """Compiles a kernel for its launch.

    Args:
        launch: What `launch` of the operator's ``kernel.py`` answered.
        inputs: Types of the inputs in order, such as ``"float16"`` or ``"int32"``.
        output: Type of the output.
        target: Compute capability times ten.
        most_shared: Bytes of shared memory that its launcher can give it; `MAX_SHARED_BYTES` where None.

    Raises:
        Unsupported: The kernel needs more than that.
        InternalError: Only Triton could launch the result: it reads hidden arguments.
    """
    compiled = _compiled(
        launch.kernel,
        tuple(sorted(launch.constants.items())),
        launch.num_warps,
        launch.num_stages,
        argument_types(launch, inputs, output),
        target,
    )
    limit = MAX_SHARED_BYTES if most_shared is None else most_shared
    if compiled.shared_bytes > limit:
        raise Unsupported(
            f"the kernel {compiled.name} needs {compiled.shared_bytes} bytes of shared memory, more than {limit}",
            why=f"It was compiled for {dict(launch.constants)}.",
            fix="Use the plain torch or ONNX form of the operator for these shapes.",
        )
    return compiled


def own_instructions(capability: int | None) -> int:
    """What to compile for where only GPUs of a compute capability (times ten) are to be served; None for all."""
    return HOPPER if capability == HOPPER else TARGET


def target_name(target: int) -> str:
    """What NVIDIA calls a target: ``"sm_80"``; Hopper's own instructions are those of ``"sm_90a"``."""
    return f"sm_{target}{'a' if target == HOPPER else ''}"


def argument_types(launch: Launch, inputs: Sequence[str], output: str) -> tuple[str, ...]:
    """Triton's names of the types of a kernel's arguments that are no constants, in order."""
    scratch = [POINTERS["float32"]] if launch.scratch else []
    return (*(POINTERS[kind] for kind in inputs), "i32", "i32", POINTERS[output], *scratch)


@lru_cache(maxsize=256)
def _compiled(
    kernel: object,
    constants: tuple[tuple[str, float], ...],
    num_warps: int,
    num_stages: int,
    types: tuple[str, ...],
    target: int,
) -> CompiledKernel:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = [name for name in kernel.arg_names if name not in dict(constants)]  # type: ignore[attr-defined]
    signature = dict(zip(names, types, strict=True)) | {name: "constexpr" for name, _ in constants}
    order = kernel.arg_names  # type: ignore[attr-defined]
    aligned = {
        (order.index(name),): [["tt.divisibility", ALIGNMENT]]
        for name, kind in zip(names, types, strict=True)
        if kind.startswith("*")
    }
    source = ASTSource(kernel, signature, dict(constants), aligned)
    options = {"num_warps": num_warps, "num_stages": num_stages, "ptx_version": PTX_ISA}
    made = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options | {"enable_fp_fusion": True})
    ptx = without_hidden(made.asm["ptx"].rstrip("\0"), len(types))
    return CompiledKernel(made.metadata.name, ptx, int(made.metadata.shared), 32 * num_warps)
