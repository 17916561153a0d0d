"""Figures: a figure that was not measured holds no bound, and exactly enough is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from builders.artifacts.figures import (
    Answer,
    Answers,
    Elsewhere,
    FigureMeter,
    Gate,
    SelfQuestion,
    Unmeasured,
    _answer,
)
from builders.imagery.inventory import Inventory
from builders.retrieval.quality import RecallFigure
from builders.retrieval.recall import Recall, Tally
from store.errors import Refused
from store.format.manifest import PPM, Unproven
from store.takeoff.quality import LEAST_QUERIES


def gate(name: str, least: int = 0) -> Gate:
    return Gate(name, least, bytes(32))


@dataclass(frozen=True)
class Asked:
    """A question with answers of its own."""

    gates: Sequence[Gate]
    answers: Answers
    inventories: Sequence[Inventory] = ()

    @property
    def engine(self) -> Any:
        return SimpleNamespace(name="engines/embedder/embedder.onnx")

    def answer(self, meter: FigureMeter) -> Answers:
        return self.answers


@pytest.fixture
def meter() -> FigureMeter:
    return FigureMeter(SimpleNamespace(path="left.toml"), *[None] * 5)  # type: ignore[arg-type]


def test_every_gate_has_a_figure_or_a_reason(meter: FigureMeter) -> None:
    first = Asked(
        [gate("b", 7), gate("a")], {"a": Unmeasured("too few"), "b": Answer(6, 20, ("x",), 3), "c": Answer(1, 1)}
    )
    figures, unproven, unmeasured = meter.measure([first, Asked([gate("0")], {"0": Answer(0, 1)})])
    assert [(one.name, one.value, one.least, one.queries, one.missed, one.chance) for one in figures] == [
        ("0", 0, 0, 1, (), None),
        ("b", 6, 7, 20, ("x",), 3),
    ]
    assert unmeasured == ("a: too few",)
    assert unproven == ()


def test_what_no_machine_here_measures_is_left_to_the_aircraft(meter: FigureMeter) -> None:
    gates = [Gate("fidelity/b", 7, b"1" * 32), Gate("fidelity/a", 7, b"2" * 32), Gate("fidelity/c", 0, b"3" * 32)]
    question = Asked(gates, {one.name: Elsewhere("no GPU", aboard=True) for one in gates})
    figures, unproven, unmeasured = meter.measure([question])
    assert (figures, unmeasured) == ((), ())
    assert unproven == (
        Unproven("fidelity/a", 7, b"2" * 32),
        Unproven("fidelity/b", 7, b"1" * 32),
        Unproven("fidelity/c", 0, b"3" * 32),
    )


@pytest.mark.parametrize("least", [0, 1, PPM])
def test_without_leave_an_aircraft_proves_nothing(least: int) -> None:
    context = SimpleNamespace(path="left.toml", repository=SimpleNamespace(media=SimpleNamespace(path="ground")))
    meter = FigureMeter(context, *[None] * 5)  # type: ignore[arg-type]
    question = Asked([gate("fidelity/a", least)], {"fidelity/a": Elsewhere("no GPU", aboard=False)})
    with pytest.raises(Refused, match=r"left\.toml: nobody has measured fidelity/a.*: no GPU") as caught:
        meter.measure([question])
    assert caught.value.kind == "unproven"
    assert "flightbag engines order left.toml --store ground" in caught.value.remedy


@pytest.mark.parametrize("least", [0, 1, PPM])
def test_a_bound_on_what_is_not_measured_is_refused(meter: FigureMeter, least: int) -> None:
    question = Asked([gate("a", least)], {"a": Unmeasured("too few")})
    if not least:
        assert meter.measure([question]) == ((), (), ("a: too few",))
        return
    with pytest.raises(Refused) as caught:
        meter.measure([question])
    assert caught.value.kind == "not-measured"
    assert "left.toml asks for a, which cannot be measured: too few" in caught.value.message


def test_a_gate_that_nothing_answers_is_no_figure(meter: FigureMeter) -> None:
    with pytest.raises(KeyError):
        meter.measure([Asked([gate("a")], {})])


FIGURE = RecallFigure("recall@1/embedder/shift", "recall", 1, "shift")
SAMPLED = RecallFigure("sampled@1/embedder/shift", "sampled", 1, "shift")
UNTRAINED = RecallFigure("untrained@1/embedder/shift", "untrained", 1, "shift")


def recall(queries: int, *, right: int = 1, untrained: bool = True) -> Recall:
    own = Tally(1, 1, queries)
    return Recall(100, Tally(right, right, queries), own, own if untrained else None)


@pytest.mark.parametrize("zooms", [1, 2])
def test_so_many_queries_are_enough_and_one_less_is_not(zooms: int) -> None:
    """Of all zooms together."""
    for short, measured in ((0, True), (1, False)):
        counts = [LEAST_QUERIES - short] if zooms == 1 else [1, LEAST_QUERIES - 1 - short]
        found = _answer(FIGURE, {16 + at: recall(count) for at, count in enumerate(counts)}, "")
        assert isinstance(found, Answer if measured else Unmeasured)


def test_a_zoom_without_the_untrained_network_leaves_that_figure_unmeasured() -> None:
    zooms = {16: recall(30), 17: recall(30, untrained=False)}
    assert _answer(UNTRAINED, zooms, "it has no weights") == Unmeasured("it has no weights")
    assert isinstance(_answer(SAMPLED, zooms, ""), Answer)
    assert isinstance(_answer(FIGURE, zooms, ""), Answer)


def test_a_recall_is_rounded_down_over_all_zooms() -> None:
    found = _answer(FIGURE, {16: recall(20, right=19), 17: recall(10, right=10)}, "")
    assert found == Answer(29 * PPM // 30, 30, chance=PPM // 100)
    assert 29 * PPM % 30, "or the test proves no rounding"


@pytest.mark.parametrize(
    ("counts", "value"), [({16: (2, 3)}, 666_666), ({16: (1, 1), 17: (1, 2)}, 666_666), ({16: (3, 3)}, PPM)]
)
def test_self_retrieval_is_rounded_down_over_all_zooms(counts: dict[int, tuple[int, int]], value: int) -> None:
    own: Any = SimpleNamespace(set="embedder", name="self@1/embedder", measure=lambda *_: counts)
    meter: Any = SimpleNamespace(map=SimpleNamespace(layers=lambda _: ()), engine=lambda *_: None)
    task: Any = None
    [answer] = SelfQuestion(own, task, (gate("self@1/embedder"),)).answer(meter).values()
    assert answer == Answer(value, sum(queries for _, queries in counts.values()))
