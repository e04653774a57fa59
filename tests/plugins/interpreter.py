"""Runs kernels under Triton's CPU interpreter, in a process of its own.

Triton decides when it is imported whether kernels are compiled or interpreted; a process of its own keeps that
decision away from all other tests. As a program this file is that process: it reads calls as pickles from its standard
input and answers on its standard output.
"""

from __future__ import annotations

import importlib
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

HEADER = struct.Struct("<Q")
Tensors = Sequence[Any]


def send(stream: BinaryIO, value: Any) -> None:
    body = pickle.dumps(value)
    stream.write(HEADER.pack(len(body)) + body)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError("the interpreter process ended")
    return pickle.loads(stream.read(HEADER.unpack(header)[0]))


class Interpreter:
    """Calls kernels in the other process; use as a context manager."""

    def __enter__(self) -> Interpreter:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"},
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __call__(
        self, operator: str, tensors: Tensors, attributes: Mapping[str, int], tactic: int = 1, rows: bool = True
    ) -> Any:
        """Output of the kernel of `operator` (its torch name) for CPU tensors; errors are raised here again.

        With `rows` a table of position biases is given to the kernel in row form, as on a GPU, else as it is.
        """
        return self._ask(operator, tensors, attributes, tactic, rows)[0]

    def traffic(
        self, operator: str, tensors: Tensors, attributes: Mapping[str, int], tactic: int = 1
    ) -> list[tuple[Any, Any]]:
        """How often the kernel loads and how often it stores every element of inputs, output and scratch, in order.

        An access to any other address is an error.
        """
        return self._ask(operator, tensors, attributes, tactic, True)[1]

    def call(self, function: str, *arguments: Any) -> Any:
        """What a function of this folder, named ``"module:function"``, answers in the other process."""
        return self._ask(function, arguments, {}, 0, True)

    def _ask(self, *question: Any) -> Any:
        send(self.process.stdin, question)
        answer = receive(self.process.stdout)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _bfloat16_products() -> None:
    """The interpreter keeps bfloat16 as raw 16-bit integers and would multiply those in `tl.dot`."""
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    plain = builder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        def widen(handle: Any) -> Any:
            if handle.dtype != tl.bfloat16:
                return handle
            bits = handle.data.astype("uint32") << 16
            return interpreter.TensorHandle(bits.view("float32"), tl.float32)

        return plain(self, widen(a), widen(b), *rest)

    builder.create_dot = create_dot


class _Memory:
    """Listens to the interpreter: where the tensors of a call lie, and which addresses were loaded and stored."""

    def __init__(self) -> None:
        from triton.runtime import interpreter

        self.clear()
        builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
        load, store, place = builder.create_masked_load, builder.create_masked_store, executor._init_args_hst

        def create_masked_load(own: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
            self.loaded.append(pointers.data[mask.data])
            return load(own, pointers, mask, *rest)

        def create_masked_store(own: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
            self.stored.append(pointers.data[mask.data])
            return store(own, pointers, value, mask, *rest)

        def _init_args_hst(own: Any, arguments: Any, named: Any) -> Any:
            placed = place(own, arguments, named)
            self.tensors = [each for each in placed[0] if hasattr(each, "data_ptr")]
            return placed

        builder.create_masked_load, builder.create_masked_store = create_masked_load, create_masked_store
        executor._init_args_hst = _init_args_hst

    def clear(self) -> None:
        self.loaded: list[Any] = []
        self.stored: list[Any] = []
        self.tensors: list[Any] = []

    def traffic(self) -> list[tuple[Any, Any]]:
        return list(zip(self._counts(self.loaded), self._counts(self.stored), strict=True))

    def _counts(self, addresses: list[Any]) -> list[Any]:
        """Accesses of every element of every tensor; any other is an error."""
        import numpy as np
        import torch

        every = np.concatenate([each.reshape(-1) for each in addresses] or [np.empty(0, np.uint64)]).astype(np.int64)
        counts, found = [], 0
        for tensor in self.tensors:
            place = every - tensor.data_ptr()
            place = place[(place >= 0) & (place < tensor.numel() * tensor.element_size())]
            found += len(place)
            count = np.bincount(place // tensor.element_size(), minlength=tensor.numel())
            counts.append(torch.from_numpy(count).reshape(tensor.shape))
        if found != len(every):
            raise AssertionError(f"{len(every) - found} accesses lie outside of all tensors")
        return counts


def _serve() -> None:
    import torch

    from agileir_export.plugins.dispatch import plan_kernel, start_kernel

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # fills what is not initialised with NaN: outputs and scratch
    _bfloat16_products()
    memory = _Memory()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while True:
        try:
            operator, tensors, attributes, tactic, rows = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            memory.clear()
            answer: Any
            if ":" in operator:
                module, name = operator.split(":")
                answer = getattr(importlib.import_module(module), name)(*tensors)
            else:
                launch = plan_kernel(operator, tensors, attributes, tactic)
                if not rows:
                    launch = replace(launch, constants={**launch.constants, "in_rows": False}, key_width=0)
                answer = start_kernel(operator, tensors, attributes, launch), memory.traffic()
        except Exception as error:
            answer = error
        send(answers, answer)


if __name__ == "__main__":
    _serve()
