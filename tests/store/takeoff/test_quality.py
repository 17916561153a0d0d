"""What signed figures say of descriptor sets, and what they leave open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.format.manifest import PPM, Figure
from store.takeoff.quality import (
    LEAST_QUERIES,
    Training,
    figure_title,
    is_baseline,
    recall_rows,
    trainings,
    without_landmarks,
    without_recall,
)
from tests.support.missions import CONTENTS, table_of

TABLE = table_of(CONTENTS)
SETS = sorted({entry.name.split("/")[1] for entry in TABLE.entries if entry.kind == "descriptors"})


def figure(name: str, value: int = PPM, queries: int = LEAST_QUERIES) -> Figure:
    return Figure(name, value, 0, queries, bytes(32))


def test_a_recall_stands_beside_what_the_untrained_network_finds() -> None:
    figures = [
        figure("fidelity/net"),
        figure("recall@1/net/shift", 700_000, 30),
        figure("recall@5/net/shift", 800_000, 30),
        figure("sampled@1/net/shift", 900_000, 30),
        figure("untrained@1/net/shift", 500_000, 30),
        figure("recall@1/net/scale", 600_000, 30),
    ]
    scale, shift = recall_rows(figures)
    assert (scale.way, scale.whole, scale.sampled, scale.untrained) == ("scale", 600_000, None, None)
    assert (shift.set, shift.way, shift.queries) == ("net", "shift", 30)
    assert (shift.whole, shift.sampled, shift.untrained) == (700_000, 900_000, 500_000)
    (training,) = trainings(figures)
    assert training == Training("net", 900_000, 500_000, 30)


def test_imagery_of_another_source_says_nothing_of_the_training() -> None:
    names = [f"{kind}@1/net/against" for kind in ("recall", "sampled", "untrained")]
    assert list(trainings(map(figure, names))) == []


@given(st.integers(0, PPM), st.integers(1, 10**4))
def test_what_is_no_better_shows_no_training(value: int, queries: int) -> None:
    assert not Training("net", value, value, queries).shows


@pytest.mark.parametrize(
    ("trained", "untrained", "queries", "shows"),
    [
        (900_000, 500_000, 80, True),
        (550_000, 500_000, 80, False),
        # Two draws of the weights of one network, neither trained: more queries do not tell them apart.
        (851_600, 718_800, 128, False),
        (894_500, 757_800, 8000, False),
        (950_000, 757_800, 8000, True),
        (PPM, 0, 20, True),
    ],
)
def test_a_difference_has_to_be_more_than_chance(trained: int, untrained: int, queries: int, shows: bool) -> None:
    assert Training("net", trained, untrained, queries).shows is shows


@pytest.mark.parametrize(
    ("untrained", "queries", "last", "first"),
    [
        (500_000, 80, 707_019, 707_020),
        (500_000, 20, 816_227, 816_228),
        (200_000, 1000, 346_785, 346_786),
        (800_000, 128, 961_711, 961_712),
        (0, 20, 236_992, 236_993),
    ],
)
def test_two_standard_errors_of_queries_and_of_weights(untrained: int, queries: int, last: int, first: int) -> None:
    assert not Training("net", last, untrained, queries).shows
    assert Training("net", first, untrained, queries).shows


def test_all_perturbations_of_a_set_count_by_their_queries() -> None:
    figures = [
        figure(f"{kind}@1/{set_}/{way}", value, queries)
        for set_, way, queries, trained, untrained in (
            ("net", "scale", 30, 600_000, 300_001),
            ("net", "shift", 10, 200_000, 100_000),
            ("net", "against", 500, 0, 0),
            ("other/deep", "shift", 20, 500_000, 400_000),
        )
        for kind, value in (("recall", 1), ("sampled", trained), ("untrained", untrained))
    ]
    assert sorted(trainings(figures), key=lambda one: one.set) == [
        Training("net", 500_000, 250_000, 40),
        Training("other/deep", 500_000, 400_000, 20),
    ]
    for without in ("sampled@1/net/", "untrained@1/net/"):
        fewer = [one for one in figures if not one.name.startswith(without)]
        assert [one.set for one in trainings(fewer)] == ["other/deep"]
    assert [(row.set, row.way) for row in recall_rows(reversed(figures))] == [
        ("net", "against"),
        ("net", "scale"),
        ("net", "shift"),
        ("other/deep", "shift"),
    ]


@pytest.mark.parametrize("name", ["recall@1/net", "recall@1", "recall@10/net/shift", "sampled@1/net/shift"])
def test_a_name_of_another_form_is_no_recall(name: str) -> None:
    assert recall_rows([figure(name)]) == ()


def test_a_baseline_says_nothing_by_itself() -> None:
    names = ["sampled@1/net/shift", "untrained@1/net/shift", "recall@1/net/shift", "fidelity/net"]
    assert [is_baseline(name) for name in names] == [True, True, False, False]


def test_a_recall_rests_on_20_queries_or_more() -> None:
    assert LEAST_QUERIES == 20


def test_a_set_without_a_recall_is_not_judged() -> None:
    assert SETS
    name = f"recall@1/{SETS[0]}/shift"
    assert without_recall([], TABLE) == tuple(SETS)
    assert without_recall([figure(f"fidelity/{SETS[0]}"), figure(f"sampled@1/{SETS[0]}/shift")], TABLE) == tuple(SETS)
    assert without_recall([figure(name, queries=LEAST_QUERIES - 1)], TABLE) == tuple(SETS)
    assert without_recall([figure(name)], TABLE) == tuple(SETS[1:])


def test_fidelity_is_called_what_it_is() -> None:
    assert figure_title("fidelity/net") == "engine equals map/net"
    assert figure_title("recall@1/net/shift") == "recall@1/net/shift"


def test_the_place_of_a_set_is_judged_only_by_landmarks_of_its_own() -> None:
    assert without_landmarks([figure(f"recall@1/{SETS[0]}/shift")], TABLE) == tuple(SETS)
    assert without_landmarks([figure(f"landmarks/{SETS[0]}", queries=1)], TABLE) == tuple(SETS[1:])


def test_of_several_engines_the_worst_counts() -> None:
    """A set has a figure for each engine that flies for it, with one name and several recipes."""
    several = [figure("recall@1/net/shift", value) for value in (990_000, 940_000, 970_000)]
    sampled = [figure("sampled@1/net/shift", value) for value in (980_000, 950_000)]
    (row,) = recall_rows([*several, *sampled, figure("untrained@1/net/shift", 400_000)])
    assert (row.whole, row.sampled, row.untrained) == (940_000, 950_000, 400_000)
