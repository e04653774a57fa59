"""Free sizes where a network allows them, else one fixed size: tried, not believed.

The torch exporter writes a graph with free sizes for networks whose masks or reshapes hold the size it was traced at,
and says nothing of it. So the graph is run at sizes that were not traced, and compared with the network.
"""

from __future__ import annotations

import logging

import numpy as np

from ..engines.onnxruntime.runner import create_session
from ..engines.torch_runner import TorchRunner
from ..errors import InputError, InternalError, Unsupported
from ..export import OnnxArtifact, export_onnx
from ..export.exporter import LEAST_TRACED
from ..models import Restorer
from ..parity.bisection import block_psnr
from ..progress import Progress, silent

__all__ = ["FIXED_SIDE", "export_free_or_fixed"]

LOGGER = logging.getLogger(__name__)

FIXED_SIDE = 192
"""Rows and columns of the only size, where the network's grid allows it; the next multiple of the grid otherwise."""

TRIALS = ((2, (3, 0), (2, 0)), (1, (4, 0), (5, 0)), (3, (2, 1), (3, 3)))
"""Batch, rows and columns of the trials: halves of the shorter side that is traced, and multiples of the network's grid
on top. The first is traced."""

LEAST = 80.0
"""dB at the network's own peak. A batch that was frozen left HAT 30; rounding alone leaves the networks of
docs/coverage.md that hold any floor 88 and more."""


def export_free_or_fixed(
    model: Restorer, *, opset: int, decomposed: bool = False, progress: Progress = silent
) -> OnnxArtifact:
    """A network of a library with free sizes, or fixed where they do not hold; that is logged with the reason.

    Args:
        model: The network.
        opset: See `export_onnx`.
        decomposed: See `export_onnx`.
        progress: Told each step.

    Returns:
        The artifact; the provenance of one with a fixed size says why (``fixed_because``).

    Raises:
        Unsupported: The torch exporter can write it at no size.
        InternalError: See `export_onnx`.
    """
    try:
        artifact = export_onnx(model, opset=opset, decomposed=decomposed)
        progress(f"Trying {model.spec.name} at sizes that were not traced")
        problem = _wrong_size(model, artifact)
    except (Unsupported, InternalError) as error:
        why = f" ({error.why.removesuffix('.')})" if error.why else ""
        problem = f"{error.what.removesuffix('.')} with free sizes{why}"
    if not problem:
        return artifact
    multiple = model.spec.pad_multiple
    side = FIXED_SIDE + -FIXED_SIDE % multiple
    LOGGER.warning(
        "%s is exported for pictures of %dx%d pixels only: %s. Others are padded, or restored in tiles; "
        "--static chooses another size.",
        model.spec.name,
        side,
        side,
        problem,
    )
    progress(f"Exporting {model.spec.name} at {side}x{side}")
    source = model.origin.to_json() if model.origin else {}
    fixed = (side, side)
    return export_onnx(
        model, opset=opset, static=fixed, decomposed=decomposed, source=source | {"fixed_because": problem}
    )


def _wrong_size(model: Restorer, artifact: OnnxArtifact) -> str:
    """Why free sizes do not hold; empty where they do."""
    try:
        session, reference = create_session(artifact.data), TorchRunner(model)
    except InputError as error:
        return f"ONNX Runtime does not take the graph ({error.why or error.what})"
    generator = np.random.default_rng(0)
    multiple = model.spec.pad_multiple
    cell = -(-LEAST_TRACED // multiple) * multiple
    for batch, rows, columns in TRIALS:
        sides = (halves * cell + more * multiple for halves, more in (rows, columns))
        images = generator.random((batch, model.spec.channels, *sides), np.float32)
        expected = reference.run(images)
        shown = f"{batch} picture(s) of {images.shape[2]}x{images.shape[3]}"
        try:
            (found,) = session.run(None, {session.get_inputs()[0].name: images})
        except Exception as error:  # ONNX Runtime has one class for each of its codes, all private
            return f"at {shown} the graph fails ({str(error).splitlines()[0][:200]})"
        if found.shape != expected.shape:
            return f"at {shown} the graph returns {list(found.shape)}"
        quality = block_psnr(expected, found)
        if quality < LEAST:
            return f"at {shown} the graph is {quality:.1f} dB from the network"
    return ""
