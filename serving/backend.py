"""The picture model inside Triton's Python backend: this module is what its ``model.py`` imports.

Under numpy 2 the backend's own conversions to and from NumPy are wrong in releases up to 2.51 at least (a stride of 0):
tensors are handed over by DLPack.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.picture_model import PictureSettings
from ..engines.artifact import is_engine, read_engine
from ..engines.cuda_driver import probe_gpu
from ..engines.opening import open_runner
from ..engines.runner import Runner
from ..errors import AgileIRError, InputError
from ..export.artifact import read_artifact
from ..restore.wire import PICTURE, CodedError
from .alive import FOLDER, Sign, sign_path
from .limits import Limits
from .pictures import Answer, PictureRequest, PictureService, ServiceOptions
from .tensor_model import TensorModelRunner

__all__ = ["TritonPythonModel"]

VISIBLE = "CUDA_VISIBLE_DEVICES"

KINDS = {"input": "INVALID_ARG", "limit": "INVALID_ARG", "cancelled": "CANCELLED", "environment": "UNAVAILABLE"}
"""Triton's kind of error by the first part of a code word; limit.time and internal have kinds of their own."""


class TritonPythonModel:
    """What the backend makes of the model, once an instance."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Opens the runner.

        Args:
            args: Of the backend: ``model_config`` (JSON), ``model_repository`` (the model's folder), and the instance.
        """
        import triton_python_backend_utils as backend

        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="agileir-export: %(message)s")
        sys.unraisablehook = _without_capsules
        self._backend = backend
        config = json.loads(args["model_config"])
        settings = PictureSettings.of_config(config)
        folder = os.environ.get(FOLDER)
        self._sign = Sign(sign_path(folder, settings.generation)) if folder else None
        try:
            runner = self._open(args, settings)
            options = ServiceOptions(
                settings.tile_choice,
                settings.overlap,
                settings.seam_psnr,
                settings.memory,
                settings.together,
                max(int(config["max_batch_size"]), 1),
                Limits(settings.pixels, settings.bytes, settings.seconds),
                called=isinstance(runner, TensorModelRunner),
            )
            self._service = PictureService(runner, options, lambda step, *_: logging.info("%s", step))
        except AgileIRError as error:
            if self._sign:
                self._sign.tell({"error": error.to_json()})
            raise
        if self._sign:
            self._sign.tell(self._service.about)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers requests; see `PictureService.answer`."""
        backend = self._backend
        asked = [
            PictureRequest(
                np.from_dlpack(backend.get_input_tensor_by_name(request, PICTURE)).tobytes(),
                json.loads(request.parameters() or "{}"),
                request.requested_output_names(),
                request.is_cancelled,
            )
            for request in requests
        ]
        return [self._response(answer) for answer in self._service.answer(asked)]

    def finalize(self) -> None:
        """Ends what runs."""
        self._service.close()

    def _open(self, args: Mapping[str, str], settings: PictureSettings) -> Runner:
        """The runner that the settings want: in this process, or a tensor model of the same server."""
        models, runtime = Path(args["model_repository"]).parent, settings.runtime
        gpu = args["model_instance_kind"] == "GPU"
        if gpu:
            seen = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
            number = args["model_instance_device_id"]
            os.environ[VISIBLE] = seen[int(number)] if seen else number
            runtime = "tensors" if runtime == "auto" else runtime
        if runtime == "tensors":
            file = _chosen(settings, models) if gpu and settings.plans else settings.onnx
            name = settings.tensors or Path(file).parts[0]
            artifact = read_engine(models / file) if is_engine(file) else read_artifact(models / file)
            return TensorModelRunner(self._backend, name, artifact)
        if runtime == "plan":
            return open_runner(models / _chosen(settings, models))
        return open_runner(models / settings.onnx, runtime=runtime)

    def _response(self, answer: Answer) -> Any:
        backend = self._backend
        if isinstance(answer, CodedError):
            kind = KINDS.get(answer.code.partition(".")[0], "INTERNAL")
            kind = "UNAVAILABLE" if answer.code == "limit.time" else kind
            return backend.InferenceResponse(error=backend.TritonError(str(answer), getattr(backend.TritonError, kind)))
        tensors = [
            backend.Tensor.from_dlpack(name, np.frombuffer(bytearray(data), np.uint8)[None])
            for name, data in answer.items()
        ]
        return backend.InferenceResponse(tensors)


def _chosen(settings: PictureSettings, models: Path) -> str:
    """The first plan for the GPU that is here.

    Raises:
        InputError: There is none.
    """
    if not settings.plans:
        raise InputError("The repository has no plan to run.", fix="Bundle one: agileir-export bundle --engine PLAN.")
    here = {"sm{}{}".format(*device.compute_capability) for device in probe_gpu().devices}
    for plan in settings.plans:
        gpus = read_engine(models / plan).gpus
        if not gpus or not here or here & {*gpus}:
            return plan
    raise InputError(f"No plan of the repository is for {', '.join(sorted(here))}.", fix="Build one for this GPU.")


def _without_capsules(unraisable: Any) -> None:
    """Python's own hook, but for what the backend provokes with every tensor it takes from numpy 2, to no harm.

    It renames DLPack's capsule to a name that numpy does not know for a used one.
    """
    if "PyCapsule_GetPointer called with incorrect name" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)
