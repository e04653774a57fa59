"""Finds every use of TensorRT in a module's source and compares it with what a TensorRT offers.

The walk follows objects: from the names ``trt`` and ``trtp`` (the modules ``tensorrt`` and ``tensorrt.plugin``) through
attributes, calls and assignments, by the return types in an `inventory`. Where the source says nothing (a parameter or
a field annotated ``Any``), `symbol_kinds.OBJECTS` says what a name means; a name it does not know is a problem, so that
nothing escapes. Tests with ``hasattr`` and ``__members__`` are evaluated, and what cannot run with an inventory is not
compared with it.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .symbol_kinds import ASSUMED, FOREIGN, MODULES, NOT_TENSORRT, OBJECTS, PLUGIN_VARIABLES, RETURNS, Inventory, Kind


@dataclass
class Walk:
    """One walk over one module with one inventory."""

    inventory: Inventory
    file: str
    returned: dict[str, Kind] = field(default_factory=dict)
    fields: dict[str, Kind] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    uses: set[str] = field(default_factory=set)
    places: set[tuple[int, str]] = field(default_factory=set)
    optional: set[tuple[str, str]] = field(default_factory=set)
    plugins: bool = False

    def module(self, tree: ast.Module) -> None:
        """Walks twice: what functions return and fields hold is known only after the first time."""
        self.plugins = any(isinstance(node, ast.Name) and node.id == "trtp" for node in ast.walk(tree))
        for _ in range(2):
            self.problems, self.uses = [], set()
            self.block(tree.body, {})

    # ---- statements ----

    def block(self, body: Sequence[ast.stmt], known: dict[str, Kind]) -> bool:
        """Walks statements; whether the end is never reached."""
        return any(self.statement(each, known) for each in body)  # stops at the first that leaves

    def statement(self, node: ast.stmt, known: dict[str, Kind]) -> bool:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.function(node, known)
        elif isinstance(node, ast.ClassDef):
            self.class_definition(node, known)
        elif isinstance(node, ast.If):
            return self.branch(node, known)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self.bind(node.target, self.element(self.kind(node.iter, known)), known)
            self.block([*node.body, *node.orelse], known)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                kind = self.kind(item.context_expr, known)
                if item.optional_vars is not None:
                    self.bind(item.optional_vars, kind, known)
            return self.block(node.body, known)
        elif isinstance(node, ast.Try):
            self.block(node.body, known)
            for handler in node.handlers:
                self.block(handler.body, known)
            self.block([*node.orelse, *node.finalbody], known)
        elif isinstance(node, ast.Match):
            self.kind(node.subject, known)
            for case in node.cases:
                self.block(case.body, known)
        elif isinstance(node, ast.While):
            self.kind(node.test, known)
            self.block([*node.body, *node.orelse], known)
        elif isinstance(node, ast.Assign):
            kind = self.kind(node.value, known)
            for target in node.targets:
                self.assign(target, node.value, kind, known)
        elif isinstance(node, ast.AnnAssign):
            kind = self.kind(node.value, known) if node.value is not None else self.declared(node, known)
            self.assign(node.target, node.value, kind, known)
        elif isinstance(node, ast.Return):
            kind = self.kind(node.value, known)
            function = known.get(" function", ("",))[0]
            self.returned[function] = self.first(kind, self.returned.get(function, FOREIGN))
            return True
        elif isinstance(node, ast.Raise):
            for part in (node.exc, node.cause):
                self.kind(part, known)
            return True
        elif isinstance(node, (ast.Continue, ast.Break)):
            return True
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self.kind(child, known)
        return False

    def branch(self, node: ast.If, known: dict[str, Kind]) -> bool:
        truth = self.truth(node.test, known)
        self.kind(node.test, known)
        leaves = [
            self.block(body, known)
            for body, wanted in ((node.body, True), (node.orelse, False))
            if truth is None or truth is wanted
        ]
        return all(leaves)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, known: dict[str, Kind]) -> None:
        inner = dict(known) | {" function": (node.name,)}
        base = known.get(" base", FOREIGN)
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in every:
            inner[argument.arg] = self.parameter(node, argument, base)
        for extra in (node.args.vararg, node.args.kwarg):
            if extra is not None:
                inner[extra.arg] = FOREIGN
        inner.pop(" base", None)
        self.block(node.body, inner)

    def parameter(self, node: ast.AST, argument: ast.arg, base: Kind) -> Kind:
        name = argument.arg
        if name in MODULES:
            return MODULES[name]
        if name == "self" and base != FOREIGN:
            return ("object", base[-1])
        if argument.annotation is not None and ast.unparse(argument.annotation) != "Any":
            return FOREIGN
        return self.by_name(name, argument)

    def by_name(self, name: str, node: ast.AST) -> Kind:
        """What the convention says of a name of type ``Any``."""
        plain = name.lstrip("_")
        if plain in OBJECTS:
            return ("object", OBJECTS[plain])
        if plain and plain not in NOT_TENSORRT:
            self.problem(node, f"nothing says what {name!r} of type Any is")
        return FOREIGN

    def class_definition(self, node: ast.ClassDef, known: dict[str, Kind]) -> None:
        bases = [self.kind(base, known) for base in node.bases]
        base = next((each for each in bases if each[0] == "class"), FOREIGN)
        inner = dict(known) | {" base": base}
        for each in node.body:
            if base != FOREIGN and isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                self.overrides(each, base)
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                self.fields[each.target.id] = self.first(
                    self.declared(each, inner), self.fields.get(each.target.id, FOREIGN)
                )
                continue
            self.statement(each, inner)
        if base != FOREIGN:
            known[node.name] = base

    def overrides(self, node: ast.FunctionDef, base: Kind) -> None:
        if not self.inventory.has(base, node.name):
            self.problem(node, f"{base[-1]} calls no method {node.name!r}")
            return
        real = self.inventory.classes[base[-1]]["attributes"][node.name].get("signatures", [])
        given = len(node.args.args) - 1
        if real and all(len(each["parameters"]) != given for each in real):
            self.problem(node, f"{base[-1]}.{node.name} receives {len(real[0]['parameters'])} arguments, not {given}")

    def declared(self, node: ast.AnnAssign, known: dict[str, Kind]) -> Kind:
        """What a field or variable that is only annotated is."""
        if ast.unparse(node.annotation) != "Any" or not isinstance(node.target, ast.Name):
            return FOREIGN
        return self.by_name(node.target.id, node)

    def assign(self, target: ast.expr, value: ast.expr | None, kind: Kind, known: dict[str, Kind]) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for one, other in zip(target.elts, value.elts, strict=True):
                self.assign(one, other, self.kind(other, known), known)
            return
        if isinstance(target, ast.Attribute):
            owner = self.kind(target.value, known)
            if owner != FOREIGN:
                self.attribute(target, owner)
                self.settable(target, owner, value)
                return
        self.bind(target, kind, known)

    def bind(self, target: ast.expr, kind: Kind, known: dict[str, Kind]) -> None:
        if isinstance(target, ast.Name):
            assumed = PLUGIN_VARIABLES.get(target.id, FOREIGN) if self.plugins else FOREIGN
            known[target.id] = MODULES.get(target.id) or self.first(kind, assumed)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for each in target.elts:
                self.bind(each, FOREIGN, known)
        elif isinstance(target, ast.Starred):
            self.bind(target.value, FOREIGN, known)
        elif isinstance(target, ast.Attribute):
            name = target.attr
            unknown = name in MODULES or name.lstrip("_") in OBJECTS
            kind = MODULES.get(name) or (("object", OBJECTS[name.lstrip("_")]) if unknown and kind == FOREIGN else kind)
            self.fields[name] = self.first(kind, self.fields.get(name, FOREIGN))
        else:
            self.kind(target, known)

    def settable(self, node: ast.Attribute, owner: Kind, value: ast.expr | None) -> None:
        found = self.inventory.classes.get(owner[-1], {"attributes": {}})["attributes"].get(node.attr, {})
        if found.get("kind") == "property" and not found["settable"]:
            self.problem(node, f"{owner[-1]}.{node.attr} cannot be assigned")
        if isinstance(value, ast.Constant) and type(value.value) is int:
            self.number_for(node, found.get("type", ""), f"{owner[-1]}.{node.attr}")

    # ---- expressions ----

    def kind(self, node: ast.AST | None, known: dict[str, Kind]) -> Kind:
        """What an expression is; reports uses that do not fit."""
        if node is None:
            return FOREIGN
        if isinstance(node, ast.Name):
            return known.get(node.id) or MODULES.get(node.id, FOREIGN)
        if isinstance(node, ast.Attribute):
            owner = self.kind(node.value, known)
            return self.fields.get(node.attr, FOREIGN) if owner == FOREIGN else self.attribute(node, owner)
        if isinstance(node, ast.Call):
            return self.call(node, known)
        if isinstance(node, ast.Subscript):
            self.kind(node.slice, known)
            return self.element(self.kind(node.value, known), subscript=True)
        if isinstance(node, ast.NamedExpr):
            kind = self.kind(node.value, known)
            self.bind(node.target, kind, known)
            return kind
        if isinstance(node, ast.IfExp):
            truth = self.truth(node.test, known)
            self.kind(node.test, known)
            one = FOREIGN if truth is False else self.kind(node.body, known)
            other = FOREIGN if truth is True else self.kind(node.orelse, known)
            return self.first(one, other)
        if isinstance(node, ast.BoolOp):
            return self.boolean(node, known)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            return self.comprehension(node, known)
        if isinstance(node, ast.Lambda):
            inner = dict(known)
            for argument in node.args.args:
                inner[argument.arg] = self.by_name(argument.arg, node)
            self.kind(node.body, inner)
            return FOREIGN
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            kinds = [self.kind(each, known) for each in node.elts]
            return ("list", *kinds[0]) if kinds and kinds[0] != FOREIGN else FOREIGN
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift) and isinstance(node.right, ast.Constant):
            self.problem(node, "a flag is written as a number; its number differs between versions")
        if isinstance(node, ast.Compare):
            self.comparison(node, known)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.expr, ast.keyword, ast.FormattedValue)):
                self.kind(child.value if isinstance(child, ast.keyword) else child, known)
        return FOREIGN

    def boolean(self, node: ast.BoolOp, known: dict[str, Kind]) -> Kind:
        kinds: list[Kind] = []
        for each in node.values:
            kinds.append(self.kind(each, known))
            if self.truth(each, known) is isinstance(node.op, ast.Or):
                break  # the rest is not evaluated
        return next((each for each in kinds if each != FOREIGN), FOREIGN)

    def comprehension(self, node: Any, known: dict[str, Kind]) -> Kind:
        inner = dict(known)
        for generator in node.generators:
            self.bind(generator.target, self.element(self.kind(generator.iter, inner)), inner)
            for test in generator.ifs:
                self.kind(test, inner)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        kinds = [self.kind(each, inner) for each in parts]
        return ("list", *kinds[-1]) if kinds[-1] != FOREIGN else FOREIGN

    def element(self, kind: Kind, subscript: bool = False) -> Kind:
        if kind[0] == "list":
            return kind[1:]
        if kind[0] == "members":
            return ("object", kind[1]) if subscript else FOREIGN
        return FOREIGN

    def attribute(self, node: ast.Attribute, owner: Kind) -> Kind:
        """The attribute of an object of TensorRT's."""
        name = node.attr
        if owner[0] in ("list", "members"):
            return ("callable", "members", name) if owner[0] == "members" else FOREIGN
        if owner[0] == "callable":
            self.problem(node, f"{'.'.join(owner[1:])} is a function and has no attribute {name!r}")
            return FOREIGN
        if owner[0] == "object" and owner[-1] not in self.inventory.classes:
            self.problem(node, f"there is no class {owner[-1]}")
            return FOREIGN
        if name == "__init__" and owner[0] == "class":
            return FOREIGN
        label = {"module": "trt", "plugin": "trtp"}.get(owner[0], owner[-1])
        self.uses.add(f"{label}.{name}")
        self.places.add((node.lineno, name))
        if not self.inventory.has(owner, name):
            self.problem(node, f"there is no {label}.{name}")
            return FOREIGN
        return self.found(owner, name)

    def found(self, owner: Kind, name: str) -> Kind:
        if owner[0] in ("module", "plugin"):
            prefix = "plugin." if owner[0] == "plugin" else ""
            entry = (self.inventory.plugin_names if prefix else self.inventory.names)[name]
            if entry["kind"] == "class":
                return ("class", prefix + name)
            if entry["kind"] == "function":
                return ("callable", owner[0], name)
            return self.inventory.kind_named(entry.get("type", ""))
        if name == "__members__":
            return ("members", owner[-1])
        entry = self.inventory.classes[owner[-1]]["attributes"].get(name, {"kind": "value"})
        if entry["kind"] == "member":
            return ("object", owner[-1])
        if entry["kind"] == "class":
            return ("class", f"{owner[-1]}.{name}")
        if entry["kind"] == "method":
            return ("callable", owner[-1], name)
        return self.inventory.kind_named(entry.get("type", ""))

    # ---- calls ----

    def call(self, node: ast.Call, known: dict[str, Kind]) -> Kind:
        if isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr", "setattr"):
            return self.reflection(node, known)
        function = self.kind(node.func, known)
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            self.kind(argument, known)
        if function[0] == "class":
            self.fits(node, self.inventory.classes[function[-1]]["signatures"], function[-1])
            return ("object", function[-1])
        if function[0] == "callable" and function[1] == "members":
            return FOREIGN
        if function[0] == "callable":
            return self.called(node, function)
        if function[0] == "object" and not function[-1].startswith("plugin."):
            self.problem(node, f"an object of {function[-1]} is called")
        return self.returned.get(node.func.id, FOREIGN) if isinstance(node.func, ast.Name) else FOREIGN

    def called(self, node: ast.Call, function: Kind) -> Kind:
        _, owner, name = function
        tables = {"module": self.inventory.names, "plugin": self.inventory.plugin_names}
        entry = tables[owner][name] if owner in tables else self.inventory.classes[owner]["attributes"][name]
        known = entry.get("signatures", [])
        self.fits(node, known, f"{owner}.{name}")
        if name in RETURNS:
            return ("object", RETURNS[name])
        return next((k for each in known if (k := self.inventory.kind_named(each["returns"])) != FOREIGN), FOREIGN)

    def fits(self, node: ast.Call, signatures: Sequence[Any], label: str) -> None:
        """Whether some signature takes the number and the names of the arguments."""
        if not signatures or any(isinstance(each, ast.Starred) for each in node.args):
            return
        names = [keyword.arg for keyword in node.keywords]
        if None in names:
            return
        matching = []
        for signature in signatures:
            parameters = signature["parameters"]
            rest = parameters[len(node.args) :]
            missing = [name for name, _, default in rest if not default and name not in names]
            if len(node.args) <= len(parameters) and not missing and set(names) <= {name for name, *_ in rest}:
                matching.append(parameters)
        if not matching:
            self.problem(node, f"no signature of {label} takes {ast.unparse(node)}")
        for position, argument in enumerate(node.args):
            if matching and isinstance(argument, ast.Constant) and type(argument.value) is int:
                self.number_for(node, matching[0][position][1], f"{label}, argument {position + 1},")

    def number_for(self, node: ast.AST, kind: str, label: str) -> None:
        if self.inventory.is_enumeration(kind):
            self.problem(node, f"{label} is given a number in place of a name of {kind}")

    def reflection(self, node: ast.Call, known: dict[str, Kind]) -> Kind:
        owner = self.kind(node.args[0], known)
        for argument in node.args[1:]:
            self.kind(argument, known)
        if owner == FOREIGN:
            return FOREIGN
        name = node.args[1]
        assert isinstance(node.func, ast.Name)
        if not isinstance(name, ast.Constant):
            self.problem(node, f"{ast.unparse(node)}: the name must be written out; use __members__ for enumerations")
            return FOREIGN
        self.optional.add((owner[-1], str(name.value)))
        if self.inventory.has(owner, str(name.value)):
            return FOREIGN if node.func.id == "hasattr" else self.found(owner, str(name.value))
        if node.func.id == "getattr" and len(node.args) < 3:
            self.problem(node, f"there is no {owner[-1]}.{name.value}")
        return FOREIGN

    def comparison(self, node: ast.Compare, known: dict[str, Kind]) -> None:
        sides = [node.left, *node.comparators]
        kinds = [self.kind(each, known) for each in sides]
        enumerations = [k[-1] for k in kinds if k[0] == "object" and self.inventory.is_enumeration(k[-1])]
        for side in sides:
            if enumerations and isinstance(side, ast.Constant) and type(side.value) is int:
                self.number_for(node, enumerations[0], ast.unparse(node))

    def truth(self, node: ast.expr, known: dict[str, Kind]) -> bool | None:
        """The value of a test that depends on the inventory alone; None for others."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand, known)
            return None if inner is None else not inner
        if isinstance(node, ast.BoolOp):
            stop = isinstance(node.op, ast.Or)
            values = [self.truth(each, known) for each in node.values]
            return stop if stop in values else None if None in values else not stop
        if ast.unparse(node) in ASSUMED:
            return ASSUMED[ast.unparse(node)] == self.inventory.target
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
            owner = self.kind(node.args[0], known)
            if owner != FOREIGN and isinstance(node.args[1], ast.Constant):
                return self.inventory.has(owner, str(node.args[1].value))
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            table = self.kind(node.comparators[0], known)
            if table[0] == "members" and isinstance(node.left, ast.Constant):
                self.optional.add((table[1], str(node.left.value)))
                return self.inventory.has(table, str(node.left.value)) is isinstance(node.ops[0], ast.In)
        return None

    @staticmethod
    def first(one: Kind, other: Kind) -> Kind:
        return one if one != FOREIGN else other

    def problem(self, node: ast.AST, text: str) -> None:
        self.problems.append(f"{self.file}:{getattr(node, 'lineno', 0)}: {text} ({self.inventory.label})")
