"""Audit of a built engine: does it compute in the precision that was asked for?

A request for half precision that yields float32 kernels is an error and not a success, so every engine is read back
after its build. What is counted is kernels, not time or arithmetic. What stays float32 by design is named with its
reason; what the engine does not say is called unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...json_form import JsonForm
from ...plugins import OPERATORS
from .kernels import PRODUCTS, UNKNOWN, Kernel, operator_of
from .layer_lists import kernels_from_inspector, kernels_from_rtx_log
from .requested_types import float32_nodes, product_nodes, quantised_nodes

__all__ = [
    "COLUMNS",
    "LISTED",
    "Audit",
    "Kept",
    "Kernel",
    "Share",
    "float32_nodes",
    "judge",
    "kernels_from_inspector",
    "kernels_from_rtx_log",
    "outside_plugins",
    "product_nodes",
    "quantised_nodes",
    "standing_for",
]

COLUMNS = ("kind", "precision", "kernels", "share")
"""Headings of `Audit.rows`."""

FLOAT_OPERATORS = {operator.name: operator.float_reason for operator in OPERATORS.values() if operator.float_reason}
"""Operators that compute in float32 whatever the precision of the file, and why."""

FLOAT_KINDS = {
    "normalisation": "means and variances are taken in float32",
    "softmax": "logits, bias and softmax are float32",
    "pointwise": "parts of a normalisation, of GELU or of the logits, or the conversion to and from them",
    "copy": "conversion at the edges of the network or of a float32 part",
}
"""Why kernels other than products may hold float32 in an engine of half precision."""

REQUESTS = {
    "float32": ("float32",),
    "tf32": ("float32",),
    "float16": ("float16",),
    "bfloat16": ("bfloat16",),
    "int8": ("int8", "float16", "bfloat16", "float32"),
}
"""Number types that products may compute in, by requested precision."""

JUDGED = (*PRODUCTS, "plugin")
"""Kinds of kernels that a request is about."""

LISTED = 4
"""Names a message shows before it counts."""


@dataclass(frozen=True)
class Share:
    """Kernels of one kind and number type: how many, and what part of their kind (0..1)."""

    kind: str
    precision: str
    count: int
    share: float


@dataclass(frozen=True)
class Kept:
    """Kernels that hold float32 in an engine of lower precision, by design: how many, and why."""

    kind: str
    precision: str
    count: int
    reason: str


@dataclass(frozen=True)
class Audit(JsonForm):
    """What an engine was asked to compute in, and what it does compute in.

    Attributes:
        precision: The request: ``"float32"``, ``"tf32"``, ``"float16"``, ``"bfloat16"`` or ``"int8"``.
        shares: Number of kernels by kind and number type; layers that launch nothing are left out.
        kept: What stays float32 although less was asked for, with the reason.
        unknown: What the engine does not say: kernels of unknown type, products that no kernel names.
        problems: What was asked for and is not there; empty if the engine is what it was asked to be.
    """

    precision: str
    shares: tuple[Share, ...]
    kept: tuple[Kept, ...] = ()
    unknown: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing contradicts the request."""
        return not self.problems

    def rows(self) -> list[tuple[str, str, int, str]]:
        """Lines of a table with the headings `COLUMNS`."""
        return [(s.kind, s.precision, s.count, f"{100 * s.share:.0f} %") for s in self.shares]

    def to_json(self) -> dict[str, Any]:
        """The audit as a JSON object."""
        return super().to_json() | {"passed": self.passed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Audit:
        """The audit that `to_json` described."""
        return cls(
            data["precision"],
            tuple(Share(**share) for share in data["shares"]),
            tuple(Kept(**kept) for kept in data["kept"]),
            tuple(data["unknown"]),
            tuple(data["problems"]),
        )


def outside_plugins(products: Iterable[str], kernels: Iterable[Kernel]) -> list[str]:
    """Those of `product_nodes` that are not in the body of a function whose call an engine runs as a plugin."""
    calls = {node for kernel in kernels if kernel.kind == "plugin" for node in kernel.origin}
    return [name for name in products if name.partition(" | ")[2].rpartition(" (")[0] not in calls]


def standing_for(kernels: Iterable[Kernel], plugins: Mapping[str, Sequence[str]]) -> list[Kernel]:
    """The kernels, where a plugin comes from all the nodes that it stands for.

    Args:
        kernels: All kernels.
        plugins: Names of those nodes by the plugin's own.
    """

    def told(kernel: Kernel) -> Kernel:
        if kernel.kind != "plugin":
            return kernel
        more = (node for name in (kernel.name, *kernel.origin) for node in plugins.get(name, ()))
        return replace(kernel, origin=tuple(dict.fromkeys((*kernel.origin, *more))))

    return [told(kernel) for kernel in kernels]


def judge(
    kernels: Sequence[Kernel],
    precision: str,
    expected_int8: Collection[str] = (),
    products: Collection[str] = (),
    by_design: Mapping[str, str] | None = None,
) -> Audit:
    """Compares the kernels of an engine with what was asked for.

    In float32 and half precision every matrix product, convolution, attention product and plugin must compute in
    exactly that type; the exceptions are the operators of `FLOAT_OPERATORS` and the nodes of `by_design`. In int8 the
    expected nodes must be int8, and at least one where none is named; the others may have any floating-point type.
    A product of unknown type fails the audit only where nothing is known of any product.

    Args:
        kernels: All kernels of the engine, or of the engines of several compute capabilities.
        precision: A key of `REQUESTS`.
        expected_int8: ONNX nodes that were quantised.
        products: ONNX nodes that multiply and accumulate (`product_nodes`). Those that no product kernel names are
            looked for in the fused kernels: small ones are expanded into plain arithmetic there.
        by_design: Products that are float32 in the file on purpose, with the reason (`float32_nodes`). A kernel is
            excused if all products it comes from are.

    Raises:
        KeyError: `precision` is none of `REQUESTS`.
    """
    allowed, reasons = REQUESTS[precision], by_design or {}
    kernels = [kernel for kernel in kernels if kernel.kind != "control"]
    judged = [kernel for kernel in kernels if kernel.kind in JUDGED]
    contrary = [kernel for kernel in judged if kernel.precision not in (*allowed, UNKNOWN)]
    excused = {kernel: reason for kernel in judged if (reason := _float_by_design(kernel, reasons, products))}
    located = [kernel for kernel in kernels if kernel in judged or not set(products).isdisjoint(kernel.origin)]
    problems = [] if any(kernel.precision != UNKNOWN for kernel in located) else [_nothing_known(kernels)]
    problems += _contrary(judged, [kernel for kernel in contrary if kernel not in excused], precision)
    if precision == "int8":
        problems += _int8_problems(judged, expected_int8)
    unknown = [
        f"{kernel.kind} kernel of unknown type: {_named(kernel)}"
        for kernel in kernels
        if UNKNOWN in (kernel.kind, kernel.precision)
    ]
    if precision == "tf32" and not any(kernel.tensor_float for kernel in kernels):
        unknown.append("whether float32 products round to TF32: it is allowed, but no kernel's name tells")
    hidden_unknown, hidden_problems = _hidden(kernels, allowed, products, reasons)
    return Audit(
        precision,
        _shares(kernels),
        _kept(kernels, precision, excused),
        tuple(unknown + hidden_unknown),
        tuple(problems + hidden_problems),
    )


def _float_by_design(kernel: Kernel, reasons: Mapping[str, str], products: Collection[str]) -> str:
    """Why a product may be float32; empty if it may not.

    What counts is the products it comes from, where they are known: other nodes, such as index arithmetic that calls
    of two operators share, can lie in any kernel.
    """
    if kernel.precision != "float32":
        return ""
    found = [node for node in kernel.origin if node in products]
    if kernel.kind == "plugin" and not found:
        name = f"{kernel.name}{kernel.origin}".casefold().replace("_", "")
        return next((why for operator, why in FLOAT_OPERATORS.items() if operator.casefold() in name), "")
    excuses = [reasons.get(node) or FLOAT_OPERATORS.get(operator_of(node), "") for node in found or kernel.origin]
    excused = all(excuses) if found else any(excuses)
    return next(filter(None, excuses)) if excused else ""


def _contrary(judged: Sequence[Kernel], wrong: Sequence[Kernel], precision: str) -> list[str]:
    """Problems: kernels that compute in another type than asked for, by kind and type."""
    problems = []
    total = Counter(kernel.kind for kernel in judged)
    for kind, actual in dict.fromkeys((kernel.kind, kernel.precision) for kernel in wrong):
        found = [kernel for kernel in wrong if (kernel.kind, kernel.precision) == (kind, actual)]
        listing = _listing(_named(kernel) for kernel in found)
        problems.append(
            f"{len(found)} of {total[kind]} {kind} kernels compute in {actual}, not in {precision}: {listing}"
        )
    rounding = [kernel for kernel in judged if kernel.tensor_float and precision == "float32"]
    if rounding:
        problems.append(f"{len(rounding)} kernels round to TF32: {_listing(_named(kernel) for kernel in rounding)}")
    return problems


def _kept(kernels: Sequence[Kernel], precision: str, excused: Mapping[Kernel, str]) -> tuple[Kept, ...]:
    """What holds float32 in an engine of lower precision; beside int8, all that is not quantised may."""
    if precision in ("float32", "tf32"):
        return ()
    kinds = {} if precision == "int8" else FLOAT_KINDS
    found = [(kernel, excused.get(kernel) or kinds.get(kernel.kind, "")) for kernel in kernels]
    counts = Counter((k.kind, k.precision, reason) for k, reason in found if reason and "float32" in k.precision)
    return tuple(Kept(kind, actual, count, reason) for (kind, actual, reason), count in sorted(counts.items()))


def _nothing_known(kernels: Sequence[Kernel]) -> str:
    if not kernels:
        return "the engine lists no kernels: it was built without detailed profiling, or without a verbose log"
    return f"the engine says of none of its {len(kernels)} kernels which type its products compute in"


def _int8_problems(judged: Sequence[Kernel], expected: Collection[str]) -> list[str]:
    """Quantised nodes that do not run in int8."""
    int8 = {node for kernel in judged if kernel.precision == "int8" for node in kernel.origin}
    if not expected and not int8:
        return ["no kernel computes in int8"]
    missing = [node for node in expected if node not in int8]
    if not missing:
        return []
    actual = {node: kernel.precision for kernel in judged for node in kernel.origin if node in missing}
    listing = _listing(f"{node} ({actual.get(node, 'in no kernel')})" for node in missing)
    return [f"{len(missing)} of {len(expected)} quantised nodes do not run in int8: {listing}"]


def _hidden(
    kernels: Sequence[Kernel], allowed: Collection[str], products: Collection[str], reasons: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """What is unknown, and what is wrong, about the products that no product kernel names."""
    found = {node for kernel in kernels if kernel.kind in JUDGED for node in kernel.origin}
    types: dict[str, set[str]] = {node: set() for node in products if node not in found and node not in reasons}
    for kernel in kernels:
        for node in types.keys() & set(kernel.origin):
            types[node].update(set(kernel.precision.split("+")) - {UNKNOWN, "integer"})
    absent = [node for node, edges in types.items() if not edges]
    mixed = [node for node, edges in types.items() if len(edges) > 1]
    wrong = [
        node
        for node, edges in types.items()
        if edges and edges.isdisjoint(allowed) and operator_of(node) not in FLOAT_OPERATORS
    ]
    unknown, problems = [], []
    if absent:
        unknown.append(f"{len(absent)} products are in no kernel's origin (folded or renamed): {_listing(absent)}")
    if mixed:
        unknown.append(f"{len(mixed)} products are expanded inside fused kernels of several types: {_listing(mixed)}")
    if wrong:
        problems.append(f"{len(wrong)} products are expanded inside fused kernels of another type: {_listing(wrong)}")
    return unknown, problems


def _shares(kernels: Sequence[Kernel]) -> tuple[Share, ...]:
    """Kernels by kind and type, the products first."""
    order = (*PRODUCTS, "plugin", "softmax", "normalisation", "pointwise", "copy", UNKNOWN)
    kinds = Counter(kernel.kind for kernel in kernels)
    counts = Counter((kernel.kind, kernel.precision) for kernel in kernels)
    pairs = sorted(counts, key=lambda pair: (order.index(pair[0]), -counts[pair], pair[1]))
    return tuple(Share(*pair, counts[pair], counts[pair] / kinds[pair[0]]) for pair in pairs)


def _named(kernel: Kernel) -> str:
    """A kernel by the ONNX node it is named after, which a reader can find; else by its own name."""
    return kernel.origin[0] if kernel.origin else kernel.name


def _listing(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(dict.fromkeys(names))
    rest = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + rest
