"""Restore: pictures through a runner, files in and files out, in tiles where they do not fit."""

from .cluster import restore_on_ray
from .devices import DeviceRunner, restore_on_devices
from .files import FolderOptions, Plan, plan_outputs
from .folder import Restoration, Skipped, restore_pictures, restore_planned
from .memory import MemoryPlan, memory_plan
from .one_picture import Restored, restore_image
from .out_of_memory import is_out_of_memory
from .pipeline import Failed
from .server import ServerAddress, ServerClient, ServerOptions, restore_on_server
from .tiled_runner import PlannedRoom, Room, TiledRunner

__all__ = [
    "DeviceRunner",
    "Failed",
    "FolderOptions",
    "MemoryPlan",
    "Plan",
    "PlannedRoom",
    "Restoration",
    "Restored",
    "Room",
    "ServerAddress",
    "ServerClient",
    "ServerOptions",
    "Skipped",
    "TiledRunner",
    "is_out_of_memory",
    "memory_plan",
    "plan_outputs",
    "restore_image",
    "restore_on_devices",
    "restore_on_ray",
    "restore_on_server",
    "restore_pictures",
    "restore_planned",
]
