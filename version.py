"""Versions: this package's, and those of NVIDIA's products that it is made for; each is named here only."""

__all__ = ["RTX_INSTALL", "RTX_PACKAGES", "TENSORRT_INSTALL", "TENSORRT_RELEASES", "__version__"]

__version__ = "0.1.0"

TENSORRT_RELEASES = ((10, 12), (12, 0))
"""Releases of TensorRT: from the first (strong typing, plugins preferred to function bodies), below the second."""

TENSORRT_INSTALL = "pip install 'tensorrt>={}.{},<{}'".format(*TENSORRT_RELEASES[0], TENSORRT_RELEASES[1][0])

RTX_PACKAGES = ("tensorrt_rtx_cu13_libs", "tensorrt_rtx_cu13_bindings")
"""The wheels of TensorRT-RTX."""

RTX_INSTALL = f"pip install {' '.join(RTX_PACKAGES)}"
