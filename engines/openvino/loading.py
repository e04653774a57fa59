"""OpenVINO itself: imported where it is asked for only, and without its telemetry.

``import openvino`` (2026.4) reports to its maker that it was imported, unless a file in the user's home forbids it: the
package `openvino_telemetry`, which every installation brings along, asks nobody. Where that package cannot be imported,
OpenVINO takes a stand-in that does nothing.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from ...cache.facts import installed_version
from ...errors import EnvironmentProblem

__all__ = ["INSTALL", "core", "devices", "load_openvino", "openvino_version"]

INSTALL = "pip install 'agileir-export[openvino]'"
TELEMETRY = "openvino_telemetry"


def openvino_version() -> str:
    """Version of the installed distribution; empty where there is none. Nothing is imported."""
    return installed_version("openvino")


def load_openvino() -> Any:
    """The module `openvino`; what it would report is not reported, in this process.

    Raises:
        EnvironmentProblem: It is not installed, or its libraries cannot be loaded.
    """
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]  # an import of it then raises ImportError
    try:
        import openvino

        openvino.Core  # noqa: B018  # of another module of that name there is none
    except (ImportError, AttributeError) as error:
        why = "" if not openvino_version() else str(error)
        raise EnvironmentProblem(
            f"OpenVINO {'cannot be loaded' if why else 'is not installed'} in {sys.prefix}.", why=why, fix=INSTALL
        ) from error
    return openvino


@cache
def core() -> Any:
    """OpenVINO's entry: one a process.

    Raises:
        EnvironmentProblem: See `load_openvino`.
    """
    return load_openvino().Core()


def devices() -> tuple[str, ...]:
    """The devices that OpenVINO sees, with their names, such as ``"CPU: Intel(R) Xeon(R)"`` and ``"GPU: ..."``.

    Raises:
        EnvironmentProblem: OpenVINO is not installed, or does not answer.
    """
    try:
        return tuple(f"{name}: {core().get_property(name, 'FULL_DEVICE_NAME')}" for name in core().available_devices)
    except RuntimeError as error:
        raise EnvironmentProblem(
            f"OpenVINO {openvino_version()} does not tell its devices: {error}", fix="Install it again."
        ) from error
