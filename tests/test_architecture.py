"""The import rule of the rooms, module length, and what `import agileir_export` may cost."""

import ast
import os
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import agileir_export
from agileir_export.plugins import DOMAIN, OPERATORS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "agileir_export"
UPPER, LOWER = (
    ("cli", "commands", "serving", "bundle", "restore", "conversion"),
    ("calib", "parity", "engines", "export"),
)
ROOMS = ("__main__", *UPPER, *LOWER, "models", "plugins")
"""From the top to the bottom: a room imports itself and what stands after it."""
GROUND = ("cache", "images", "json_form", "lazy", "files", "process_memory", "progress", "quiet", "version", "errors")
"""Below every room: what knows nothing of models; each imports only what stands after it."""
ORDER = (*ROOMS, *GROUND)
BESIDE_THE_PACKAGE = {"tests", "benchmarks", "tools", "docs"}
NOT_OURS = {"build", "dist", "demo", "__pycache__"}
NAMES_OF_OURS = {("plugins", "registry"): {"agileir"}, ("models", "state"): {"agileir"}}
"""Where the name of a family is that of our operators' domain and of our metadata."""
MAXIMUM_LINES = 450
# Written in two pieces, so that this file does not hold them.
FORBIDDEN = tuple("/" + rest for rest in ("work/", "root/", "opt/wheels", "opt/pypi", "tmp/venv"))


def files(suffix=""):
    """Every file of the repository, without environments, caches and build products."""
    for folder, below, names in os.walk(ROOT):
        below[:] = [
            name
            for name in below
            if name not in NOT_OURS
            and not name.endswith((".egg-info", "_cache"))
            and name not in (".git", ".hypothesis")
            and not Path(folder, name, "pyvenv.cfg").exists()
        ]
        for name in names:
            if name.endswith(suffix) and name != ".git":  # a file, in a worktree
                yield Path(folder, name)


def module_name(path):
    """`models/swinir.py` is ("models", "swinir"), `models/__init__.py` is ("models",)."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {
    module_name(path): path for path in files(".py") if path.relative_to(ROOT).parts[0] not in BESIDE_THE_PACKAGE
}


def ours(module, tree):
    """What a module imports of this package: pairs of (module imported, line).

    `from . import name` is the module `name` where there is one, else the package itself.
    """
    package = module if MODULES[module].name == "__init__.py" else module[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == PACKAGE:
                    yield tuple(alias.name.split(".")), node.lineno
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                if (node.module or "").partition(".")[0] == PACKAGE:
                    yield tuple(node.module.split(".")), node.lineno
                continue
            base = package[: len(package) - node.level + 1]
            base += tuple((node.module or "").split(".")) if node.module else ()
            for alias in node.names:
                target = (*base, alias.name) if (*base, alias.name) in MODULES else base
                yield target, node.lineno


def imports():
    """(importing module, imported module, "file:line") for every import within the package."""
    for module, path in MODULES.items():
        for target, line in ours(module, ast.parse(path.read_text(encoding="utf-8"))):
            yield module, target, f"{path.relative_to(ROOT)}:{line}"


IMPORTS = list(imports())


def test_every_module_stands_in_a_room():
    strangers = {module[0] for module in MODULES if module} - {*ORDER}
    assert not strangers, f"not in the table of rooms: {sorted(strangers)}"


def test_inside_the_package_imports_are_relative():
    absolute = [place for _, target, place in IMPORTS if target[:1] == (PACKAGE,)]
    assert not absolute, absolute


def test_every_import_names_a_module_that_exists():
    unknown = [(place, ".".join(t)) for _, t, place in IMPORTS if t not in MODULES]
    assert not unknown, unknown


def exported(tree):
    """The names in a module's `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


