"""Text for people that no command shows in a short test."""

from __future__ import annotations

from builders.imagery.repetition import Repeats
from builders.report import BuildReport, CoverageReport, MissingTiles
from tools import render

COVERAGE = CoverageReport(4, 4, MissingTiles(), {16: 4}, Repeats(0, 0, 0, ()))


def test_a_failing_gate_says_why_after_the_tables_a_reason_a_line() -> None:
    reasons = [
        f"figure {number} is 0.5, at least 0.9 is required, and this is what to do about it" for number in range(3)
    ]
    lines = list(render.build(BuildReport("failed", "north-ridge", COVERAGE, why="\n".join(reasons)), 0))
    assert lines[0] == "failed: mission north-ridge"
    at = lines.index("NOT PUBLISHED; what was published before stays:")
    assert at > 1
    told = lines[at + 1 :]
    assert [line for line in told if line.startswith("  figure")] == [line for line in told if "is 0.5" in line]
    assert " ".join(" ".join(told).split()) == " ".join(reasons)
    assert max(map(len, lines)) <= 80


def test_of_many_reasons_some_are_shown() -> None:
    report = BuildReport("failed", "north-ridge", COVERAGE, why="\n".join(f"reason {one}" for one in range(300)))
    lines = list(render.build(report, 0))
    assert lines[-1] == "  and 280 more (see -v)"
    assert len(lines) < 30


def test_a_draft_says_what_it_lacks() -> None:
    report = BuildReport("draft", "north-ridge", COVERAGE, why="it has 1 of 2 required signatures: flightbag sign")
    assert list(render.build(report, 0))[-2:] == [
        "NOT PUBLISHED, a draft:",
        "  it has 1 of 2 required signatures: flightbag sign",
    ]
