"""The documents as text: lines of prose that a terminal and a diff can show."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
WIDTH = 120


def prose(text):
    """(number, line) of what is neither code nor a table."""
    without_code = re.sub(r"^ *```.*?^ *```$", lambda code: "\n" * code[0].count("\n"), text, flags=re.M | re.S)
    return [(n, line) for n, line in enumerate(without_code.split("\n"), 1) if not line.lstrip().startswith("|")]


def test_code_and_tables_are_no_prose():
    text = "one\n\n```sh\ncode\n```\n\n| table |\n\n- item\n\n  ```\n  code\n  ```\nlast"
    assert [(n, line) for n, line in prose(text) if line] == [(1, "one"), (9, "- item"), (14, "last")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_line_of_prose_is_longer_than_the_code(path):
    long = {number: len(line) for number, line in prose(path.read_text(encoding="utf-8")) if len(line) > WIDTH}
    assert not long, f"{path.name}, wrap at {WIDTH}: {long}"
