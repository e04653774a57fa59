"""The public names and how they are called, whoever imports them depends on every line: tests/public_api.txt.

``python tests/test_public_api.py > tests/public_api.txt`` writes the file again where a change is meant.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import agileir_export


def described(name: str) -> str:
    """A public name, what it returns, then its parameters, a line each: without the quotes of annotations."""
    signature = inspect.signature(getattr(agileir_export, name))
    returned = "" if inspect.isclass(getattr(agileir_export, name)) else f" -> {signature.return_annotation}"
    lines, previous = [f"{name}{returned}"], None
    for parameter in signature.parameters.values():
        if parameter.kind == parameter.KEYWORD_ONLY != previous:
            lines.append("    *")
        previous = parameter.kind
        plain = str(parameter.replace(annotation=inspect.Parameter.empty))
        title, _, default = re.sub(r"<function (\w+) at \w+>", r"\1", plain).partition("=")
        lines.append(f"    {title}: {parameter.annotation}" + (f" = {default}" if default else ""))
    return "\n".join(lines)


def all_described() -> str:
    """Every public name that can be called, a paragraph each."""
    return "\n\n".join(described(name) for name in agileir_export.__all__ if name != "__version__")


def test_names_and_signatures_are_frozen() -> None:
    frozen = Path(__file__).with_name("public_api.txt").read_text(encoding="utf-8").strip().split("\n\n")
    found = all_described().split("\n\n")
    changed = ["- " + text for text in frozen if text not in found] + [
        "+ " + text for text in found if text not in frozen
    ]
    assert not changed, "\n".join(["other than in public_api.txt:", *changed])
    assert found == frozen
    assert isinstance(agileir_export.__version__, str)


def test_the_root_shows_its_names_and_no_others() -> None:
    assert sorted(agileir_export.__all__) == agileir_export.__all__
    assert set(agileir_export.__all__) <= set(dir(agileir_export))
    with pytest.raises(AttributeError, match="no attribute 'expotr'"):
        _ = agileir_export.expotr


if __name__ == "__main__":
    print(all_described())
