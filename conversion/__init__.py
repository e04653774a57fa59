"""The road from a model to an ONNX artifact in the precision that is wanted."""

from .conversion import ConversionRequest, Int8Request, convert, export, in_precision

__all__ = ["ConversionRequest", "Int8Request", "convert", "export", "in_precision"]
