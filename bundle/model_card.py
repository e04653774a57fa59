"""The README of a bundle: what the model is, what was measured, how to use each file."""

from __future__ import annotations

from collections.abc import Sequence

from ..engines.artifact import FOREIGN, EngineArtifact
from ..engines.targets import TARGETS
from ..export.artifact import OnnxArtifact
from ..parity.report import ParityReport
from ..parity.tables import COLUMNS, report_rows
from .picture_model import PictureModel
from .triton_repository import TritonModel

__all__ = ["model_card"]


def model_card(
    artifact: OnnxArtifact,
    engines: Sequence[EngineArtifact],
    report: ParityReport | None,
    triton: Sequence[TritonModel | PictureModel],
) -> str:
    """The card, in Markdown.

    Args:
        artifact: The ONNX file.
        engines: The engines beside it.
        report: Its parity, or None where it was not measured.
        triton: The models of the Triton repository.
    """
    spec = artifact.spec
    noise = "" if spec.noise_level is None else f", noise of standard deviation {spec.noise_level:g} (of 255)"
    facts = [
        ("Architecture", spec.family),
        ("Task", f"{spec.task} x{spec.scale}" if spec.scale > 1 else f"{spec.task}{noise}"),
        ("Input", f"float32 [batch, {spec.channels}, height, width] in 0..1, sides multiples of {spec.pad_multiple}"),
        ("Output", f"float32 [batch, {spec.channels}, {spec.scale}*height, {spec.scale}*width], to be clamped to 0..1"),
        ("Precision of the ONNX file", artifact.precision),
        ("Weights", _origin(artifact)),
    ]
    parts = [
        f"# {spec.name}",
        _table(("what", "value"), facts),
        "Licence and conditions of the weights are those of their author; this folder does not change them.",
        "## Parity",
        _parity(report),
    ]
    if engines:
        parts += ["## Engines", _engines(engines)]
    parts += ["## Use", _use(artifact, engines, triton)]
    return "\n\n".join(parts) + "\n"


def _origin(artifact: OnnxArtifact) -> str:
    origin = artifact.provenance
    digest = str(origin.get("weights_sha256", ""))[:12]
    name = origin.get("weights", origin.get("model", "unknown"))
    if origin.get("random_weights") is not None:
        return f"random (seed {origin['random_weights']}): this model restores nothing"
    return f"{name}, sha256 of the state dict {digest}..."


def _parity(report: ParityReport | None) -> str:
    if report is None:
        return "Not measured when this folder was made: `agileir-export verify` does it."
    verdict = (
        "Every rung holds." if report.passed else "**A rung is missed: do not use these files without knowing why.**"
    )
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in report_rows(report)]
    return f"Measured against PyTorch in float32, on pictures, with peak 1.0.\n\n{_table(COLUMNS, rows)}\n\n{verdict}"


def _engines(engines: Sequence[EngineArtifact]) -> str:
    rows = [
        (
            f"`engines/{engine.path.name}`",
            TARGETS[engine.target].title,
            engine.precision,
            ", ".join(engine.gpus) or "the GPU it was built on",
            ", ".join(map(str, engine.profiles)),
        )
        for engine in engines
    ]
    columns = ("file", "runtime", "precision", "compute capabilities", "batch x rows x columns")
    return (
        f"{_table(columns, rows)}\n\nThe JSON file beside a plan says which versions it was built with, and in which "
        "precision its kernels really run. A plan runs with the version that built it."
    )


def _use(
    artifact: OnnxArtifact, engines: Sequence[EngineArtifact], triton: Sequence[TritonModel | PictureModel]
) -> str:
    lines = [
        "```sh",
        f"agileir-export restore onnx/{artifact.file_name} photo.png -o restored.png",
        *(f"agileir-export restore engines/{engine.path.name} photo.png -o restored.png" for engine in engines),
        "```",
        "",
        "`triton/` is a model repository for Triton Inference Server (`tritonserver --model-repository=triton`):",
        "",
        *(f"- `{model.name}` ({model.platform})" for model in triton),
        "",
        f"`{triton[0].name}` takes the bytes of a picture file of any size, and answers with those of the restored "
        "one: `agileir-export serve` starts a server with it. The others take tensors: clients pad pictures to "
        f"multiples of {artifact.spec.pad_multiple} pixels (repeat the edge by reflection) and crop the result.",
    ]
    if bound := [engine for engine in engines if engine.needs_this_package]:
        named = ", ".join(f"`{engine.path.name}` (layout {engine.plugins.get('layout')})" for engine in bound)
        lines += [
            "",
            f"Plans that run with agileir-export only, which launches the kernels in them: {named}. {FOREIGN}",
        ]
    if any(engine.target == "rtx" for engine in engines):
        lines += ["", "Plans of TensorRT-RTX are for applications: Triton's TensorRT backend does not run them."]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
