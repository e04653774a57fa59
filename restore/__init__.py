"""Restore: pictures through a runner, files in and files out."""

from .files import Restored, plan_outputs, restore_file, restore_image, restore_pictures, restore_planned
from .tiled_runner import Room, TiledRunner

__all__ = [
    "Restored",
    "Room",
    "TiledRunner",
    "plan_outputs",
    "restore_file",
    "restore_image",
    "restore_pictures",
    "restore_planned",
]
