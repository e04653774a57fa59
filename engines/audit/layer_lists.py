"""Reading the list of an engine's layers: from a verbose builder log, or from the engine inspector's JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...json_form import parse_json
from .kernels import Kernel, Layer, Tensor, elements, kernel_of, number_type

__all__ = ["kernels_from_inspector", "kernels_from_rtx_log"]

LIST_START = "Layers:"

LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<type>[^,]*)"
    r"(?:, Inputs: \[(?P<inputs>| \{.*?\})\])?"
    r"(?:, Constants: \[(?P<constants>| \{.*?\})\])?"
    r"(?:, Outputs: \[(?P<outputs>| \{.*?\})\])?"
    r"(?P<rest>.*)",
    re.DOTALL,
)
TENSOR = re.compile(r"\{ Name: .*?Dimensions: \[(?P<sizes>[-\d,]*)\].*?(?:Format/)?Data[tT]ype: (?P<type>[^,}]*)")
TACTIC = re.compile(r", TacticName: (?P<tactic>[^,]*)")
NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\[|[\x1d-\x1f]|\s*$)", re.DOTALL)
"""Nodes in ``Metadata`` are separated by a control character, which some writers drop."""


def kernels_from_rtx_log(messages: Sequence[str]) -> list[Kernel]:
    """The kernels of a build, from its verbose log with ``ProfilingVerbosity.DETAILED``.

    TensorRT-RTX 1.7 prints one list for all compute capabilities of a build; where a log has several, each kernel says
    by `Kernel.engine` which one it stands in. TensorRT's own verbose log has the same form.

    Args:
        messages: All messages of the build in order, of every severity.

    Returns:
        All kernels, in the order they run; empty where the log has no list.
    """
    lists = [message for message in messages if message.startswith(LIST_START)]
    kernels = []
    for number, text in enumerate(lists):
        for line in text.splitlines()[1:]:
            if line and not line.startswith("Name: "):
                break  # the list of inputs and outputs follows
            if line:
                kernels.append(kernel_of(_from_line(line, number)))
    return kernels


def kernels_from_inspector(text: str) -> list[Kernel]:
    """The kernels of an engine, from ``IEngineInspector.get_engine_information(LayerInformationFormat.JSON)``.

    TensorRT 10 gives a tensor's type as ``Format/Datatype`` in words (``Row major linear FP16 format``), TensorRT 11
    splits it into ``Datatype`` and ``Format``; both are read. An engine built without detailed profiling has names
    only: its kernels are of unknown kind and precision.

    Args:
        text: The inspector's answer for an engine, or for one layer.

    Returns:
        All kernels, in the order they run.

    Raises:
        ValueError: The text is not JSON of this form.
    """
    try:
        answer = parse_json(text)
    except ValueError as error:
        raise ValueError(f"the engine inspector's answer is not JSON: {error}") from error
    if isinstance(answer, Mapping):
        answer = answer.get("Layers", [answer] if "Name" in answer else None)
    if not isinstance(answer, list):
        raise ValueError("the engine inspector's answer has no list of layers")
    return [kernel_of(_from_entry(entry)) for entry in answer]


def _from_line(line: str, number: int) -> Layer:
    """A layer from its line in a log."""
    found = LAYER.match(line)
    if found is None:  # names only: the build did not ask for details
        return Layer(line.removeprefix("Name: ").strip(), detailed=False, engine=number)
    tactic = TACTIC.search(found["rest"])
    return Layer(
        name=found["name"],
        type=found["type"],
        inputs=_tensors(found["inputs"]),
        constants=_tensors(found["constants"]),
        outputs=_tensors(found["outputs"]),
        tactic=tactic["tactic"] if tactic else "",
        nodes=tuple(NODE.findall(found["rest"])),
        engine=number,
    )


def _tensors(text: str | None) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(number_type(found["type"]), elements([int(size) for size in found["sizes"].split(",") if size]))
        for found in TENSOR.finditer(text or "")
    )


def _from_entry(entry: Any) -> Layer:
    """A layer from its entry in JSON: an object, or only a name."""
    if not isinstance(entry, Mapping):
        return Layer(str(entry), detailed=False)
    constants = [_tensor(tensor) for tensor in _list(entry, "Constants")]
    weights = entry.get("Weights")
    if isinstance(weights, Mapping):  # layers outside the compiler backend: {"Type": "Half", "Count": 9408}
        constants.append(Tensor(number_type(str(weights.get("Type", ""))), int(weights.get("Count", -1))))
    return Layer(
        name=str(entry.get("Name", "")),
        type=str(entry.get("LayerType", "")),
        inputs=tuple(_tensor(tensor) for tensor in _list(entry, "Inputs")),
        constants=tuple(constants),
        outputs=tuple(_tensor(tensor) for tensor in _list(entry, "Outputs")),
        tactic=str(entry.get("TacticName", "")),
        nodes=tuple(NODE.findall(str(entry.get("Metadata", "")))) or _nodes_in_name(str(entry.get("Name", ""))),
        detailed="LayerType" in entry,
    )


def _nodes_in_name(name: str) -> tuple[str, ...]:
    """The nodes a layer is named after, where it has no metadata: ``conv1 + relu1``, ``node_MatMul_1_myl0_3``."""
    return tuple(part for part in re.sub(r"_myl\d+_\d+$", "", name).split(" + ") if part)


def _list(entry: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = entry.get(key)
    return [tensor for tensor in found if isinstance(tensor, Mapping)] if isinstance(found, list) else []


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    keys = ("Datatype", "DataType", "Format/Datatype", "Format/DataType")
    described = next((str(entry[key]) for key in keys if key in entry), "")
    sizes = entry.get("Dimensions")
    return Tensor(
        number_type(described),
        elements([int(size) for size in sizes]) if isinstance(sizes, list) else -1,
    )
