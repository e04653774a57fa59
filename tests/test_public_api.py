"""The public names and how they are called: whoever imports them depends on every line here."""

from __future__ import annotations

import inspect
import re

import pytest

import agileir_export

TABLE = """
AgileIRError
    what: str
    *
    why: str = ''
    fix: str = ''
BuildOptions
    *
    target: str
    gpus: tuple[str, ...] = ()
    tf32: bool = False
    use_plugins: bool = False
    optimization_level: int | None = None
    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware_compatible: str = 'none'
    timing_cache: Path | None = None
Bundle
    folder: Path
    files: dict[str, str]
    triton: tuple[str, ...]
Cache
    folder: Path | None = None
    drawer: str = 'engines'
CalibrationOptions
    method: str = 'mse'
    percentile: float = 99.99
    psnr_budget: float = 0.1
    min_parity: float = 38.0
    min_agreement: float = 0.95
    crops: int = 64
    held_out: int = 8
    seed: int = 0
    equalise: bool | None = None
    ends: bool = False
    every_layer: bool = True
    rest: str = 'float32'
ConversionRequest
    precision: str | None = None
    opset: int | None = None
    static: tuple[int, int] | None = None
    decomposed: bool = False
    rescale: bool = True
    int8: Int8Request = <factory>
EngineArtifact
    path: Path
    sha256: str
    target: str
    precision: str
    profiles: tuple[Profile, ...]
    gpus: tuple[str, ...]
    spec: ModelSpec
    facts: Mapping[str, Any]
    audit: Mapping[str, Any]
    provenance: Mapping[str, Any]
    build: Mapping[str, Any]
Int8Request
    images: tuple[Path, ...] = ()
    ground_truth: tuple[Path, ...] = ()
    psnr_budget: float | None = None
    recipe: Recipe | None = None
LoadOptions
    weights: str | Path | None = None
    random_weights: int | None = None
    top_k: int | None = None
    attention: str | None = None
    img_range: float | None = None
OnnxArtifact
    model: onnx.ModelProto
    data: bytes
    path: Path | None
    precision: str
    fixed_sizes: dict[str, int]
    spec: ModelSpec
    provenance: dict[str, Any]
    blocks: tuple[str, ...]
    nodes: int
    operators: dict[str, int]
    conversion: dict[str, Any] = <factory>
    rescale: dict[str, int] = <factory>
    rescale_report: dict[str, Any] = <factory>
ParityReport
    subject: str
    spec: ModelSpec
    rungs: tuple[Rung | TaskRung, ...]
    runners: dict[str, Any]
Restored
    source: Path
    output: Path
    size_in: tuple[int, int]
    size_out: tuple[int, int]
    seconds: float
build_engine -> EngineArtifact
    artifact: OnnxArtifact
    output: str | Path
    options: BuildOptions | None = None
    *
    sizes: Sizes = Sizes(nearby=(), exact=())
    operators: str = 'auto'
    cache: Cache | None = None
    progress: Progress = silent
calibrate -> tuple[OnnxArtifact, CalibrationReport]
    source: OnnxArtifact
    images: Sequence[str | Path] = ()
    *
    ground_truth: Sequence[str | Path] = ()
    options: CalibrationOptions | None = None
    recipe: Recipe | None = None
    cache: Cache | None = None
    progress: Progress = silent
convert -> OnnxArtifact
    source: str | Path | OnnxArtifact
    request: ConversionRequest | str | None = None
    options: LoadOptions | None = None
    *
    keep: bool = False
    progress: Progress = silent
export_onnx -> OnnxArtifact
    model: Restorer
    path: str | Path | None = None
    *
    opset: int = 20
    static: tuple[int, int] | None = None
    decomposed: bool = False
    source: Mapping[str, Any] | None = None
list_models -> list[ModelEntry]
load_model -> Restorer
    name_or_path: str | Path
    options: LoadOptions | None = None
    **keywords: Any
open_runner -> Runner
    source: str | Path
    options: LoadOptions | None = None
read_artifact -> OnnxArtifact
    path: str | Path
read_engine -> EngineArtifact
    path: str | Path
read_sizes -> Sizes
    names: Sequence[str] = ()
    minimum: Sequence[str] = ()
    optimum: Sequence[str] = ()
    maximum: Sequence[str] = ()
    static: tuple[int, int] | None = None
restore_pictures -> list[Restored]
    runner: Runner
    images: str | Path | Sequence[str | Path]
    output: str | Path
    overwrite: bool = False
    progress: Progress = silent
    *
    tile: Tile = 'auto'
    overlap: int | None = None
    seam_psnr: float = 60.0
verify -> ParityReport
    model: Restorer
    onnx_file: str | Path | OnnxArtifact
    images: Sequence[ParityImage] | None = None
    *
    min_psnr: float | None = None
    subject: str | None = None
    progress: Progress = silent
write_bundle -> Bundle
    folder: str | Path
    artifact: OnnxArtifact
    engines: Sequence[EngineArtifact] = ()
    report: ParityReport | None = None
    *
    page: str = ''
    name: str | None = None
    batch: int = 8
    instances: int = 1
    overwrite: bool = False
"""
"""Every public name that can be called: what it returns, then its parameters, a line each."""


def described(name: str) -> str:
    """A public name as the table has it: without the quotes of annotations, functions by their names."""
    signature = inspect.signature(getattr(agileir_export, name))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    returned = "" if inspect.isclass(getattr(agileir_export, name)) else f" -> {signature.return_annotation}"
    lines, previous = [f"{name}{returned}"], None
    for parameter, plain in zip(signature.parameters.values(), bare, strict=True):
        if parameter.kind == parameter.KEYWORD_ONLY != previous:
            lines.append("    *")
        previous = parameter.kind
        title, _, default = re.sub(r"<function (\w+) at \w+>", r"\1", str(plain)).partition("=")
        lines.append(f"    {title}: {parameter.annotation}" + (f" = {default}" if default else ""))
    return "\n".join(lines)


def test_names_and_signatures_are_frozen() -> None:
    names = [name for name in agileir_export.__all__ if name != "__version__"]
    assert "\n".join(map(described, names)) == TABLE.strip()
    assert isinstance(agileir_export.__version__, str)


def test_the_root_shows_its_names_and_no_others() -> None:
    assert sorted(agileir_export.__all__) == agileir_export.__all__
    assert set(agileir_export.__all__) <= set(dir(agileir_export))
    with pytest.raises(AttributeError, match="no attribute 'expotr'"):
        _ = agileir_export.expotr
