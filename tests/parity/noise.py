"""Pictures that excite every weight."""

from __future__ import annotations

from agileir_export.models import ModelSpec
from agileir_export.parity import ParityImage

from ..export import networks


def pictures(spec: ModelSpec, *sizes: tuple[int, int]) -> list[ParityImage]:
    """Noise of these sizes, ``noise 0`` and so on."""
    drawn = [networks.images(1, spec.channels, *size, seed=index)[0] for index, size in enumerate(sizes)]
    return [ParityImage(f"noise {index}", pixels) for index, pixels in enumerate(drawn)]
