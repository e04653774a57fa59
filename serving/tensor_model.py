"""A runner that calls a tensor model of the same Triton server, from inside the Python backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engines.artifact import EngineArtifact
from ..engines.runner import Images, check_images
from ..engines.tensorrt.fitting import fit_profile
from ..errors import InputError, InternalError
from ..export.artifact import OnnxArtifact
from ..export.exporter import INPUT_NAME, OUTPUT_NAME
from ..images.resizing import pad_to_multiple, pad_to_size
from ..models.spec import ModelSpec

__all__ = ["TensorModelRunner"]


class TensorModelRunner:
    """Restores images through a model that takes float32 ``[B, C, H, W]``; the server's scheduler may batch them.

    Args:
        backend: The module ``triton_python_backend_utils``.
        model: Name of the tensor model.
        artifact: The file that it serves, which says what sizes it takes.
    """

    def __init__(self, backend: Any, model: str, artifact: EngineArtifact | OnnxArtifact) -> None:
        self._backend, self.name, self.artifact = backend, model, artifact

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self.artifact.spec

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        return {"target": "triton", "model": self.name, "sha256": self.artifact.sha256}

    def run(self, images: Images) -> Images:
        """See `Runner.run`.

        Raises:
            InputError: The images do not fit the model.
            InternalError: The tensor model failed.
        """
        check_images(images, self.spec)
        padded, (height, width) = pad_to_multiple(images, self.spec.pad_multiple)
        scale, steps = self.spec.scale, [padded]
        if isinstance(self.artifact, OnnxArtifact) and (step := self.artifact.fixed_sizes.get("batch")):
            steps = [padded[start : start + step] for start in range(0, len(padded), step)]
        if isinstance(self.artifact, EngineArtifact):
            batch, _, rows, columns = padded.shape
            fit = fit_profile(self.artifact.profiles, batch, rows, columns)
            if fit is None:
                raise InputError(f"{height}x{width} pixels are outside every profile of {self.name}.")
            padded = pad_to_size(padded, fit.rows, fit.columns)
            steps = [padded[start : start + fit.step] for start in range(0, batch, fit.step)]
            steps = [
                np.concatenate([step, np.repeat(step[-1:], count - len(step), axis=0)])
                for step, count in zip(steps, fit.chunks(batch), strict=True)
            ]
        found = np.concatenate([self._infer(np.ascontiguousarray(step)) for step in steps])
        return found[: len(images), :, : height * scale, : width * scale]

    def _infer(self, images: Images) -> Images:
        backend = self._backend
        request = backend.InferenceRequest(
            model_name=self.name,
            requested_output_names=[OUTPUT_NAME],
            inputs=[backend.Tensor.from_dlpack(INPUT_NAME, images)],
            preferred_memory=backend.PreferredMemory(backend.TRITONSERVER_MEMORY_CPU),
        )
        response = request.exec()
        if response.has_error():
            raise InternalError(f"The tensor model {self.name} failed: {response.error().message()}")
        tensor = backend.get_output_tensor_by_name(response, OUTPUT_NAME)
        output: Images = np.array(np.from_dlpack(tensor), np.float32)
        return output
