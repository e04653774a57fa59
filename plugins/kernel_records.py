"""Kernels as a plan carries them: one record for every layer, in the only field that its plugin serialises.

A record is `MAGIC`, the version of its layout and the length of what follows (both uint32, little-endian), then JSON
under zlib: the layer and its attributes, and of every kernel the text, its entry and the numbers of a launch. PTX
shrinks to a tenth. Records are found in a plan by `MAGIC`, without knowing how a builder writes plans. Where a field's
data cannot be read back, a record is the name of a field, as text.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import InputError, Unsupported
from ..json_form import parse_json

__all__ = [
    "FIELD",
    "LAYOUT",
    "CarriedKernel",
    "KernelRecord",
    "check_layout",
    "name_of",
    "named",
    "read_record",
    "records_in",
    "write_record",
]

FIELD = "kernels"
"""Name of the field."""

LAYOUT = 2
"""Version of the layout: to be raised when a record, or the order of a kernel's arguments, changes its meaning."""

ONE_WINDOW = {1: {"unit": 1}}
"""Fields of a kernel that records of older layouts do not have, by layout."""

MAGIC = b"agileir kernels\n"

TEXT = "agileir kernels in base 64 "
"""How a record begins that is a name; it ends with a full stop."""

IN_A_PLAN = re.compile(rb"(%b)|%b([A-Za-z0-9+/=]+)\." % (MAGIC, TEXT.encode()))

HEADER = struct.Struct(f"<{len(MAGIC)}sII")


@dataclass(frozen=True)
class CarriedKernel:
    """A kernel, and what launching it takes.

    Attributes:
        target: Compute capability (times ten) that the text is for, see `ptx.own_instructions`.
        tactic: Which of the operator's tactics it is, from 1.
        entry: Name of the entry. Its arguments are the inputs, height and width as int32 (`counted_sides`), the output,
            and the scratch memory where there is some.
        threads: Threads of a block.
        shared_bytes: Dynamic shared memory of a block.
        window_size: w; every `unit` windows of an image get `programs` blocks, see `programs_of`.
        programs: Blocks for them.
        scratch: float32 numbers of scratch memory a window; 0 where the kernel takes none.
        ptx: The text.
        unit: Windows that share their blocks.
    """

    target: int
    tactic: int
    entry: str
    threads: int
    shared_bytes: int
    window_size: int
    programs: int
    scratch: int
    ptx: str
    unit: int = 1


@dataclass(frozen=True)
class KernelRecord:
    """A layer with its kernels.

    Attributes:
        layer: Name of the layer, which is that of the node in the ONNX file.
        operator: Name of the plugin, which is the operator's.
        attributes: Its integer attributes by name.
        inputs: Number of its inputs.
        kernels: One for every target and tactic; none before a builder has said what the tensors are.
    """

    layer: str
    operator: str
    attributes: Mapping[str, int]
    inputs: int
    kernels: tuple[CarriedKernel, ...] = ()


def write_record(record: KernelRecord) -> bytes:
    """A record as bytes."""
    body = zlib.compress(json.dumps(asdict(record), sort_keys=True).encode(), 9)
    return HEADER.pack(MAGIC, LAYOUT, len(body)) + body


def read_record(data: bytes) -> KernelRecord:
    """The record that `write_record` wrote.

    Args:
        data: The record; what follows it does not matter.

    Raises:
        Unsupported: Its layout is newer than this package.
        InputError: It is damaged, or none of ours.
    """
    try:
        magic, layout, length = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise ValueError(f"it begins with {magic!r}")
        check_layout(layout)
        body = data[HEADER.size : HEADER.size + length]
        if len(body) < length:
            raise ValueError(f"{length - len(body)} of {length} bytes are missing")
        told = parse_json(zlib.decompress(body))
        missing = ONE_WINDOW.get(layout, {})
        kernels = tuple(
            # equal texts of layers become one
            _typed(CarriedKernel, {**missing, **kernel, "ptx": sys.intern(kernel["ptx"])})
            for kernel in told["kernels"]
        )
        record: KernelRecord = _typed(KernelRecord, {**told, "kernels": kernels})
        return record
    except (ValueError, KeyError, TypeError, struct.error, zlib.error) as error:
        raise InputError(
            f"The kernels of an engine cannot be read: {error}.",
            why="The plan is damaged, or its plugins are those of another program.",
            fix="Build the engine again.",
        ) from error


def check_layout(layout: int) -> None:
    """Refuses records of a newer layout than this package's.

    Raises:
        Unsupported: They are.
    """
    if layout > LAYOUT:
        raise Unsupported(
            f"The engine's kernels are laid out in version {layout}, and this package knows versions up to {LAYOUT}.",
            why="A newer agileir-export built the engine.",
            fix="Update agileir-export, or build the engine again with this one.",
        )


def records_in(plan: bytes) -> Iterator[KernelRecord]:
    """All records that a plan holds, in its order; a builder may keep a layer's more than once.

    Raises:
        AgileIRError: See `read_record`.
    """
    for found in IN_A_PLAN.finditer(plan):
        yield read_record(base64.b64decode(found[2]) if found[2] else plan[found.start() :])


def name_of(record: bytes) -> str:
    """A record as a name."""
    return f"{TEXT}{base64.b64encode(record).decode()}."


def named(name: str) -> bytes | None:
    """The record that a name is; None for another name."""
    return base64.b64decode(name[len(TEXT) : -1]) if name.startswith(TEXT) else None


def _typed(kind: Any, told: Mapping[str, Any]) -> Any:
    """An object of a dataclass, with all fields, and no others, in their types.

    Raises:
        ValueError: They are not.
    """
    wanted = {field.name: _KINDS[str(field.type).partition("[")[0]] for field in fields(kind)}
    if told.keys() != wanted.keys():
        raise ValueError(f"{kind.__name__} has the fields {_names(told)}, not {_names(wanted)}")
    for name, value in told.items():
        if not isinstance(value, wanted[name]) or (isinstance(value, int) and (isinstance(value, bool) or value < 0)):
            raise ValueError(f"{name} is {value!r}")
    return kind(**told)


_KINDS: Mapping[str, type] = {"int": int, "str": str, "tuple": tuple, "Mapping": Mapping}


def _names(found: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(sorted(found))
