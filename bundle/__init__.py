"""Bundles: one folder with everything a deployment needs."""

from .bundle import Bundle, write_bundle

__all__ = ["Bundle", "write_bundle"]