def test_what_another_module_imports_is_public():
    """A name that crosses a border between modules stands in the `__all__` of the module it comes from."""
    public = {module: exported(ast.parse(path.read_text(encoding="utf-8"))) for module, path in MODULES.items()}
    hidden = set()
    for module, path in MODULES.items():
        package = module if path.name == "__init__.py" else module[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                target = package[: len(package) - node.level + 1] + tuple(filter(None, (node.module or "").split(".")))
                names = {alias.name for alias in node.names if (*target, alias.name) not in MODULES}
                hidden |= {f"{'.'.join(target)}: {name}" for name in names - {*public[target]}}
    assert not hidden, sorted(hidden)


def test_an_import_never_goes_up():
    rank = {place: number for number, place in enumerate((PACKAGE, *ORDER))}  # nothing imports the root
    wrong = set()
    for module, target, place in IMPORTS:
        here, there = (name[0] if name else PACKAGE for name in (module, target))
        if rank.get(there, -1) < rank[here]:
            wrong.add(f"{place}: {here} imports {there}")
    assert not wrong, "\n".join(sorted(wrong))


def test_the_root_imports_nothing_until_it_is_asked():
    """It may name every room, to type checkers and in its table of homes; the way to them is `lazy` alone."""
    root = ast.parse(MODULES[()].read_text(encoding="utf-8"))
    at_once = [node for node in root.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in at_once] == [
        "from __future__ import annotations",
        "from typing import TYPE_CHECKING",
        "from .lazy import lazy_attributes",
    ]
    (for_types,) = (node for node in root.body if isinstance(node, ast.If))
    assert ast.unparse(for_types.test) == "TYPE_CHECKING"
    told = {
        (f".{node.module}", alias.name)
        for node in for_types.body
        for alias in node.names
        if isinstance(node, ast.ImportFrom) and node.level == 1
    }
    assert told == {(home, name) for home, names in agileir_export._HOMES.items() for name in names}
    assert {name for _, name in told} == set(agileir_export.__all__)


def speech(tree):
    """Lines of a module that speak to whoever sits before the terminal."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        called = node.func if isinstance(node, ast.Call) else None
        printed = getattr(called, "id", "") == "print" and not any(given.arg == "file" for given in node.keywords)
        if printed or {name.partition(".")[0] for name in names} & {"click", "rich"}:
            yield node.lineno


def test_only_the_verbs_speak():
    """The library tells `progress` where it is, logs and warns; what a terminal shows of it is for the verbs to say."""
    silent = {module: path for module, path in MODULES.items() if module[:1] not in (("cli",), ("commands",))}
    wrong = [place for module, target, place in IMPORTS if module in silent and target == ("commands", "terminal")]
    for path in silent.values():
        wrong += [f"{path.relative_to(ROOT)}:{line}" for line in speech(ast.parse(path.read_text(encoding="utf-8")))]
    assert not wrong, wrong


def test_no_module_imports_itself_by_a_detour():
    graph = {module: set() for module in MODULES}
    for module, target, _ in IMPORTS:
        if target != module:
            graph[module].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(".".join(module) for module in error.args[1]))


def test_engines_has_room_for_no_more_than_sixteen():
    entries = {path.name for path in (ROOT / "engines").iterdir()} - NOT_OURS
    assert len(entries) <= 16, sorted(entries)


def test_reading_a_plan_imports_no_builder(tmp_path):
    program = f"import sys, {PACKAGE}.engines.tensorrt.plan_loading; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not [name for name in answer.stdout.split() if name.startswith(f"{PACKAGE}.engines.building")]


def test_only_its_own_files_know_a_family():
    """A family's files in models/ begin with its name; the rest goes through the registry."""
    from agileir_export.models import FAMILIES

    def others(module):
        stem = module[1] if module[0] == "models" and len(module) > 1 else ""
        return [family for name, family in FAMILIES.items() if not stem.startswith(name)]

    wrong = []
    for module, path in MODULES.items():
        if not module:
            continue
        names = {name for family in others(module) for name in (family.name, *family.presets)}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in names - NAMES_OF_OURS.get(module, set()):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}")
    for module, target, place in IMPORTS:
        if module != ("models",) and target[:1] == ("models",) and len(target) > 1:  # that one lists the families
            wrong += [f"{place}: {target[1]}" for f in others(module) if target[1].startswith(f.name)]
    assert not wrong, "\n".join(wrong)


FOLDERS = sorted(path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py"))
"""An operator is a folder of `plugins`, named as its torch operator."""


def operator_folder(module):
    """The operator whose folder a module lies in; None elsewhere."""
    return module[1] if module[:1] == ("plugins",) and module[1:2] and module[1] in FOLDERS else None


def shared_modules():
    """Modules that must do with any operator: not the operators' own, and not the networks, made of certain ones."""
    return {m: path for m, path in MODULES.items() if m and not operator_folder(m) and m[0] != "models"}


def test_operators_are_found_by_their_folders():
    assert [operator.torch_name for operator in OPERATORS.values()] == FOLDERS


def test_no_module_names_an_operator_outside_of_its_folder():
    names = "|".join(name for operator in OPERATORS.values() for name in (operator.name, operator.torch_name))
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in shared_modules().values()
        for match in re.finditer(rf"\b({names})", path.read_text(encoding="utf-8"))
    }
    assert not found, sorted(found)


def test_only_networks_import_from_an_operator_and_its_torch_functions_only():
    wrong = [
        f"{place}: {'.'.join(target)}"
        for module, target, place in IMPORTS
        if (folder := operator_folder(target)) and operator_folder(module) != folder
        if module[0] != "models" or target[2:] != ("operator",)
    ]
    assert not wrong, wrong


def test_the_domain_of_the_operators_is_written_once():
    """In `models/` the same word is the name of a family."""
    written = []
    for module, path in shared_modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else getattr(node, "attr", None)
            text = text.decode(errors="replace") if isinstance(text, bytes) else text
            if isinstance(text, str) and (text == DOMAIN or text.startswith(f"{DOMAIN}::")):
                written.append(module)
    assert written == [("plugins", "registry")]


def test_a_module_reads_in_one_sitting():
    lengths = {p.relative_to(ROOT): p.read_bytes().count(b"\n") for p in files(".py")}
    long = {str(path): lines for path, lines in lengths.items() if lines > MAXIMUM_LINES}
    assert not long, f"more than {MAXIMUM_LINES} lines: {long}"


def test_no_file_names_the_machine_it_was_written_on():
    found = []
    for path in files():
        text = path.read_bytes()
        if b"\0" not in text[:8192]:
            found += [(str(path.relative_to(ROOT)), w) for w in FORBIDDEN if w.encode() in text]
    assert not found, found


def test_import_is_light(tmp_path):
    heavy = ("torch", "onnx", "onnxruntime", "onnxscript", "tensorrt", "tensorrt_rtx", "numpy")
    program = f"import sys, {PACKAGE}; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert answer.stdout.split() == []
