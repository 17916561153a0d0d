"""Verdicts of the takeoff check on standard output.

At a terminal the line with GO or NO-GO stands between two rules, green or red unless NO_COLOR is set (no-color.org).
Elsewhere it is the same line alone. The word tells, never the colour.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from store.findings import Finding
from store.takeoff.mission import Verdict
from store.values import replace
from tools import render
from tools.arguments import print_lines
from tools.lines import colours, columns_of, fitted
from tools.printable import printable
from tools.status import say
from tools.streams import write_controls

_GREEN, _RED, _PLAIN = "\x1b[1;32m", "\x1b[1;31m", "\x1b[0m"


def print_verdicts(verdicts: Sequence[Verdict], *, past: bool = False) -> None:
    """Print verdicts, each with its facts or findings, and after several of them the line that sums up. Verdicts on the
    `past` clear nobody: they get neither rules nor colours."""
    for one in verdicts:
        head, *rest = render.verdict(one, past=past)
        _announce(head, good=one.go, past=past)
        print_lines(rest)
    if len(verdicts) > 1:
        _announce(render.summary(verdicts, past=past), good=all(one.go for one in verdicts), past=past)


def findings_of(verdict: Verdict) -> list[Finding]:
    """Return the findings of a verdict, each with its mission: a list of findings may be about several."""
    return [replace(finding, missions=(verdict.mission_id,)) for finding in verdict.findings]


def _announce(line: str, *, good: bool, past: bool) -> None:
    if past or not sys.stdout.isatty():
        say(line)
        return
    colour = "" if not colours() else _GREEN if good else _RED
    texts = fitted(printable(line))
    rule = "=" * max(map(columns_of, texts))
    for each in (rule, *texts, rule):
        write_controls(f"{colour}{each}{_PLAIN if colour else ''}\n")
