"""The verb ``trt``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .completion import complete_model, complete_profile
from .options import (
    DecibelType,
    Size,
    SizeType,
    Verb,
    common_options,
    given,
    memory_size,
    model_options,
    output_option,
    path_option,
    stacked,
)
from .terminal import Terminal

if TYPE_CHECKING:
    from ..conversion import Int8Request
    from ..engines.audit.verdict import Audit
    from ..engines.building.request import BuildRequest
    from ..engines.profiles import Profile
    from ..export import OnnxArtifact
    from ..models import LoadOptions

__all__ = ["trt"]

PRECISIONS = {"--fp32": "float32", "--tf32": "float32", "--fp16": "float16", "--bf16": "bfloat16", "--int8": "int8"}


def _gpus(ctx: click.Context, option: click.Parameter, listed: str | None) -> tuple[str, ...]:
    """``sm86,sm89`` as lower-case names in order."""
    names = [] if listed is None else [name.strip().lower() for name in listed.split(",")]
    if "" in names:
        raise click.BadParameter(f"{listed!r} names no GPU in one place; give such as sm86,sm89.", ctx, option)
    return tuple(names)


precision_options = stacked(
    *(
        click.option(f"--{name}", is_flag=True, expose_value=False, help=text)
        for name, text in (
            ("fp32", "Compute in float32."),
            ("tf32", "Compute in float32; products may round their factors to TF32."),
            ("fp16", "Compute in float16."),
            ("bf16", "Compute in bfloat16."),
            ("int8", "Compute in INT8 and float16; a float source is calibrated."),
        )
    ),
    click.option("--no-rescale", is_flag=True, help="With --fp16: leave residual streams as they are."),
)

calibration_options = stacked(
    path_option(
        "--images",
        multiple=True,
        help="With --int8: inputs to calibrate on; see the verb calibrate.",
    ),
    path_option(
        "--ground-truth",
        multiple=True,
        help="With --int8: pictures of what is to be restored. Default: the packaged samples.",
    ),
    click.option(
        "--psnr-budget", type=DecibelType(), metavar="DB", help="With --int8: greatest loss against ground truth."
    ),
    path_option("--recipe", metavar="FILE", help="With --int8: an earlier calibration."),
)

profile_options = stacked(
    click.option(
        "--profile",
        "profiles",
        multiple=True,
        metavar="NAME",
        shell_complete=complete_profile,
        help="Sizes by name, such as tiles, image or 720p; may be repeated.",
    ),
    click.option("--min", "minimum", multiple=True, metavar="BxHxW", help="Smallest size of a profile."),
    click.option("--opt", "optimum", multiple=True, metavar="BxHxW", help="Size a profile is fastest at."),
    click.option(
        "--max",
        "maximum",
        multiple=True,
        metavar="BxHxW",
        help="Largest size. --min, --opt and --max may be repeated, one each for every profile; B may be left out.",
    ),
    click.option("--static", type=SizeType(), metavar="HxW", help="One size only (rows x columns, batch 1)."),
)

build_options = stacked(
    click.option("--gpu", "gpus", metavar="GPUS", callback=_gpus, help="Compute capabilities, as in sm86,sm89 (rtx)."),
    click.option(
        "--optimization-level",
        type=int,
        metavar="0-5",
        help="Effort of the build; more is a faster engine (tensorrt; rtx 1.7 takes it and makes the same).",
    ),
    click.option(
        "--workspace",
        "workspace_bytes",
        metavar="BYTES",
        callback=memory_size,
        help="Most memory a kernel may take for itself, as in 4GiB.",
    ),
    output_option(
        "--timing-cache",
        help="File of kernel timings, read and updated (tensorrt).",
    ),
    click.option("--version-compatible", is_flag=True, help="Run under later versions of TensorRT, too (tensorrt)."),
    click.option(
        "--hardware-compatible",
        type=click.Choice(["none", "same-capability", "ampere-plus"]),
        default="none",
        show_default=True,
        help="Run on other GPUs, too (tensorrt).",
    ),
    click.option(
        "--attention",
        "operators",
        type=click.Choice(["auto", "plugin", "decomposed"]),
        default="auto",
        show_default=True,
        help="Attention operators as plugins or by their plain ONNX function bodies. auto: plugins with tensorrt.",
    ),
    click.option(
        "--fuse",
        type=click.Choice(["blocks", "attention", "none"]),
        help="What runs as plugins: half blocks of the transformer and its attention (not yet run on a GPU), attention "
        "alone, or nothing. Default: what --attention says.",
    ),
    click.option(
        "--plugin-form",
        type=click.Choice(["quick", "python"]),
        help="Plugins that any program runs (tensorrt), or plugins that need this package where the engine runs (rtx "
        "takes no others).",
    ),
)


@click.command(cls=Verb, short_help="Build a TensorRT or TensorRT-RTX engine and audit it.")
@click.argument("source", metavar="MODEL_OR_ONNX", shell_complete=complete_model)
@output_option("-o", "--output", required=True, beside=(".json",), help="Plan to write or replace.")
@click.option(
    "--target",
    type=click.Choice(["auto", "tensorrt", "rtx"]),
    default="auto",
    show_default=True,
    help="auto: TensorRT where it can build, else TensorRT-RTX, which builds without a GPU.",
)
@precision_options
@calibration_options
@profile_options
@build_options
@output_option("--keep-onnx", metavar="FILE", suffixes=(".onnx",), help="Write the converted ONNX file, too.")
@click.option("--keep-failed", is_flag=True, help="Write the engine even if it fails its audit.")
@click.option("--no-cache", is_flag=True, help="Neither take the engine from the cache nor keep it there.")
@click.option("--dry-run", is_flag=True, help="Show what would be built and what is missing here.")
@functools.partial(model_options, attention="--model-attention")
@common_options
@click.pass_obj
def trt(
    terminal: Terminal,
    /,
    source: str,
    output: Path,
    target: str,
    no_rescale: bool,
    images: tuple[Path, ...],
    ground_truth: tuple[Path, ...],
    psnr_budget: float | None,
    recipe: Path | None,
    profiles: tuple[str, ...],
    minimum: tuple[str, ...],
    optimum: tuple[str, ...],
    maximum: tuple[str, ...],
    static: Size | None,
    gpus: tuple[str, ...],
    operators: str,
    fuse: str | None,
    plugin_form: str | None,
    keep_onnx: Path | None,
    keep_failed: bool,
    no_cache: bool,
    dry_run: bool,
    options: LoadOptions,
    **more: Any,  # the other fields of `BuildOptions`
) -> None:
    """Build an engine from MODEL_OR_ONNX and check which precision its kernels really compute in.

    MODEL_OR_ONNX is an exported file of any precision, a checkpoint, or a preset that `agileir-export models` lists.
    A float32 source is built in float32 unless told otherwise, a converted file in its own precision. Beside the plan
    lies PLAN.json, which says what it is.

    Exits with 1 when the engine does not compute in the precision asked for; nothing is written then.
    """
    from ..cache import Cache
    from ..conversion import ConversionRequest, convert
    from ..engines.artifact import FOREIGN
    from ..engines.building.engine import (
        build_request,
        check_plan_output,
        check_target,
        engine_facts,
        make_engine,
        require_audit,
        write_engine,
    )
    from ..engines.building.memory import LARGE, least_memory
    from ..engines.building.request import BuildOptions, check_options
    from ..engines.opening import is_onnx
    from ..engines.profile_choice import read_sizes
    from ..engines.targets import choose_target
    from ..files import check_output

    chosen = given(*(option.removeprefix("--") for option in PRECISIONS))
    if len(chosen) > 1:
        raise InputError(f"An engine has one precision, not {' and '.join(chosen)}.", fix="Give one of them.")
    if no_rescale and chosen != ["--fp16"]:
        raise InputError("--no-rescale is for --fp16 only.", why="INT8 cannot do without, and others need none.")
    check_plan_output(output)
    if keep_onnx is not None:
        check_output(keep_onnx, overwrite=True)
    product = choose_target(target)
    calibration = _calibration(chosen == ["--int8"], images, ground_truth, psnr_budget, recipe)
    sizes = read_sizes(profiles, minimum, optimum, maximum, static)
    gpus = gpus or product.default_gpus
    operators = _fused(fuse, operators)
    tf32, plugins = chosen == ["--tf32"], operators == "plugin"
    if plugin_form is not None and operators == "decomposed":
        raise InputError("--plugin-form is for plugins.", fix="Leave it out, or use --attention plugin.")
    more |= {"use_plugins": plugins, "plugin_form": plugin_form or "", "fuse_blocks": fuse == "blocks"}
    build_options = BuildOptions(target=product.name, gpus=gpus, tf32=tf32, **more)
    precision = PRECISIONS[chosen[0]] if chosen else None if is_onnx(source) else "float32"
    check_options(build_options, precision)
    if not dry_run and precision is not None:  # exports and conversions take long
        check_target(product, gpus)
    conversion = ConversionRequest(precision, static=static, rescale=not no_rescale, int8=calibration)
    cache = None if no_cache else Cache()
    with terminal.working() as progress:
        artifact = convert(source, conversion, options, keep=not no_cache, progress=progress)
    request = build_request(artifact, build_options, sizes, operators)
    memory = {profile: least_memory(artifact.model, profile) for profile in request.profiles}
    for profile, least in memory.items():
        if least > LARGE:
            terminal.note(
                f"{profile} needs {least / 2**30:.0f} GiB of the GPU's memory at least. "
                "`restore` cuts larger pictures into tiles: see --profile tiles."
            )
    if dry_run:
        _show(terminal, artifact, request, output, memory)
        engine_facts(artifact, request)
        return
    with terminal.working(f"Building {artifact.spec.name} with {product.title}") as progress:
        build = make_engine(artifact, request, cache, progress)
    _show_audit(terminal, build.audit)
    if not keep_failed:
        require_audit(build.audit)
    engine = write_engine(build, output, {} if keep_onnx is None else {keep_onnx: artifact.data})
    if engine.build["cached"] and request.timing_cache is not None:
        terminal.note(f"{request.timing_cache} was not updated: no kernel was timed")
    size, fits = f"{len(build.plan) / 2**20:.1f} MiB", ", ".join(engine.gpus)
    terminal.note(f"Wrote {output} and {output.name}.json: {size} for {fits}, {_effort(engine.build)}")
    if request.fuse_blocks:
        terminal.note("No engine with half blocks has run on a GPU yet: use it only after `verify`.")
    if engine.needs_this_package:
        terminal.note(f"The plan runs with agileir-export only. {FOREIGN}")
    terminal.note(
        f"Next, on such a GPU: agileir-export verify {output}; agileir-export restore {output} IN.png -o OUT.png"
    )
    terminal.result({"path": str(output), **engine.to_json()})
    require_audit(build.audit, kept=output)


def _fused(fuse: str | None, operators: str) -> str:
    """What --attention has to be for --fuse.

    Raises:
        InputError: It is something else.
    """
    if fuse is None:
        return operators
    wanted = "decomposed" if fuse == "none" else "plugin"
    if operators not in ("auto", wanted):
        raise InputError(
            f"--fuse {fuse} and --attention {operators} contradict each other.",
            why=f"--fuse {fuse} runs the attention operators "
            + ("by their ONNX function bodies." if fuse == "none" else "as plugins."),
            fix="Leave one of them out.",
        )
    return wanted


def _calibration(
    int8: bool, images: tuple[Path, ...], ground_truth: tuple[Path, ...], psnr_budget: float | None, recipe: Path | None
) -> Int8Request:
    """The options of a calibration, which are for --int8 only.

    Raises:
        InputError: One was given without, or together with a recipe, which leaves it nothing to do; the recipe is none;
            or see `Int8Request.check`.
    """
    from ..conversion import Int8Request

    idle, known = given("images", "ground_truth", "psnr_budget", "recipe"), None
    if idle and not int8:
        raise InputError(f"{idle[0]} is for calibrating.", fix="Give it together with --int8.")
    if recipe is not None:
        if len(idle) > 1:
            raise InputError(f"--recipe measures nothing: it leaves nothing for {idle[0]} to do.")
        from ..calib import read_recipe  # loads PyTorch, which an engine from the cache does without

        known = read_recipe(recipe)
    calibration = Int8Request(images, ground_truth, psnr_budget, known)
    if int8:
        calibration.check()
    return calibration


def _effort(build: Mapping[str, Any]) -> str:
    """What the engine cost."""
    if build["cached"]:
        return "from the cache"
    memory = build["peak_memory_bytes"]
    return f"built in {build['seconds']:.1f} s" + (f" and {memory / 2**20:.0f} MiB of memory" if memory else "")


def _show(
    terminal: Terminal, artifact: OnnxArtifact, request: BuildRequest, output: Path, memory: Mapping[Profile, int]
) -> None:
    """What would be built, as a table and as JSON."""
    target = request.target_entry
    verdict = target.verdict(plugins=request.use_plugins)
    rows = [
        ("plan", output),
        ("target", target.title),
        ("can be built here", "yes" if verdict.works else f"no: {verdict.why_not}"),
        ("model", artifact.spec.name),
        ("precision", "float32, products in TF32" if request.tf32 else request.precision),
        *(("profile (batch x rows x columns)", profile) for profile in request.profiles),
        *((f"GPU memory of {profile}, at least", f"{least / 2**20:.0f} MiB") for profile, least in memory.items()),
        ("GPUs", ", ".join(request.gpus) or "the one of this machine"),
        ("attention", f"plugins ({request.form})" if request.use_plugins else "ONNX function bodies"),
        ("half blocks", "plugins" if request.fuse_blocks else "ONNX nodes"),
    ]
    terminal.table("Engine", ("what", "value"), rows)
    terminal.result(
        {
            "output": str(output),
            "can_be_built_here": verdict.works,
            "why_not": verdict.why_not,
            "fix": verdict.fix,
            "request": request.to_json(),
            "least_memory_bytes": list(memory.values()),
        }
    )


def _show_audit(terminal: Terminal, audit: Audit) -> None:
    from ..engines.audit.verdict import COLUMNS

    terminal.table("Kernels", COLUMNS, audit.rows())
    for kept in audit.kept:
        kernels = "kernel holds" if kept.count == 1 else "kernels hold"
        terminal.note(f"{kept.count} {kept.kind} {kernels} {kept.precision}: {kept.reason}.")
    for unknown in audit.unknown:
        terminal.note(f"Not known: {unknown}.")
