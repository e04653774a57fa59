"""Restore: pictures through a runner, files in and files out."""

from .files import Restored, plan_outputs, restore_file, restore_image

__all__ = ["Restored", "plan_outputs", "restore_file", "restore_image"]
