"""Versions: this package's, and those of NVIDIA's products that it is made for; each is named here only."""

__all__ = ["QUICK_PLUGINS", "RTX_INSTALL", "RTX_PACKAGES", "TENSORRT_INSTALL", "TENSORRT_RELEASES", "__version__"]

__version__ = "0.1.0"

TENSORRT_RELEASES = ((10, 4), (12, 0))
"""Releases of TensorRT: from the first, below the second. The bindings of 10.0 to 10.3 ended the process, over the
runtime of 10.15, once a plugin written in Python was freed."""

QUICK_PLUGINS = (10, 12)
"""First release for quickly deployable plugins (strong typing, plugins preferred to function bodies), and the oldest
that we have people install; before it, plugins are those in Python."""

TENSORRT_INSTALL = "pip install 'tensorrt>={}.{},<{}'".format(*QUICK_PLUGINS, TENSORRT_RELEASES[1][0])

RTX_PACKAGES = ("tensorrt_rtx_cu13_libs", "tensorrt_rtx_cu13_bindings")
"""The wheels of TensorRT-RTX."""

RTX_INSTALL = f"pip install {' '.join(RTX_PACKAGES)}"
