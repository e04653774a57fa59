"""Engines: the targets a model runs on, behind one `Runner` protocol."""

from typing import TYPE_CHECKING

from ..lazy import lazy_attributes
from .doctor import diagnose
from .onnxruntime.runner import OnnxRuntimeRunner, create_session, faithful_session
from .openvino.runner import OpenVinoRunner
from .runner import Images, Runner, check_images
from .tensorrt.runner import TensorRTRunner

if TYPE_CHECKING:
    from .torch_runner import TorchRunner

__all__ = [
    "Images",
    "OnnxRuntimeRunner",
    "OpenVinoRunner",
    "Runner",
    "TensorRTRunner",
    "TorchRunner",
    "check_images",
    "create_session",
    "diagnose",
    "faithful_session",
]

__getattr__ = lazy_attributes(__name__, {"TorchRunner": ".torch_runner"})
