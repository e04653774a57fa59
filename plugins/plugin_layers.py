"""What a plugin in Python knows of its operator, without TensorRT: its kernels, compiled for a build, or launched.

A build needs Triton and PyTorch. Executing needs neither: `cuda_kernels` launches what the plan carries
(`kernel_records`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..errors import AgileIRError, InternalError, Unsupported
from .catalogue import PLUGINS
from .cuda_kernels import cuda_driver
from .kernel_records import CarriedKernel, KernelRecord
from .launch import ITEM_BYTES, OPT_IN_SHARED_BYTES, NoKernel, Shape
from .ptx import TARGET, compile_kernel, own_instructions
from .registry import Plugin

__all__ = ["Choices", "Layer", "attempt", "plugin_failures", "remember"]

SCRATCH_ITEM_BYTES = ITEM_BYTES["float32"]

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Choices:
    """Which kernels a build compiles for every layer.

    Attributes:
        targets: What for, see `ptx.own_instructions`.
        every_tactic: All tactics, for a builder that times them; else the first, which is PyTorch's for large images.
    """

    targets: tuple[int, ...] = (TARGET,)
    every_tactic: bool = False

    @classmethod
    def of(cls, capabilities: Iterable[int], every_tactic: bool) -> Choices:
        """Those of an engine for some compute capabilities (times ten); of all since Ampere where none is named."""
        targets = sorted({own_instructions(capability) for capability in capabilities} or {TARGET})
        return cls(tuple(targets), every_tactic)


class Layer:
    """One operator or half block of a network: all that its plugin knows, in plain numbers and texts.

    Args:
        record: The layer; with its kernels where it comes out of a plan.
        choices: What a build compiles.
        tactic: Tactic that is launched, from 1; 0 for the first.
    """

    def __init__(self, record: KernelRecord, choices: Choices, tactic: int = 0) -> None:
        self.record, self.choices, self.tactic = record, choices, tactic

    def copy(self) -> Layer:
        """Another of the same state; what it does to itself is not seen here."""
        return Layer(self.record, self.choices, self.tactic)

    @property
    def operator(self) -> Plugin:
        """The operator's entry, or the half block's."""
        return PLUGINS[self.record.operator]

    @property
    def module(self) -> Any:
        """Its kernels; needs Triton and PyTorch, as everything of a build does."""
        return self.operator.kernels()

    @property
    def tactics(self) -> list[int]:
        """The tactics that there are to choose from."""
        return list(range(1, len(self.module.TACTICS) + 1)) if self.choices.every_tactic else []

    def output_type(self, image: str) -> str:
        """Type of the output, from that of the first input."""
        return str(self.module.OUTPUT_TYPE or image)

    def output_shape(self, shapes: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        """Shape of the output, of numbers or of what calculates with sizes as numbers do."""
        shape: tuple[Any, ...] = self.module.output_shape(shapes, self.record.attributes)
        return shape

    def takes(self, position: int, kind: str | None, image: str | None) -> bool:
        """Whether an input, or after them the output, may have a type where the first input has the type `image`."""
        name = (*self.operator.inputs, self.operator.output)[position]
        return kind == "int32" if name in self.operator.integer_tensors else kind in ITEM_BYTES and kind == image

    def compile(self, shapes: Sequence[Shape], types: Sequence[str]) -> None:
        """Compiles the kernels of `choices`.

        Args:
            shapes: Shapes of the inputs, with UNKNOWN for sizes that are free.
            types: Their types.

        Raises:
            Unsupported: No kernel was made for them.
        """
        output = self.output_type(types[0])
        found = []
        for tactic in self.tactics or [1]:
            try:
                launch = self.module.launch(shapes, self.record.attributes, types[0], tactic)
            except NoKernel as error:
                raise Unsupported(
                    f"No plugin can run {self.record.layer}: {error}.", fix="Use --attention decomposed."
                ) from error
            for target in self.choices.targets:
                made = compile_kernel(launch, types, output, target, OPT_IN_SHARED_BYTES)
                size, numbers = made.shared_bytes, (launch.window_size, launch.programs, launch.scratch)
                found.append(
                    CarriedKernel(target, tactic, made.name, made.num_threads, size, *numbers, made.ptx, launch.unit)
                )
        self.record = replace(self.record, kernels=tuple(found))

    def scratch_bytes(self, image: Sequence[int]) -> int:
        """Working memory for a first input of this shape or a smaller one, whatever the tactic."""
        batch, height, width, *_ = image
        return SCRATCH_ITEM_BYTES * max(
            (
                batch * (height // kernel.window_size) * (width // kernel.window_size) * kernel.scratch
                for kernel in self.record.kernels
            ),
            default=0,
        )

    def launch(self, image: Sequence[int], tensors: Sequence[int], scratch: int, stream: int) -> None:
        """Queues the kernel; see `Driver.launch`."""
        cuda_driver().launch(self.record, self.tactic or 1, image, tensors, scratch, stream)

    def prepare(self) -> None:
        """Loads the kernel into the current context; see `Driver.prepare`."""
        cuda_driver().prepare(self.record, self.tactic or 1)


# ---- what went wrong inside TensorRT ----

_failures: dict[int, Exception] = {}
"""The first failure in every thread, until somebody asks for it."""


@contextlib.contextmanager
def plugin_failures(every_thread: bool = False) -> Iterator[None]:
    """Work with TensorRT in which plugins may fail: of their errors it keeps no more than a line on stderr.

    Args:
        every_thread: Look at what failed in all threads of the process, not only in this one.

    Raises:
        AgileIRError: What a plugin failed with, in the place of whatever TensorRT made of it.
    """
    threads = list(_failures) if every_thread else [threading.get_ident()]
    for thread in threads:
        _failures.pop(thread, None)
    try:
        yield
    finally:
        threads = list(_failures) if every_thread else [threading.get_ident()]
        found = [error for thread in threads if (error := _failures.pop(thread, None)) is not None]
        if found:
            raise _typed(found[0])


def _typed(error: Exception) -> AgileIRError:
    """An error that nobody foresaw as one of ours."""
    if isinstance(error, AgileIRError):
        return error
    made = InternalError(
        f"A plugin failed: {type(error).__name__}: {error}.",
        fix="This is a defect of agileir-export. Please report it.",
    )
    made.__cause__ = error
    return made


def remember(error: Exception) -> None:
    """Keeps a failure for `plugin_failures`."""
    _failures.setdefault(threading.get_ident(), error)


def attempt(work: Callable[[], Answer], otherwise: Answer) -> Answer:
    """What a part of a build answers; a failure is kept for `plugin_failures`.

    An exception must not get out: TensorRT-RTX 1.7 ends the process on one in `configure_plugin`, and goes on with an
    engine that lacks something on others.
    """
    try:
        return work()
    except Exception as error:
        remember(error)
        return otherwise
