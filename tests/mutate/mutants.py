"""Small changes to a module's syntax tree, each of which a test should notice.

A mutant is one change: a comparison moved by one or turned round, a part of `and`/`or` left out, a number one off, a
statement dropped, arguments swapped, a keyword left out, another value returned, a bound of a slice or an exception of
a handler left out. Messages, asserts, annotations, decorators and docstrings stay as they are.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
}
# The argument itself, or another choice among the same values.
CALLS = {"sorted", "reversed", "set", "frozenset", "abs"}
CHOICES = {"min": "max", "max": "min", "any": "all", "all": "any"}
# Arguments in another order give the same, or an error at once.
UNORDERED = {"isinstance", "max", "min", "suppress"}
TEXT = 120


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: where it is, what it replaces, and the lines of the statement or header that holds it.

    `line` is the text of the line where the replaced part begins. `at_import`: the change is in what runs when the
    module is imported.
    """

    path: str
    where: str
    line: str
    before: str
    after: str
    first_line: int
    last_line: int
    at_import: bool


class Mutations:
    """All mutants of one module, in the order of its source."""

    def __init__(self, path: str, source: str) -> None:
        self._tree = ast.parse(source)
        self._lines = source.splitlines()
        self._path = path
        self._changes: list[tuple[ast.AST, str, int | None, ast.AST]] = []
        self.mutants: list[Mutant] = []
        self._suite(self._tree, "body", _Place("", 0, 0, True))

    def original(self, filename: str) -> CodeType:
        return compile(self._tree, filename, "exec", dont_inherit=True)

    def code(self, number: int, filename: str) -> CodeType:
        """The whole module with the change of mutant `number` in it."""
        parent, field, index, new = self._changes[number]
        old = _put(parent, field, index, new)
        try:
            return compile(self._tree, filename, "exec", dont_inherit=True)
        finally:
            _put(parent, field, index, old)

    def _add(self, place: _Place, parent: ast.AST, field: str, index: int | None, new: ast.AST) -> None:
        old = _get(parent, field, index)
        ast.copy_location(new, old)
        ast.fix_missing_locations(new)
        before, after = _text(old), _text(new)
        if before == after:
            return
        self._changes.append((parent, field, index, new))
        line = self._lines[getattr(old, "lineno", place.first_line) - 1].strip()
        self.mutants.append(
            Mutant(self._path, place.where, line, before, after, place.first_line, place.last_line, place.at_import)
        )

    def _suite(self, parent: ast.AST, field: str, place: _Place) -> None:
        body: list[ast.stmt] = getattr(parent, field)
        for index, statement in enumerate(body):
            self._statement(statement, parent, field, index, place)

    def _statement(self, node: ast.stmt, parent: ast.AST, field: str, index: int, outer: _Place) -> None:
        place = outer.header(node)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                for default in ("defaults", "kw_defaults"):
                    self._values(node.args, default, place)
                self._suite(node, "body", outer.inside(node.name, function=True))
            case ast.ClassDef():
                self._suite(node, "body", outer.inside(node.name, function=False))
            case ast.Import() | ast.ImportFrom() | ast.Global() | ast.Nonlocal() | ast.Pass() | ast.Assert():
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
                self._add(place, parent, field, index, ast.Pass())
            case ast.Expr(value=ast.Constant()):
                pass  # a docstring
            case ast.Expr():
                self._add(place, parent, field, index, ast.Pass())
                self._field(node, "value", place)
            case ast.Return():
                if node.value is not None and not (isinstance(node.value, ast.Constant)):
                    self._add(place, node, "value", None, ast.Constant(None))
                    self._field(node, "value", place)
                elif node.value is not None:
                    self._field(node, "value", place)
                else:
                    self._add(place, parent, field, index, ast.Pass())
            case ast.Assign():
                if any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
                    return
                if not isinstance(node.targets[0], (ast.Name, ast.Tuple)):
                    self._add(place, parent, field, index, ast.Pass())
                self._field(node, "value", place)
            case ast.AnnAssign():
                self._field(node, "value", place)
            case ast.AugAssign():
                self._add(place, parent, field, index, ast.Pass())
                other = ARITHMETIC.get(type(node.op))
                if other is not None:
                    self._add(place, node, "op", None, other())
                self._field(node, "value", place)
            case ast.If() | ast.While():
                self._condition(node, "test", place)
                self._suite(node, "body", outer)
                self._suite(node, "orelse", outer)
            case ast.For() | ast.AsyncFor():
                self._field(node, "iter", place)
                self._suite(node, "body", outer)
                self._suite(node, "orelse", outer)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self._field(item, "context_expr", place)
                self._suite(node, "body", outer)
            case ast.Try() | ast.TryStar():
                self._suite(node, "body", outer)
                for number, handler in enumerate(node.handlers):
                    self._handler(handler, node, number, outer)
                self._suite(node, "orelse", outer)
                self._suite(node, "finalbody", outer)
            case ast.Match():
                self._field(node, "subject", place)
                for case in node.cases:
                    if case.guard is not None:
                        self._condition(case, "guard", outer.header(case.guard))
                    self._suite(case, "body", outer)

    def _handler(self, node: ast.ExceptHandler, parent: ast.AST, number: int, outer: _Place) -> None:
        place = outer.lines(node.lineno, node.body[0].lineno)
        if isinstance(node.type, ast.Tuple):
            self._without_one(node, "type", None, "elts", place)
        if not isinstance(node.body[0], ast.Raise):
            again = copy.copy(node)
            again.body = [ast.copy_location(ast.Raise(), node.body[0])]
            self._add(place, parent, "handlers", number, again)
        self._suite(node, "body", outer)

    def _values(self, parent: ast.AST, field: str, place: _Place) -> None:
        for index, value in enumerate(getattr(parent, field)):
            if isinstance(value, ast.AST):
                self._value(value, parent, field, index, place)

    def _field(self, parent: ast.AST, field: str, place: _Place) -> None:
        value = getattr(parent, field)
        if value is not None:
            self._value(value, parent, field, None, place)

    def _condition(self, parent: ast.AST, field: str, place: _Place) -> None:
        """A condition is also negated, unless a mutant of it does that already."""
        test = getattr(parent, field)
        if not isinstance(test, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)):
            self._add(place, parent, field, None, ast.UnaryOp(ast.Not(), test))
        self._value(test, parent, field, None, place)

    def _value(self, node: ast.AST, parent: ast.AST, field: str, index: int | None, place: _Place) -> None:
        def add(new: ast.AST) -> None:
            self._add(place, parent, field, index, new)

        match node:
            case ast.JoinedStr():
                return  # text for a reader
            case ast.Constant(value=bool()):
                add(ast.Constant(not node.value))
            case ast.Constant(value=int()):
                add(ast.Constant(node.value + 1))
                add(ast.Constant(node.value - 1))
            case ast.Constant(value=float()):
                add(ast.Constant(node.value * 2 + 1))
            case ast.Compare():
                for number, operator in enumerate(node.ops):
                    for other in COMPARISONS[type(operator)]:
                        changed = copy.copy(node)
                        changed.ops = [*node.ops[:number], other(), *node.ops[number + 1 :]]
                        add(changed)
                self._value(node.left, node, "left", None, place)
                for number, right in enumerate(node.comparators):
                    if isinstance(node.ops[number], (ast.In, ast.NotIn)) and isinstance(right, (ast.Tuple, ast.Set)):
                        self._without_one(node, "comparators", number, "elts", place)
                    self._value(right, node, "comparators", number, place)
                return
            case ast.BoolOp():
                other_word = ast.Or() if isinstance(node.op, ast.And) else ast.And()
                changed_word = copy.copy(node)
                changed_word.op = other_word
                add(changed_word)
                for number in range(len(node.values)):
                    rest = [*node.values[:number], *node.values[number + 1 :]]
                    if len(rest) == 1:
                        add(copy.copy(rest[0]))
                    else:
                        fewer = copy.copy(node)
                        fewer.values = rest
                        add(fewer)
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
                add(copy.copy(node.operand))
            case ast.BinOp():
                operator_class = ARITHMETIC.get(type(node.op))
                if operator_class is not None and not _is_text(node.left) and not _is_text(node.right):
                    turned = copy.copy(node)
                    turned.op = operator_class()
                    add(turned)
            case ast.IfExp():
                swapped = copy.copy(node)
                swapped.body, swapped.orelse = node.orelse, node.body
                add(swapped)
            case ast.Slice():
                for bound in ("lower", "upper", "step"):
                    if getattr(node, bound) is not None:
                        open_slice = copy.copy(node)
                        setattr(open_slice, bound, None)
                        add(open_slice)
            case ast.Call():
                self._call(node, parent, field, index, place)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                for number, loop in enumerate(node.generators):
                    for at in range(len(loop.ifs)):
                        every = copy.copy(loop)
                        every.ifs = [*loop.ifs[:at], *loop.ifs[at + 1 :]]
                        wider = copy.copy(node)
                        wider.generators = [*node.generators[:number], every, *node.generators[number + 1 :]]
                        add(wider)
            case ast.Set() | ast.List(ctx=ast.Load()) if len(node.elts) > 1:
                self._without_one(parent, field, index, "elts", place)
            case ast.Lambda():
                self._value(node.body, node, "body", None, place.deferred())
                return
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                for at, part in enumerate(value):
                    if isinstance(part, ast.comprehension):
                        self._field(part, "iter", place)
                        for number, test in enumerate(part.ifs):
                            self._value(test, part, "ifs", number, place)
                    elif isinstance(part, ast.keyword):
                        self._field(part, "value", place)
                    elif isinstance(part, ast.expr):
                        self._value(part, node, name, at, place)
            elif isinstance(value, ast.expr):
                self._value(value, node, name, None, place)

    def _call(self, node: ast.Call, parent: ast.AST, field: str, index: int | None, place: _Place) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in CALLS and node.args and not isinstance(node.args[0], (ast.Starred, ast.GeneratorExp)):
            self._add(place, parent, field, index, copy.copy(node.args[0]))
        if name in CHOICES:
            other = copy.copy(node)
            other.func = ast.copy_location(ast.Name(CHOICES[name], ast.Load()), node.func)
            self._add(place, parent, field, index, other)
        for at in range(len(node.args) - 1 if name not in UNORDERED else 0):
            if not any(isinstance(argument, ast.Starred) for argument in node.args[at : at + 2]):
                swapped = copy.copy(node)
                swapped.args = [*node.args[:at], node.args[at + 1], node.args[at], *node.args[at + 2 :]]
                self._add(place, parent, field, index, swapped)
        for at, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                fewer = copy.copy(node)
                fewer.keywords = [*node.keywords[:at], *node.keywords[at + 1 :]]
                self._add(place, parent, field, index, fewer)

    def _without_one(self, parent: ast.AST, field: str, index: int | None, items: str, place: _Place) -> None:
        node = _get(parent, field, index)
        for at in range(len(getattr(node, items))):
            fewer = copy.copy(node)
            kept = getattr(node, items)
            setattr(fewer, items, [*kept[:at], *kept[at + 1 :]])
            self._add(place, parent, field, index, fewer)


