"""The picture model: bytes of a picture in, bytes of the restored one out, by the road that `restore` takes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.runner import Runner
from ..errors import AgileIRError, EnvironmentProblem, ImageError, ImageTooLarge, OutputError
from ..images.codecs import size_of as size_told
from ..images.files import IMAGE_SUFFIXES, QUALITY_SUFFIXES, check_side
from ..images.signatures import suffix_of
from ..images.spectral import TIFF_SUFFIXES
from ..progress import Progress, silent
from ..restore.journal import runner_key
from ..restore.memory import on_gpu
from ..restore.one_picture import decode_picture, encode_picture, is_spectral, restore_picture, size_of
from ..restore.pipeline import picture_bytes, pictures_room
from ..restore.seams import SEAM_PSNR
from ..restore.tiled_runner import PlannedRoom, Tile, TiledRunner
from ..restore.tiling import taken_sizes
from ..restore.wire import ABOUT, FORMAT, PARAMETERS, QUALITY, RESTORED, CodedError
from ..version import __version__
from .batching import SharedRunner
from .limits import Limits, RefusedRequest, Waiting, fitting_limits, stop_check

__all__ = ["Answer", "PictureRequest", "PictureService", "ServiceOptions"]

LOG = logging.getLogger(__name__)

AT_ONCE = 8
"""Pictures in work at once: read, in the network, written. The network runs one batch at a time."""

TOGETHER, TRIAL = 8, 64
"""Tiles that go together on a GPU; and pixels a side of the trial that says whether they come out as they do alone."""


@dataclass(frozen=True)
class ServiceOptions:
    """How a service restores.

    Attributes:
        tile: See `TiledRunner`, as the following.
        overlap: Pixels that tiles share.
        seam_psnr: dB at the seams.
        memory: Most bytes that the process may hold; None for all that is free.
        together: Tiles of one size that go through the network together at most, where a trial finds that this changes
            no bit; None for `TOGETHER` on a GPU, and 1 on a CPU, which is no faster with more (docs/serving.md).
        at_once: Pictures in work at once.
        limits: Of a request.
        called: The runner calls another model of the server: that may not be there yet, and batches by itself.
    """

    tile: Tile = "auto"
    overlap: int | None = None
    seam_psnr: float = SEAM_PSNR
    memory: int | None = None
    together: int | None = None
    at_once: int = AT_ONCE
    limits: Limits = field(default_factory=Limits)
    called: bool = False


@dataclass(frozen=True)
class PictureRequest:
    """What a client sends.

    Attributes:
        data: The picture's file.
        parameters: See `wire.PARAMETERS`.
        wanted: Names of the tensors to answer with.
        cancelled: Whether the client has gone.
    """

    data: bytes
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wanted: Collection[str] = (RESTORED, ABOUT)
    cancelled: Callable[[], bool] = lambda: False


Answer = Mapping[str, bytes] | CodedError
"""Bytes by the name of the tensor, or an error."""


class PictureService:
    """Restores pictures for requests.

    Args:
        runner: What restores; `restore` with the same options gives the same bytes.
        options: How.
        progress: Told what is measured beforehand.

    Raises:
        EnvironmentProblem: The memory holds no picture.
        InputError: A tile or an overlap that is no size.
    """

    def __init__(self, runner: Runner, options: ServiceOptions, progress: Progress = silent) -> None:
        spec = runner.spec
        room = PlannedRoom(runner, options.memory, progress)
        self.limits = fitting_limits(options.limits, room, spec.scale, spec.pad_multiple, options.memory)
        together = options.together or (TOGETHER if on_gpu(runner) else 1)
        together = together if together > 1 and not options.called and _may_go_together(runner, together) else 1
        self._network = SharedRunner(runner, together, options.at_once if options.called else 1)
        tiles = options.tile, options.overlap, options.seam_psnr
        self._runner = TiledRunner(self._network, *tiles, room, progress=progress)
        side = int(self.limits.pixels**0.5)
        if not options.called:
            self._runner.plan(side, side)  # what it has to measure for the largest picture is measured now
        self._waiting = Waiting(pictures_room(options.memory))
        self._pool = ThreadPoolExecutor(options.at_once, "picture")
        self._about = {
            "model": spec.name,
            "version": __version__,
            "key": runner_key(self._runner),
            "spec": spec.to_json(),
            "runner": runner.describe(),
            "limits": self.limits.to_json(),
            "together": together,
            "formats": [suffix[1:] for suffix in self._suffixes],
        }

    @property
    def about(self) -> dict[str, Any]:
        """The model as a JSON object: ``key`` tells whether another makes the same pixels."""
        return {**self._about, "went_together": self._network.shared}

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return TIFF_SUFFIXES if is_spectral(self._runner.spec) else IMAGE_SUFFIXES

    def answer(self, requests: Sequence[PictureRequest]) -> list[Answer]:
        """Answers requests, in their order; one that cannot be done does not touch the others."""
        if len(requests) == 1:
            return [self._answer(requests[0])]
        return list(self._pool.map(self._answer, requests))

    def close(self) -> None:
        """Ends when what is in work is done."""
        self._pool.shutdown()
        self._network.close()

    def _answer(self, request: PictureRequest) -> Answer:
        try:
            if set(request.wanted) == {ABOUT}:
                return {ABOUT: json.dumps(self.about).encode()}
            data, about = self._restored(request)
        except RefusedRequest as error:
            return error.coded
        except AgileIRError as error:
            return _coded(error)
        except Exception:
            LOG.exception("A request failed")
            return CodedError("internal", "The server could not restore this picture; its log says why.")
        answers = {RESTORED: data, ABOUT: json.dumps(about).encode()}
        return {name: answers[name] for name in request.wanted}

    def _restored(self, request: PictureRequest) -> tuple[bytes, dict[str, Any]]:
        """The restored file, and what there is to say about it."""
        stop = stop_check(self.limits.seconds, request.cancelled)
        self.limits.check_bytes(len(request.data))
        suffix, quality = self._asked(request)
        output, spec = Path(f"restored{suffix}"), self._runner.spec
        rows, columns = size_told(BytesIO(request.data)) or (0, 0)  # where the file does not tell, decoding will
        self._check_pixels(rows, columns)
        check_side(output, rows * spec.scale, columns * spec.scale)
        with self._waiting.held_for(picture_bytes(rows * columns, spec.scale), stop), self._network.asking(stop):
            start = time.perf_counter()
            picture = decode_picture(request.data, "the picture", spec, self.limits.pixels)
            size = size_of(picture)
            restored = restore_picture(self._runner, picture, output)
            del picture
            data, lost = encode_picture(output, restored, quality)
            return data, {
                "format": suffix[1:],
                "size_in": size,
                "size_out": size_of(restored),
                "seconds": round(time.perf_counter() - start, 4),
                "lost": lost,
            }

    def _asked(self, request: PictureRequest) -> tuple[str, int | None]:
        """Suffix and quality of the file that is wanted."""
        for name in request.parameters:
            if name not in PARAMETERS:
                _refuse(f"There is no parameter {str(name)[:40]!r}: there are {' and '.join(PARAMETERS)}.")
        suffix = suffix_of(request.data)
        suffix = suffix if suffix in self._suffixes else self._suffixes[0]
        if FORMAT in request.parameters:
            suffix = f".{str(request.parameters[FORMAT]).lower().removeprefix('.')}"
        if suffix not in self._suffixes:
            known = ", ".join(each[1:] for each in self._suffixes)
            _refuse(f"{suffix[1:40]!r} is no format that is written: there are {known}.")
        quality = request.parameters.get(QUALITY)
        if quality is None:
            return suffix, None
        if not str(quality).isdecimal() or not 1 <= int(quality) <= 100:
            _refuse(f"A quality is a whole number from 1 to 100, not {str(quality)[:40]!r}.")
        if suffix not in QUALITY_SUFFIXES:
            _refuse(f"{suffix[1:]} knows no quality: it is lossless.")
        return suffix, int(quality)

    def _check_pixels(self, rows: int, columns: int) -> None:
        if rows * columns > self.limits.pixels:
            text = f"The picture has {columns}x{rows} pixels, and {self.limits.pixels} are taken at most."
            raise RefusedRequest("limit.pixels", text)


def _refuse(text: str) -> None:
    raise RefusedRequest("input.parameter", text)


def _coded(error: AgileIRError) -> CodedError:
    """An error for a client: those about the picture as they are; of others nothing that speaks of this machine."""
    if isinstance(error, ImageTooLarge):
        return CodedError("limit.pixels", error.what)
    if isinstance(error, ImageError | OutputError):
        return CodedError(error.code, str(error))
    LOG.error("A request failed: %s", error, exc_info=True)
    if isinstance(error, EnvironmentProblem):
        return CodedError("environment", "There is no memory for a picture of this size at present.")
    return CodedError("internal", "The server could not restore this picture; its log says why.")


def _may_go_together(runner: Runner, together: int) -> bool:
    """Whether images in one batch come out bit for bit as they do alone: a trial on noise, of a size that is taken."""
    sizes = taken_sizes(runner)
    side = TRIAL + -TRIAL % runner.spec.pad_multiple
    _, rows, columns = sizes[0].optimum if sizes else (1, side, side)
    images = np.random.default_rng(0).random((min(together, 4), runner.spec.channels, rows, columns), np.float32)
    singly = np.concatenate([runner.run(images[i : i + 1]) for i in range(len(images))])
    return bool(np.array_equal(runner.run(images), singly))
