"""The mutants of a module: copies that each differ from it in one small way."""

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,  # codespell:ignore notin
    ast.NotIn: ast.In,  # codespell:ignore notin
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "and_": "or_", "or_": "and_"}

CLAUSES = {
    "where",
    "order_by",
    "limit",
    "desc",
    "distinct",
    "with_for_update",
    "on_conflict_do_nothing",
}
"""Methods of a statement of SQLAlchemy, which is also one without them."""


@dataclass(frozen=True)
class Mutant:
    """One change of a file.

    Attributes:
        path: The file, relative to the repository.
        scope: The function or class, such as `Batcher.put`; empty for the module.
        lines: The lines of what is changed, and the first one of its statement.
        start: Where it begins in the file, in bytes.
        end: Where it ends.
        before: What it says.
        after: What the mutant says instead.
        occurrence: How many equal changes of the same function come before it.
    """

    path: str
    scope: str
    lines: frozenset[int]
    start: int
    end: int
    before: str
    after: str
    occurrence: int

    @property
    def name(self) -> str:
        """It stays when other functions change, so that later runs try the same mutants."""
        return f"{self.path} {self.scope} {self.occurrence}: {self.before} -> {self.after}"

    def rank(self, seed: int) -> str:
        """Return what samples are ordered by."""
        return hashlib.sha256(f"{seed} {self.name}".encode()).hexdigest()

    def source(self, original: bytes) -> bytes:
        """Return the text of the mutated file."""
        return original[: self.start] + self.after.encode() + original[self.end :]


@dataclass(frozen=True)
class _Place:
    """Where a node is: in which function or class, in which statement, and whether it decides."""

    scope: str = ""
    statement: int = 1
    is_condition: bool = False


def mutants(root: Path, path: str) -> list[Mutant]:
    """Return all mutants of a file."""
    source = (root / path).read_bytes()
    offsets = [0, *accumulate(len(line) for line in source.splitlines(keepends=True))]
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for node, place in _nodes(ast.parse(source), _Place()):
        last, end = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        for changed in _mutations(node, place):
            before, after = ast.unparse(node), ast.unparse(changed)
            if isinstance(changed, ast.expr):
                after = f"({after})"
            change = place.scope, before, after
            mutant = Mutant(
                path=path,
                scope=place.scope,
                lines=frozenset((place.statement, *range(node.lineno, last + 1))),
                start=offsets[node.lineno - 1] + node.col_offset,
                end=offsets[last - 1] + end,
                before=before,
                after=after,
                occurrence=seen[change],
            )
            found.append(mutant)
            seen[change] += 1
    return found


def _nodes(node: ast.AST, place: _Place) -> Iterator[tuple[ast.expr | ast.stmt, _Place]]:
    """Yield what may be changed, and where it is. Types and decorators may not."""
    if isinstance(node, ast.JoinedStr) or _is_unobserved(node):
        return
    if isinstance(node, ast.stmt):
        place = replace(place, statement=node.lineno)
    if isinstance(node, ast.expr | ast.stmt):
        yield node, place
    scope = place.scope
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        scope = f"{scope}.{node.name}".lstrip(".")
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list", "type_params"}:
            continue
        if isinstance(node, ast.ClassDef) and field != "body":
            continue
        if isinstance(node, ast.Subscript) and isinstance(value, ast.Tuple):
            continue  # of a type
        is_condition = field == "ifs" or (field == "test" and isinstance(node, ast.stmt))
        inner = replace(place, scope=scope, is_condition=is_condition)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _nodes(child, inner)


def _is_unobserved(node: ast.AST) -> bool:
    """Whether a statement only logs, or is for the type checker."""
    match node:
        case ast.Expr(ast.Call(ast.Attribute(ast.Name(name)))):
            return name.endswith(("log", "logger"))
        case ast.Expr(ast.Call(ast.Name("assert_never"))) | ast.If(ast.Name("TYPE_CHECKING")):
            return True
        case ast.Assert():
            return True
    return False


def _mutations(node: ast.expr | ast.stmt, place: _Place) -> Iterator[ast.expr | ast.stmt]:
    """Yield what could stand instead of a node."""
    if isinstance(node, ast.stmt):
        yield from _changed_statement(node, place.scope)
        return
    yield from _changed_expression(node, in_function=bool(place.scope))
    if place.is_condition and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp):
        yield ast.UnaryOp(ast.Not(), node)


def _changed_expression(node: ast.expr, *, in_function: bool) -> Iterator[ast.expr]:
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                changed = copy.deepcopy(node)
                changed.ops[index] = COMPARISONS[type(operator)]()
                yield changed
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.And() if isinstance(operator, ast.Or) else ast.Or(), values)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC:
            if not any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (left, right)):
                yield ast.BinOp(left, ARITHMETIC[type(operator)](), right)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Call():
            yield from _changed_call(node)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Tuple(elements, ast.Load()) | ast.Set(elements) if (
            not in_function and len(elements) > 1
        ):
            for index in range(len(elements)):
                changed_display = copy.deepcopy(node)
                del changed_display.elts[index]
                yield changed_display
        case ast.Dict(keys) if not in_function and len(keys) > 1:
            for index in range(len(keys)):
                changed_table = copy.deepcopy(node)
                del changed_table.keys[index], changed_table.values[index]
                yield changed_table


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def _changed_statement(node: ast.stmt, scope: str) -> Iterator[ast.stmt]:
    match node:
        case ast.Return(None | ast.Constant(None | bool())):
            pass  # as a condition, None is False
        case ast.Return():
            yield ast.Return(ast.Constant(None))
        case ast.Expr(ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Break() | ast.Continue():
            yield ast.Pass()
        # Without what a constructor sets, nothing would run.
        case ast.Assign([ast.Attribute() | ast.Subscript()]) if not scope.endswith("__init__"):
            yield ast.Pass()


def _changed_call(node: ast.Call) -> Iterator[ast.expr]:
    match node.func:
        case ast.Name(name) if name in FUNCTIONS:
            yield ast.Call(ast.Name(FUNCTIONS[name]), node.args, node.keywords)
        case ast.Attribute(statement, name) if name in CLAUSES:
            yield statement
    for index, keyword in enumerate(node.keywords):
        if keyword.arg is not None:
            changed = copy.deepcopy(node)
            del changed.keywords[index]
            yield changed
