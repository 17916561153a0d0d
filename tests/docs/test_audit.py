"""docs/audit.md says of every kind of finding and failure what happened and what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from builders.engines.failures import KINDS
from tests.support.release import REPOSITORY

WORD = re.compile(r"[a-z]+(-[a-z]+)*")
# The first argument of a call of these is a kind; the last two only in `store.remotes`.
FIRST = ("Finding", "failure", "bad", "_bad")
# Calls that make an error or a finding: of a class, or of one of these.
MAKES = re.compile(r"[A-Z_]|(cls|error|replace|restated)$")


def kinds_of_format() -> set[str]:
    """The kinds that FORMAT lists: of the takeoff check, of an audit, of a bag."""
    text = (REPOSITORY / "store/FORMAT.md").read_text()
    check = text[text.index("Kinds of findings (append-only)") : text.index("\n7.2 The medium")]
    audit = text[text.index("## 8 ") : text.index("## 9 ")]
    bags = text[text.index("Kinds of refusals:") :]
    in_table = re.findall(r"^\| `([a-z-]+)` \|", audit, re.MULTILINE)
    return {*re.findall(r"`([a-z]+(?:-[a-z]+)*)`", check), *in_table, *re.findall(r"`([a-z-]+)`(?=[ ,])", bags)}


def kinds_of_code() -> Iterator[str]:
    """The words that the code gives as the kind of an error or of a finding."""
    for package in ("store", "builders", "tools"):
        for path in (REPOSITORY / package).rglob("*.py"):
            first = FIRST if path.parent.name == "remotes" else FIRST[:2]
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                    by_name = [one.value for one in node.keywords if one.arg == "kind" and MAKES.match(name)]
                    yield from _words([*by_name, *(node.args[:1] if name in first else ())])
                elif isinstance(node, ast.Tuple) and path.name == "ssh.py":  # a table of kinds, and of what happened
                    yield from _words([kind for kind, what in pairwise(node.elts) if " " in ast.unparse(what)])


def _words(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.IfExp):
            yield from _words([node.body, node.orelse])
        elif isinstance(node, ast.BoolOp):
            yield from _words(node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
            yield node.value


def test_every_kind_has_a_line() -> None:
    cells = re.findall(r"^\| ([^|]*) \|", (REPOSITORY / "docs/audit.md").read_text(), re.MULTILINE)
    listed = [kind for cell in cells for kind in re.findall(r"`([a-z-]+)`", cell)]
    used = {*kinds_of_format(), *kinds_of_code(), *KINDS}
    assert used - {*listed} == set(), "these have no line"
    assert {*listed} - used == set(), "these are no kinds of this program"
