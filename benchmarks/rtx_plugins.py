"""Engines of TensorRT-RTX with our kernels beside the same engines with the operators written out; needs no GPU.

Usage (from the root of the repository, with the package, Triton and the TensorRT-RTX wheels installed)::

    python benchmarks/rtx_plugins.py --json rtx_plugins.json                  # every preset, with plugins
    python benchmarks/rtx_plugins.py --json rtx_plugins.json --forms plugin decomposed --models agileir_tiny_x2

Each network is exported once, with its packaged weights or random ones, and built in every tensor type for images of
free size: 64 to 512 pixels a side. A build is a process of its own, one at a time, with an empty cache of compiled
kernels; its CPU time, which other work on the machine changes least, is that of the whole process. Every engine is
audited. What the JSON file holds already is not built again, but for what failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surroundings import surroundings

from agileir_export.version import RTX_PACKAGES

FORMS = ("plugin", "decomposed")
PRECISIONS = ("float32", "float16", "bfloat16")
GPUS = ("sm86", "sm89", "sm120")
PACKAGES = ("torch", "triton", "onnx", RTX_PACKAGES[0], "agileir-export")


def exported(name: str) -> Any:
    """A network's float32 file."""
    from agileir_export.conversion import ConversionRequest, export
    from agileir_export.models import build_preset, load_model, packaged_models, randomise

    if name in packaged_models():
        model = load_model(name)
    else:
        model = build_preset(name)
        randomise(model, 0)
    return export(model, ConversionRequest("float32"))


@contextmanager
def empty_kernel_cache() -> Iterator[None]:
    """Triton finds nothing that was compiled before."""
    before = os.environ.get("TRITON_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["TRITON_CACHE_DIR"]
            if before is not None:
                os.environ["TRITON_CACHE_DIR"] = before


def built(artifact: Any, form: str, gpus: tuple[str, ...]) -> dict[str, Any]:
    """What one build gives."""
    from agileir_export.engines.building.engine import build_request, make_engine
    from agileir_export.engines.building.request import BuildOptions
    from agileir_export.errors import AgileIRError
    from agileir_export.plugins.kernel_records import records_in

    request = build_request(artifact, BuildOptions(target="rtx", gpus=gpus), operators=form)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        with empty_kernel_cache():
            build = make_engine(artifact, request)
    except AgileIRError as error:
        return {"problem": str(error)}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    records = {record.layer: record for record in records_in(build.plan)}
    kernels = {kernel for record in records.values() for kernel in record.kernels}
    return {
        "seconds": build.build["seconds"],
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_memory_bytes": build.build["peak_memory_bytes"],
        "plan_bytes": len(build.plan),
        "operators": sum(artifact.operators.values()),
        "plugins": len(records),
        "texts": len(kernels),
        "text_bytes": sum(len(kernel.ptx) for kernel in kernels),
        "kernels": sum(share.count for share in build.audit.shares),
        "passed": build.audit.passed,
        "problems": list(build.audit.problems),
    }


def measure(name: str, wanted: Sequence[tuple[str, str]], gpus: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """All wanted (tensor type, form) of a network."""
    from agileir_export.export.precision import to_precision

    source = exported(name)
    for precision in dict.fromkeys(precision for precision, _ in wanted):
        artifact = source if precision == "float32" else to_precision(source, precision)
        for form in (form for each, form in wanted if each == precision):
            yield {
                "model": name,
                "precision": precision,
                "form": form,
                "gpus": list(gpus),
                **built(artifact, form, gpus),
            }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Results in Markdown, a line for each network and type."""
    lines = [
        "| model | type | plugins | kernels carried | CPU s | written out | plan MB | written out |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    pairs: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        pairs.setdefault((row["model"], row["precision"]), {})[row["form"]] = row
    for (model, precision), found in pairs.items():
        ours = found.get("plugin", {})
        cells = [str(ours.get("plugins", "")), str(ours.get("texts", ""))]
        for key, scale, digits in (("cpu_seconds", 1, 1), ("plan_bytes", 1e6, 1)):
            for form in FORMS:
                value = found.get(form, {}).get(key)
                cells.append("" if value is None else f"{value / scale:.{digits}f}")
        lines.append(f"| {model} | {precision} | {' | '.join(cells)} |")
    return "\n".join(lines)


def key_of(row: dict[str, Any]) -> tuple[str, str, str, tuple[str, ...]]:
    """What a result is of."""
    return row["model"], row["precision"], row["form"], tuple(row["gpus"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, writes the results as they come, and prints the table; 1 where a build failed or missed its audit."""
    parser = argparse.ArgumentParser(description="TensorRT-RTX engines with plugins, and written out.")
    add = parser.add_argument
    add("--models", nargs="+", metavar="MODEL", help="presets and packaged models (all)")
    add("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="tensor types (%(default)s)")
    add("--forms", nargs="+", choices=FORMS, default=["plugin"], help="of the operators (%(default)s)")
    add("--gpus", nargs="+", default=list(GPUS), help="compute capabilities (%(default)s)")
    add("--json", type=Path, required=True, help="file for all results")
    options = parser.parse_args(arguments)
    missing = [name for name in ("tensorrt_rtx_bindings", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"Not installed: {', '.join(missing)}.", file=sys.stderr)
        return 4
    from agileir_export.models import list_models

    facts = {**surroundings(PACKAGES), "results": []}
    if options.json.exists():
        facts = json.loads(options.json.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = [row for row in facts["results"] if "problem" not in row]  # type: ignore[attr-defined]
    facts["results"] = rows
    gpus = tuple(options.gpus)
    for name in options.models or [entry.name for entry in list_models()]:
        known = {key_of(row) for row in rows}
        wanted = [(precision, form) for precision in options.precisions for form in options.forms]
        wanted = [each for each in wanted if (name, *each, gpus) not in known]
        for row in measure(name, wanted, gpus) if wanted else ():
            rows.append(row)
            options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            said = row.get("problem") or f"{row['seconds']:.1f} s, {row['plan_bytes'] / 1e6:.1f} MB, {row['problems']}"
            print(f"{name} {row['precision']} {row['form']}: {said}", file=sys.stderr, flush=True)
    print(table(rows))
    return 0 if all(row.get("passed") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