@dataclass(frozen=True, slots=True)
class _Place:
    where: str
    first_line: int
    last_line: int
    at_import: bool

    def lines(self, first: int, last: int) -> _Place:
        return _Place(self.where, first, last, self.at_import)

    def header(self, node: ast.stmt | ast.expr) -> _Place:
        """A compound statement counts without what it holds."""
        assert node.end_lineno is not None
        body: list[ast.stmt] = getattr(node, "body", None) or []
        last = node.end_lineno
        if isinstance(body, list) and body:
            last = max(node.lineno, body[0].lineno - 1)
        return self.lines(node.lineno, last)

    def inside(self, name: str, *, function: bool) -> _Place:
        return _Place(f"{self.where}.{name}".lstrip("."), 0, 0, self.at_import and not function)

    def deferred(self) -> _Place:
        return _Place(self.where, self.first_line, self.last_line, False)


def functions(code: CodeType) -> Iterator[CodeType]:
    """The code of each function of a module or a class, without those inside of functions."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & 0x2:  # CO_NEWLOCALS: a function; a class body has none
                yield constant
            else:
                yield from functions(constant)


def _get(parent: ast.AST, field: str, index: int | None) -> ast.AST:
    value = getattr(parent, field)
    return value if index is None else value[index]


def _put(parent: ast.AST, field: str, index: int | None, new: ast.AST) -> ast.AST:
    old = _get(parent, field, index)
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new
    return old


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.operator):
        return type(node).__name__
    if isinstance(node, ast.Slice):
        return f"[{ast.unparse(node)}]"
    lines = ast.unparse(node).splitlines()
    shown = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[1].strip()}"
    return shown if len(shown) <= TEXT else shown[: TEXT - 1] + "…"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)))
