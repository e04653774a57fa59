"""PyTorch as a target: the reference of every comparison."""

from __future__ import annotations

import platform
from typing import Any

import torch

from ..models import ModelSpec, Restorer
from ..process_memory import give_back_large_blocks
from .runner import Images, check_images

__all__ = ["TorchRunner"]


class TorchRunner:
    """Runs a model in PyTorch, eagerly; on a CPU, freed tensors go back to the system (`give_back_large_blocks`).

    Args:
        model: The model, used as it is.
        device: Torch device name.
    """

    def __init__(self, model: Restorer, device: str = "cpu") -> None:
        self.model = model.to(device).eval()
        self.device = device
        if device == "cpu":
            give_back_large_blocks()

    def __reduce__(self) -> tuple[Any, ...]:
        return TorchRunner, (self.model, self.device)

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self.model.spec

    def run(self, images: Images) -> Images:
        """See `Runner.run`."""
        check_images(images, self.spec)
        with torch.no_grad():
            output = self.model(torch.from_numpy(images).to(self.device))
        result: Images = output.float().cpu().numpy()
        return result

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        return {
            "target": "torch",
            "version": torch.__version__,
            "device": self.device,
            "machine": platform.machine(),
        }
