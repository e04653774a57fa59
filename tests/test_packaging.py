"""What pyproject.toml promises against what is in the tree. Nothing is built."""

import importlib.metadata
import os
import re
import sys
from pathlib import Path

import pytest

import agileir_export
from agileir_export import version

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
BESIDE_THE_PACKAGE = {"tests", "benchmarks", "tools", "docs", "build", "dist", "demo"}
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages_in_the_tree():
    """Dotted names of the root and of every folder below it that has an `__init__.py`."""
    found = {"agileir_export"}
    for folder, below, files in os.walk(ROOT):
        relative = Path(folder).relative_to(ROOT)
        below[:] = [
            name
            for name in below
            if not name.startswith((".", "__"))
            and not (Path(folder, name) / "pyvenv.cfg").exists()
            and not (relative == Path() and name in BESIDE_THE_PACKAGE)
        ]
        if relative != Path() and "__init__.py" in files:
            found.add(".".join(("agileir_export", *relative.parts)))
    return found


def test_every_package_is_listed_and_every_listed_package_exists():
    listed = CONFIG["tool"]["setuptools"]["packages"]
    assert sorted(listed) == listed
    assert set(listed) == packages_in_the_tree()


def test_no_folder_of_modules_is_without_an_init():
    """Such a folder would work in a checkout and be missing from the wheel."""
    packages = packages_in_the_tree()
    for name in packages:
        folder = ROOT.joinpath(*name.split(".")[1:])
        for below in folder.iterdir():
            if below.is_dir() and below.name not in BESIDE_THE_PACKAGE and not below.name.startswith((".", "__")):
                assert not any(below.glob("*.py")) or f"{name}.{below.name}" in packages, below


def test_every_data_file_of_a_package_is_in_its_package_data():
    """A file that is not Python and that no pattern names would be missing from the wheel."""
    patterns = CONFIG["tool"]["setuptools"]["package-data"]
    packages = packages_in_the_tree()
    assert set(patterns) <= packages
    shipped = {
        path
        for package, globs in patterns.items()
        for pattern in globs
        for path in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    assert ROOT / "py.typed" in shipped
    for room in {name.split(".")[1] for name in packages if "." in name}:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc") and path.name[0] != ".":
                assert path in shipped, path


def test_the_tests_are_not_a_package():
    """With an `__init__.py` the runner would take the root folder's name for the package's."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_version_has_one_source():
    assert CONFIG["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", agileir_export.__version__)
    assert importlib.metadata.version("agileir-export") == agileir_export.__version__


def changelog_problem(text, version):
    """What is wrong with a changelog of a package of this version; empty where nothing is."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    pending = sections.pop("[Unreleased]", "")
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", heading) for heading in sections]
    if not all(released):
        return "a heading is no release with its date"
    numbers = [tuple(map(int, match.groups())) for match in released]
    if numbers != sorted(set(numbers), reverse=True):
        return "the releases are not in order"
    here = tuple(map(int, version.split(".")))
    if numbers and numbers[0] > here:
        return "a release is newer than the package"
    if here not in numbers and "\n- " not in pending:
        return "nothing is written about this version"
    return ""


def test_the_changelog_knows_the_version():
    assert not changelog_problem((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), agileir_export.__version__)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("## [Unreleased]\n\n- New.\n\n## [0.1.0] - 2026-01-01\n\n- Old.\n", ""),
        ("## [0.2.0] - 2026-01-01\n\n- New.\n", ""),
        ("## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n- Old.\n", "nothing is written"),
        ("## [0.1.0] - 2026-01-01\n\n- Old.\n", "nothing is written"),
        ("## [Unreleased]\n\n- New.\n\n## [0.3.0] - 2026-01-01\n", "newer than the package"),
        ("## [0.1.0] - 2026-01-01\n\n## [0.2.0] - 2026-02-01\n", "not in order"),
        ("## [0.2.0]\n\n- New.\n", "no release with its date"),
    ],
)
def test_a_changelog_can_fail(text, problem):
    found = changelog_problem(f"# Changelog\n\n{text}", "0.2.0")
    assert problem in found and bool(problem) is bool(found)


def test_upper_ends_have_a_reason_beside_them():
    """Installing this package downgrades nothing, but where a newer release was seen to break something."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    requirements = [line for line in lists.splitlines() if line.startswith('    "')]
    assert len(requirements) > 25
    for line in requirements:
        if "<" in line or "==" in line.split(";")[0]:
            assert "# " in line, line


def test_the_extras_ask_for_the_releases_that_the_package_names():
    low, high = version.QUICK_PLUGINS, version.TENSORRT_RELEASES[1]
    extras = CONFIG["project"]["optional-dependencies"]
    assert extras["tensorrt"] == ["tensorrt>={}.{}".format(*low)]
    assert f"pip install '{extras['tensorrt'][0]},<{high[0]}'" == version.TENSORRT_INSTALL
    assert [requirement.partition(">=")[0] for requirement in extras["rtx"]] == list(version.RTX_PACKAGES)
    assert set(extras["rtx"]) <= {requirement.partition(";")[0] for requirement in extras["test"]}
