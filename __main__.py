"""``python -m agileir_export``: the command line where the scripts of an environment are not on the path."""

from __future__ import annotations

from .cli import main

main(prog_name="agileir-export")
