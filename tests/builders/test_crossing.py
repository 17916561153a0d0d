"""What crosses from a confined process: values and errors as they were, and nothing that is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.bounded import MAX_VALUES
from builders.crossing import error_from_json, error_to_json, from_json, to_json
from builders.grid.tiles import MAX_AREA_TILES
from builders.imagery.repetition import Repeats
from builders.report import ArtifactReport, BuildReport, CoverageReport, Measured, MissingTiles, PlanReport, PlanRow
from store import errors
from store.disk.locks import Locked
from store.errors import Corrupt, FlightbagError, Unavailable
from store.format.ids import ObjectId
from store.format.missing import REASONS, Run

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER = st.integers(0, 2**62)
CLASSES = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, FlightbagError)]
REPORT = st.builds(
    BuildReport,
    outcome=st.sampled_from(["built", "unchanged", "draft", "failed"]),
    mission=TEXT,
    coverage=st.builds(
        CoverageReport,
        tiles=NUMBER,
        described=NUMBER,
        missing=st.builds(
            lambda first, tiles, reason, details: MissingTiles((Run(first, tiles, reason),), details),
            st.integers(0, 2**46),
            st.integers(1, MAX_AREA_TILES),
            st.sampled_from(REASONS),
            st.dictionaries(NUMBER, TEXT, max_size=2),
        ),
        by_zoom=st.dictionaries(st.integers(0, 24), NUMBER, max_size=2),
        repeated=st.builds(Repeats, NUMBER, NUMBER, NUMBER, st.lists(TEXT, max_size=2).map(tuple)),
    ),
    artifacts=st.lists(
        st.builds(
            ArtifactReport,
            name=TEXT,
            action=st.sampled_from(["built", "reused"]),
            id=TEXT,
            key=TEXT,
            bytes=NUMBER,
            seconds=st.none() | st.floats(allow_nan=False),
            figures=st.none() | st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=2),
        ),
        max_size=2,
    ).map(tuple),
    figures=st.lists(st.builds(Measured, TEXT, NUMBER, NUMBER, NUMBER, st.binary(max_size=33)), max_size=2).map(tuple),
    why=TEXT,
)


@given(REPORT)
def test_a_report_crosses_as_it_is(report: BuildReport) -> None:
    assert from_json(BuildReport, json.loads(json.dumps(to_json(BuildReport, report)))) == report


def test_a_plan_crosses_as_it_is() -> None:
    rows = (PlanRow("a", "", True, 3), PlanRow("b", "00", False, None, 5, "5 rows"))
    missing = MissingTiles((Run(1, 2, "absent"), Run(7, 1, "undecodable")), {7: "gzip"})
    plan = PlanReport("m", "f", ("cpu",), None, 2**40, 3, missing, False, Repeats(0, 0, 0, ()), ("h",), rows, ())
    assert from_json(PlanReport, to_json(PlanReport, plan)) == plan


def report_missing(runs: str) -> str:
    """A failed report with these runs of missing tiles."""
    coverage = CoverageReport(1, 1, MissingTiles((Run(5, 1, "absent"),)), {}, Repeats(0, 0, 0, ()))
    text = to_json(BuildReport, BuildReport("failed", "m", coverage))
    assert '[[5,1,"absent"]]' in text
    return str(text).replace('[[5,1,"absent"]]', runs)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "[1]",
        "[[[[[[[[[[]]]]]]]]]]",
        "[" * 100_000,
        None,
        3,
        [],
        '[{"outcome": "built"}]',
        '[{"outcome": "fine", "mission": "", "coverage": {}}]',
        to_json(
            BuildReport, BuildReport("failed", "m", CoverageReport(1, 1, MissingTiles(), {}, Repeats(0, 0, 0, ())))
        ).replace('"tiles":1', '"tiles":"1"'),
        report_missing('[[0,16777217,"absent"]]'),
        report_missing('[[0,1000000000000,"absent"]]'),
        report_missing('[[0,1,"absent"],[0,1,"absent"]]'),
        report_missing('[[0,-1,"absent"]]'),
        report_missing('[[0,1,"lost"]]'),
        report_missing("[" + "[]," * MAX_VALUES + "[]]"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_what_is_no_report_is_corrupt(text: Any) -> None:
    with pytest.raises(Corrupt, match="something else than a BuildReport"):
        from_json(BuildReport, text)


@given(
    kind=st.sampled_from(CLASSES),
    message=TEXT,
    remedy=TEXT,
    name=TEXT,
    problems=st.lists(TEXT, max_size=2),
    extra=TEXT,
    errno=st.none() | st.integers(1, 130),
)
def test_an_error_crosses_as_it_is(
    kind: type[FlightbagError],
    message: str,
    remedy: str,
    name: str,
    problems: list[str],
    extra: str,
    errno: int | None,
) -> None:
    error = kind(message, remedy=remedy, kind=name, errno=errno, problems=tuple(problems), extra=extra, path="/x", n=3)
    other = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert type(other) is kind
    assert (other.message, other.remedy, other.kind, other.errno) == (message, remedy, name, errno)
    assert (other.problems, other.extra, other.fields) == (tuple(problems), extra, error.fields)


def test_fields_that_are_no_plain_values_stay_behind_and_ids_become_text() -> None:
    id_ = ObjectId(bytes(32))
    error = error_from_json(
        error_to_json(Corrupt("x", object=id_, objects=(id_,), findings=(object(),), thing=object()))
    )
    assert error.fields == {"object": str(id_), "objects": (str(id_),)}
    assert error.object_id == str(id_)


def test_a_class_of_another_module_becomes_the_one_that_a_handler_knows() -> None:
    assert type(error_from_json(error_to_json(Locked("x", kind="locked")))) is Unavailable


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        [],
        {},
        {"class": "Exception", "message": "x", "remedy": "", "fields": {}},
        {"class": "Corrupt", "message": "x", "remedy": "", "fields": 3},
        {"class": ["Corrupt"], "message": "x", "remedy": "", "fields": {}},
        {"class": "Corrupt", "message": "x", "remedy": "", "fields": {"message": "twice"}},
        {"class": "Corrupt", "message": "x", "remedy": "", "fields": {"self": 1}},
    ],
)
def test_what_is_no_error_is_unavailable(value: Any) -> None:
    error = error_from_json(value)
    assert isinstance(error, Unavailable)
    assert error.message
