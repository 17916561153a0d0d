"""docs/benchmarks.md is what the renderer makes of the committed records, and the renderer says what it lacks."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from tests.bench import page, records
from tests.bench.__main__ import side_by_side
from tests.bench.programs import COMMANDS
from tests.bench.records import command_line, rounded
from tests.support.stores import REPOSITORY_ROOT

FOUND = records.read()


def test_the_page_is_what_the_renderer_makes_of_the_records() -> None:
    assert page.PAGE.read_text() == page.render(FOUND, page.PROSE.read_text())


def test_no_figure_in_readme_but_from_the_records() -> None:
    readme = (REPOSITORY_ROOT / "README.md").read_text()
    sentences = re.findall(r"^.*(?:`cp -r`|`b3sum`|`rsync -a`).*\d.*$", readme, re.M)
    assert all(sentence in page.summary(FOUND) for sentence in sentences)
    assert page.summary(FOUND) in readme


def test_each_bench_that_make_bench_runs_has_its_place_in_the_records() -> None:
    benches = re.findall(r"tests\.bench (\w+)$", (REPOSITORY_ROOT / "Makefile").read_text(), re.M)
    assert benches.pop() == "write"
    assert set(FOUND) <= set(benches)
    assert {aim.bench for aim in page.AIMS} <= set(benches)


@pytest.mark.parametrize("bench", sorted({aim.bench for aim in page.AIMS}))
def test_an_aim_without_a_record_is_not_measured_and_not_reached(bench: str) -> None:
    without = {name: record for name, record in FOUND.items() if name != bench}
    lines = list(page.aims(without))
    for aim in page.AIMS:
        (row,) = (line for line in lines if line.startswith(f"| {aim.work} |"))
        if aim.bench == bench:
            assert "not measured" in row
            assert "reached" not in row
            assert "missed" not in row


@pytest.mark.parametrize(
    ("ours", "verdict"), [(0.99, "reached"), (1.0, "reached"), (1.004, "**missed**"), (1.5, "**missed**")]
)
def test_an_aim_is_judged_by_the_figure_and_not_by_its_rounding(ours: float, verdict: str) -> None:
    found = copy.deepcopy(dict(FOUND))
    found["side"]["figures"]["insert"] |= {"cp -r and sync": 1.0, "flightbag": ours}
    row, *_ = (line for line in page.aims(found) if line.startswith("| insert"))
    assert f"| {verdict} |" in row
    missed = next(line for line in page.aims(found) if line.startswith("Missed: "))
    assert ("insert" in missed) == (verdict != "reached")


def test_a_bench_that_did_not_run_keeps_its_day_and_says_so() -> None:
    found = copy.deepcopy(dict(FOUND))
    found["side"]["date"] = "2027-01-01"
    lines = list(page.machines(found))
    assert any("bench side`" in line and "2027-01-01 |" in line for line in lines)
    assert all("not run again since" in line for line in lines if "bench search`" in line)


def test_prose_without_the_place_of_a_section_is_refused() -> None:
    with pytest.raises(ValueError, match="aims"):
        page.render(FOUND, "# Benchmarks\n")


def test_records_are_taken_over_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LATEST", tmp_path / "latest")
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results.json")
    (tmp_path / "results.json").write_text(json.dumps({"old": {"date": "2026-01-01"}, "side": {"date": "2026-01-01"}}))
    path = records.write_record("side", {"insert": {"a": 1.23456789}}, {"a": ["cp -r data copy"]})
    assert path.parent == tmp_path / "latest"
    assert records.take_over() == ["side"]
    found = records.read()
    assert found["old"] == {"date": "2026-01-01"}
    assert found["side"]["figures"] == {"insert": {"a": 1.235}}
    assert found["side"]["commands"] == {"a": ["cp -r data copy"]}
    assert "Python" in found["side"]["versions"]
    assert "core" in found["side"]["machine"]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("/usr/bin/restic", "backup", "-r", "/tmp/flightbag-bench-ab_1/restic-12"), "restic backup -r restic"),
        (("sh", "-c", "cp -r '/x/flightbag-bench-q/data' '/x/flightbag-bench-q/copy-3'"), "sh -c cp -r 'data' 'copy'"),
        (("borg", "create", "/tmp/flightbag-bench-q/borg-7::x"), "borg create borg::x"),
        (("rsync", "-a", "/tmp/flightbag-bench-q/100/source/", "t"), "rsync -a 100/source/ t"),
    ],
)
def test_a_command_line_is_one_of_the_folder_of_the_bench(command: tuple[object, ...], line: str) -> None:
    assert command_line(command) == line


def test_figures_are_rounded_to_what_counts() -> None:
    assert rounded({"a": [1.23456, 0.000123456, 7, "x", None, True]}) == {"a": [1.235, 0.0001235, 7, "x", None, True]}


def test_the_command_lines_are_those_that_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "flightbag-bench-x"
    folder.mkdir()
    monkeypatch.setattr("tests.bench.programs.COMMANDS", COMMANDS)
    result = side_by_side(folder, 1, small=True)
    assert set(result) == {"insert", "verify", "first sync"}
    assert COMMANDS["store-fsck --full"] == ["store-fsck store --full"]
    assert COMMANDS["flightbag verify"] == ["flightbag verify store --trust root"]
    assert str(tmp_path) not in json.dumps(COMMANDS)
