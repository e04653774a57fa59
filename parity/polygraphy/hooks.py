"""What a run of polygraphy uses of us: pictures as inputs, PSNR with a fixed peak, our TensorRT plugins.

The scripts that ``polygraphy run`` makes and executes (or saves, with ``--gen-script``) call these by name.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.logger import G_LOGGER

from ...engines.runner import Images
from ...errors import AgileIRError, InputError
from ...export.artifact import OnnxArtifact, read_artifact
from ...images.files import list_images, sample_images
from ..images import load_images
from ..metrics import psnr
from ..ranges import padded

__all__ = [
    "FixedPeakPsnr",
    "Pictures",
    "WithPlugins",
    "WithPythonPlugins",
    "WithoutTf32",
    "fixed_size",
    "input_name",
    "polygraphy_errors",
]

WHOLE = (1 << 30, 1 << 30)
"""A crop that no picture exceeds."""


@contextmanager
def polygraphy_errors() -> Iterator[None]:
    """Hands our errors to polygraphy, which prints them without a traceback and exits with 1."""
    try:
        yield
    except AgileIRError as error:
        G_LOGGER.critical(str(error))


def fixed_size(artifact: OnnxArtifact) -> tuple[int, int] | None:
    """(rows, columns) that a file was exported for; None where any size will do."""
    fixed = artifact.fixed_sizes
    return (fixed["height"], fixed["width"]) if {"height", "width"} <= set(fixed) else None


def input_name(artifact: OnnxArtifact) -> str:
    """Name of its only input."""
    return str(artifact.model.graph.input[0].name)


class Pictures:
    """A data loader of polygraphy: real pictures in the form that an exported file takes.

    Iterating gives one ``{input name: float32 [1, C, H, W] in 0..1}`` per picture, in the model's channels, padded by
    mirroring to the model's multiple. One picture is in memory at a time.

    Args:
        model: Exported file, or its artifact; its metadata tells channels and multiple.
        paths: Image files and folders; the packaged samples where empty.
        size: (rows, columns) to cut the middle of every picture to; where None the file's fixed size, or the whole
            picture.

    Raises:
        OnnxFileError: The model is not one of our files.
        ImageError: A path does not exist, or a folder has no image.
    """

    def __init__(
        self, model: OnnxArtifact | str | Path, paths: Sequence[str | Path] = (), size: tuple[int, int] | None = None
    ) -> None:
        self.artifact = model if isinstance(model, OnnxArtifact) else read_artifact(model)
        self.files = list_images(paths) if paths else [path for _, path in sample_images()]
        self.fixed = fixed_size(self.artifact)
        self.size = size or self.fixed or WHOLE

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[dict[str, Images]]:
        name = input_name(self.artifact)
        with polygraphy_errors():
            for file in self.files:
                pixels = self.read(file)
                G_LOGGER.info(f"Picture {file}: {name} {list(pixels.shape)}")
                yield {name: pixels}

    def read(self, file: Path) -> Images:
        """One picture, float32 ``[1, C, H, W]``, H and W multiples of the model's.

        Raises:
            ImageError: The file cannot be read.
            InputError: The file was exported for another size.
        """
        (image,) = load_images(self.artifact.spec, [file], [self.size])
        given = padded(self.artifact, image)
        if self.fixed not in (None, given.shape[2:]):
            height, width = self.fixed
            raise InputError(
                f"{self.artifact.name} was exported for {height}x{width} pixels, {file} gives "
                f"{given.shape[2]}x{given.shape[3]}.",
                fix="Take pictures of at least that size, or export without --static.",
            )
        return np.ascontiguousarray(given)


class FixedPeakPsnr:
    """A comparison function of polygraphy: `psnr` with peak 1.0 on outputs clamped to 0..1.

    polygraphy's own PSNR takes the largest value of the first output for the peak, so that a dark picture gets a
    lower figure than a bright one for the same error.

    Args:
        floor: dB that every output must reach; NaN or infinity in an output never does.
    """

    def __init__(self, floor: float) -> None:
        self.floor = floor

    def __call__(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> OrderedDict[str, bool]:
        """Verdict by output name, for two ``IterationResult`` of image outputs ``[B, C, H, W]``."""
        return OrderedDict((name, self._passes(name, output, second)) for name, output in first.items())

    def _passes(self, name: str, output: Any, second: Mapping[str, Any]) -> bool:
        if name not in second:
            G_LOGGER.error(f"FAILED | Output: '{name}' | The other runner has no such output: {list(second)}")
            return False
        try:
            value = psnr(np.asarray(output), np.asarray(second[name]))
        except ValueError as error:
            G_LOGGER.error(f"FAILED | Output: '{name}' | {error}")
            return False
        passed = value >= self.floor
        verdict = "PASSED" if passed else "FAILED"
        log = G_LOGGER.finish if passed else G_LOGGER.error
        log(f"{verdict} | Output: '{name}' | PSNR (peak 1.0): {value:.2f} dB, at least {self.floor:g} dB")
        return passed


class WithPlugins:
    """A loader of polygraphy: registers our TensorRT plugins, then gives the file in the form that they take.

    Where they cannot be registered, a warning says why, and TensorRT takes the function bodies of the same file.

    Args:
        inner: Path of the file, or a loader that gives its bytes.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Bytes of a model or a path, as `inner` gives; the path is of a temporary file, there as long as this is."""
        from ...plugins import register_tensorrt

        given = self.inner(*arguments, **keywords) if callable(self.inner) else self.inner
        try:
            register_tensorrt()
        except AgileIRError as error:
            G_LOGGER.warning(f"The function bodies are used instead of the TensorRT plugins: {error}")
            return given
        import onnx

        from ...plugins.engine_files import engine_form

        if isinstance(given, bytes):
            return engine_form(onnx.load_from_string(given), Path()).SerializeToString()
        self._folder = tempfile.TemporaryDirectory(prefix="agileir-polygraphy-")
        made = Path(self._folder.name, Path(given).name)
        onnx.save(engine_form(onnx.load(given), Path(given).parent), made)
        return str(made)


class WithPythonPlugins:
    """A loader of polygraphy: registers the plugins that an engine of ours does not run without, then gives its bytes.

    Args:
        inner: The loader of the bytes.
        target: The engine's target.
    """

    def __init__(self, inner: Any, target: str) -> None:
        self.inner, self.target = inner, target

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """What `inner` gives."""
        from ...engines.targets import TARGETS, load_target
        from ...plugins import register_python_plugins

        with polygraphy_errors():
            register_python_plugins(load_target(TARGETS[self.target]))
        return self.inner(*arguments, **keywords)


class WithoutTf32:
    """A loader of polygraphy: the builder configuration of `inner`, with float32 products in float32.

    For TensorRT polygraphy does so unless ``--tf32`` is given; for TensorRT-RTX it leaves TF32 on, and has no option.

    Args:
        inner: The loader of the configuration.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """The configuration."""
        from polygraphy.mod.trt_importer import lazy_import_trt

        configuration = self.inner(*arguments, **keywords)
        configuration.clear_flag(lazy_import_trt().BuilderFlag.TF32)
        return configuration
