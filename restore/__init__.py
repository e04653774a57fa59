"""Restore: pictures through a runner, files in and files out."""

from .files import Restored, plan_outputs, restore_file, restore_image, restore_pictures, restore_planned
from .memory import MemoryPlan, memory_plan
from .out_of_memory import is_out_of_memory
from .tiled_runner import Room, TiledRunner

__all__ = [
    "MemoryPlan",
    "Restored",
    "Room",
    "TiledRunner",
    "is_out_of_memory",
    "memory_plan",
    "plan_outputs",
    "restore_file",
    "restore_image",
    "restore_pictures",
    "restore_planned",
]
