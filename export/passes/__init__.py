"""Graph passes: one file each, on onnx-graphsurgeon."""

from .graph_pass import GraphPass, run_passes
from .lower_precision import Conversion, lower_precision
from .name_dimensions import name_dimensions
from .name_tensors import name_tensors

__all__ = [
    "Conversion",
    "GraphPass",
    "lower_precision",
    "name_dimensions",
    "name_tensors",
    "run_passes",
]
