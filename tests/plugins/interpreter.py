"""Runs kernels under Triton's CPU interpreter, in a process of its own.

Triton decides when it is imported whether kernels are compiled or interpreted; a process of its own keeps that
decision away from all other tests. As a program this file is that process: it reads calls as pickles from its standard
input and answers on its standard output.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

HEADER = struct.Struct("<Q")


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
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __call__(
        self,
        operator: str,
        tensors: Sequence[Any],
        attributes: Mapping[str, int],
        tactic: int = 1,
    ) -> Any:
        """Output of the kernel of `operator` (its torch name) for CPU tensors; errors are raised here again."""
        assert self.process.stdin and self.process.stdout
        send(self.process.stdin, (operator, tensors, attributes, tactic))
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


def _serve() -> None:
    import torch

    from agileir_export.plugins.dispatch import run_kernel

    torch.set_num_threads(1)
    _bfloat16_products()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while True:
        try:
            operator, tensors, attributes, tactic = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: Any = run_kernel(operator, tensors, attributes, tactic)
        except Exception as error:
            answer = error
        send(answers, answer)


if __name__ == "__main__":
    _serve()
