"""Restore: pictures through a runner, files in and files out."""

from .files import Restored, plan_outputs, restore_file, restore_image, restore_pictures, restore_planned

__all__ = ["Restored", "plan_outputs", "restore_file", "restore_image", "restore_pictures", "restore_planned"]
