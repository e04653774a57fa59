"""Our options of ``polygraphy run``, which finds them by the entry point group ``polygraphy.run.plugins``.

polygraphy asks for them in every run of any of its tools, ours or not: importing this loads neither PyTorch nor ONNX,
and nothing changes unless an option or a file of ours is given. polygraphy turns its arguments into a script and
executes that; where one of our options is given, the argument group it concerns is told to write our line instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import mmap
import re
import sys
from pathlib import Path
from typing import Any

from polygraphy import config
from polygraphy.logger import G_LOGGER
from polygraphy.tools.args import (
    ComparatorCompareArgs,
    CompareFuncSimpleArgs,
    DataLoaderArgs,
    ModelArgs,
    PluginRefRunnerArgs,
    RunnerSelectArgs,
    TrtConfigArgs,
    TrtLoadEngineBytesArgs,
    TrtLoadPluginsArgs,
)
from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs
from polygraphy.tools.script import make_invocable, safe

from ...errors import AgileIRError
from ...plugins import DOMAIN

__all__ = ["RestorationArgs", "argument_groups"]

HOOKS = f"{__package__}.hooks"
REFERENCES = f"{__package__}.references"

RTX, RTX_BINDINGS = "tensorrt_rtx", "tensorrt_rtx_bindings"


def argument_groups() -> list[Any]:
    """The entry point: argument groups to add to ``polygraphy run``."""
    if getattr(config, "USE_TENSORRT_RTX", False):
        _name_rtx_bindings()
    return [RestorationArgs()]


class RestorationArgs(BaseArgs):  # type: ignore[misc]  # polygraphy has no types
    """Image Restoration: running image restoration models on pictures, judged as pictures.

    Depends on:

        - ModelArgs
        - RunnerSelectArgs
        - DataLoaderArgs
        - ComparatorCompareArgs
        - CompareFuncSimpleArgs
        - PluginRefRunnerArgs
        - TrtConfigArgs
        - TrtLoadEngineBytesArgs
        - TrtLoadPluginsArgs
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options; see `BaseArgs`."""
        self.group.add_argument(
            "--agileir-images",
            nargs="*",
            action="extend",
            metavar="PATH",
            help="Pictures or folders of pictures to run on, padded to what the model takes; "
            "the pictures packaged with agileir-export where no PATH is given. May be repeated.",
        )
        self.group.add_argument(
            "--agileir-size",
            action="append",
            metavar="HxW",
            help="Cut the middle of every picture to rows x columns. Default: the whole picture.",
        )
        self.group.add_argument(
            "--agileir-psnr",
            action="append",
            type=float,
            metavar="DB",
            help="Fail below this PSNR, with the fixed peak 1.0 on outputs clamped to 0..1. Stands in for the "
            "comparison 'simple', the default; others that --compare names are made, too.",
        )
        self.group.add_argument(
            "--agileir-no-plugins",
            action="store_true",
            default=None,
            help="Do not register the TensorRT plugins: TensorRT takes the function bodies in the file.",
        )

    def parse_impl(self, args: Any) -> None:
        """Reads the options and prepares the argument groups they concern.

        Attributes:
            images: Pictures and folders; empty for the packaged samples, None without the option.
            size: (rows, columns) of the crop, or None.
            psnr: Floor in dB, or None.
            plugins: Whether to register TensorRT plugins for our files.
        """
        self.images: list[str] | None = args_util.get(args, "agileir_images")
        self.size = _size(_only(args, "agileir_size"))
        self.psnr: float | None = _only(args, "agileir_psnr")
        self.plugins = not args_util.get(args, "agileir_no_plugins")
        if self.images is not None:
            _refuse_others(args, self.arg_groups[DataLoaderArgs], "--agileir-images", "which are the inputs")
            self._feed_pictures()
        elif self.size is not None:
            G_LOGGER.critical("--agileir-size cuts the pictures of --agileir-images, which is not given.")
        if self.psnr is not None:
            if math.isnan(self.psnr):
                G_LOGGER.critical("--agileir-psnr: a floor of NaN dB cannot be reached.")
            _refuse_others(
                args,
                self.arg_groups[CompareFuncSimpleArgs],
                "--agileir-psnr",
                "which stands in for the comparison 'simple'",
            )
            self._compare_pictures()
        if getattr(config, "USE_TENSORRT_RTX", False):
            self._keep_float32()
        elif self.plugins:
            self._offer_plugins()
        self._offer_python_plugins()
        self._offer_references()

    def _feed_pictures(self) -> None:
        """The data loader becomes `Pictures`."""
        loader, model = self.arg_groups[DataLoaderArgs], self.arg_groups[ModelArgs].path
        if model is None:
            G_LOGGER.critical("--agileir-images needs a model file: its metadata says what pictures it takes.")
        from .hooks import Pictures, polygraphy_errors

        with polygraphy_errors():
            Pictures(model, self.images or (), self.size)  # says now what would fail later

        def add_to_script(script: Any, user_input_metadata_str: Any = None) -> Any:
            del user_input_metadata_str
            script.add_import(imports=["Pictures"], frm=HOOKS)
            return script.set_data_loader(make_invocable("Pictures", model, self.images, size=self.size))

        loader.add_to_script_impl = add_to_script
        loader.is_using_random_data = lambda: False

    def _compare_pictures(self) -> None:
        """The comparison 'simple' becomes `FixedPeakPsnr`, and is made whatever else --compare names."""
        comparison = self.arg_groups[ComparatorCompareArgs]
        if comparison.compare_func_script is not None:
            G_LOGGER.critical("--agileir-psnr cannot be combined with --compare-func-script.")
        if len(list(self.arg_groups[RunnerSelectArgs].runners.keys())) + len(comparison.load_outputs_paths) < 2:
            G_LOGGER.critical("--agileir-psnr has nothing to compare: name two runners, or one and --load-outputs.")
        if hasattr(comparison, "compare_funcs"):
            comparison.compare_funcs = list(dict.fromkeys(("simple", *comparison.compare_funcs)))
        else:  # before polygraphy 0.53 there was one comparison
            comparison.compare_func = "simple"

        def add_to_script(script: Any) -> Any:
            script.add_import(imports=["FixedPeakPsnr"], frm=HOOKS)
            return make_invocable("FixedPeakPsnr", self.psnr)

        self.arg_groups[CompareFuncSimpleArgs].add_to_script_impl = add_to_script

    def _offer_plugins(self) -> None:
        """Reading a file of ours for TensorRT registers the plugins first; TensorRT-RTX has none."""
        group = self.arg_groups[TrtLoadPluginsArgs]
        write = group.add_to_script_impl
        files: list[str] = []

        def add_to_script(script: Any, loader_name: Any) -> Any:
            loader = write(script, loader_name)
            files.append(str(loader))  # polygraphy asks for the file first, then for network and engine made of it
            if str(loader) != files[0] or not self._ours():
                return loader
            script.add_import(imports=["WithPlugins"], frm=HOOKS)
            return script.add_loader(make_invocable("WithPlugins", loader), "with_plugins")

        group.add_to_script_impl = add_to_script

    def _offer_python_plugins(self) -> None:
        """Reading an engine of ours whose plugins are in Python registers them first."""
        group = self.arg_groups[TrtLoadEngineBytesArgs]
        write = group.add_to_script_impl

        def add_to_script(script: Any, *arguments: Any, **keywords: Any) -> Any:
            loader = write(script, *arguments, **keywords)
            target = self._target_of_plugins()
            if target is None:
                return loader
            script.add_import(imports=["WithPythonPlugins"], frm=HOOKS)
            return script.add_loader(make_invocable("WithPythonPlugins", loader, target), "with_python_plugins")

        group.add_to_script_impl = add_to_script

    def _target_of_plugins(self) -> str | None:
        """The target of an engine that needs this package; None for what is no such engine."""
        model = self.arg_groups[ModelArgs]
        if model.model_type != "engine" or not model.path:
            return None
        from ...engines.artifact import read_engine

        try:
            engine = read_engine(model.path)
        except AgileIRError:  # no engine of ours
            return None
        return engine.target if engine.needs_this_package else None

    def _keep_float32(self) -> None:
        """TensorRT-RTX computes a file of ours without TF32 unless --tf32 asks for it, as TensorRT does."""
        group = self.arg_groups[TrtConfigArgs]
        write = group.add_to_script_impl

        def add_to_script(script: Any, *arguments: Any, **keywords: Any) -> Any:
            loader = write(script, *arguments, **keywords)
            if loader is None or group.tf32 or not self._ours():
                return loader
            script.add_import(imports=["WithoutTf32"], frm=HOOKS)
            return script.add_loader(make_invocable("WithoutTf32", loader), "without_tf32")

        group.add_to_script_impl = add_to_script

    def _ours(self) -> bool:
        """Whether the model is an ONNX file that mentions our domain anywhere; searched in place, it can be large."""
        model = self.arg_groups[ModelArgs]
        file = Path(model.path or "")
        if model.model_type != "onnx" or not file.is_file() or file.stat().st_size == 0:
            return False
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(DOMAIN.encode()) >= 0

    def _offer_references(self) -> None:
        """A script with ``--pluginref`` loads the references of our operators."""
        group = self.arg_groups[PluginRefRunnerArgs]
        write = group.add_to_script_impl

        def add_to_script(script: Any) -> None:
            script.append_preimport(safe(f"import {REFERENCES}"))
            write(script)

        if "pluginref" in self.arg_groups[RunnerSelectArgs].runners.keys():  # noqa: SIM118  # not a mapping
            group.add_to_script_impl = add_to_script


def _only(args: Any, name: str) -> Any:
    """The value of an option of ours, None where it is not given; two different ones are refused."""
    values = list(dict.fromkeys(args_util.get(args, name) or [None]))
    if len(values) > 1:
        option, given = f"--{name.replace('_', '-')}", " and ".join(map(str, values))
        G_LOGGER.critical(f"{option} is given as {given}, and a run has one. Give it once.")
    return values[0]


def _refuse_others(args: Any, group: BaseArgs, option: str, reason: str) -> None:
    """Refuses the options of a group of polygraphy's where one of ours would leave them nothing to do."""
    actions = group.group._group_actions  # polygraphy warns of its own idle options by them, too
    idle = [action.option_strings[0] for action in actions if args_util.get(args, action.dest) not in (None, [])]
    if idle:
        G_LOGGER.critical(
            f"{', '.join(idle)} cannot be combined with {option}, {reason}. Leave the one or the other out."
        )


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"0*([1-9]\d*)x0*([1-9]\d*)", text)
    if match is None:
        G_LOGGER.critical(f"--agileir-size: {text!r} is not a size such as 128x96 (rows x columns).")
        return None
    return int(match[1]), int(match[2])


def _name_rtx_bindings() -> None:
    """Lets polygraphy find TensorRT-RTX by its front package's name where only the bindings are installed."""
    if RTX in sys.modules or importlib.util.find_spec(RTX) or not importlib.util.find_spec(RTX_BINDINGS):
        return
    try:
        sys.modules[RTX] = importlib.import_module(RTX_BINDINGS)
    except (ImportError, OSError) as error:
        G_LOGGER.warning(f"TensorRT-RTX's bindings cannot be loaded: {error}")
