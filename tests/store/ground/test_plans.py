"""Plans for several targets, side by side: none waits for one that hangs, and each has its own error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from store.errors import Invalid, Unavailable
from store.ground import plans
from store.ground.plans import Plans, existing, plan_syncs
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, apply_syncs, plan_sync
from tests.support.missions import flight
from tests.support.stores import make_store

MISSION = flight()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Repository]:
    with Repository.open(make_store(tmp_path / "ground", MISSION)) as repository:
        yield repository


@contextmanager
def hanging(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Let the target of this name answer only when the event is set, which happens at the end at the latest."""
    answer = Event()

    @contextmanager
    def late(path: str) -> Iterator[Repository | None]:
        if path.endswith(name):
            assert answer.wait(60)
        with existing(path) as target:
            yield target

    monkeypatch.setattr(plans, "existing", late)
    try:
        yield answer
    finally:
        answer.set()


def names(tmp_path: Path, *some: str) -> list[str]:
    return [str(tmp_path / name) for name in some]


def test_all_that_answer_come_together_in_the_order_given(source: Repository, tmp_path: Path) -> None:
    targets = names(tmp_path, "c", "a", "b")
    (group,) = plan_syncs(source, targets, ())
    assert list(group) == targets
    assert set(group.values()) == {plan_sync(source, None, ())}


def test_one_alone_is_planned_as_ever(source: Repository, tmp_path: Path) -> None:
    (group,) = plan_syncs(source, names(tmp_path, "a"), ())
    assert list(group.values()) == [plan_sync(source, None, ())]


def test_none_has_no_plan(source: Repository) -> None:
    assert list(plan_syncs(source, [], ())) == []


def test_the_error_of_one_is_its_own(source: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other").write_text("")
    (group,) = plan_syncs(source, names(tmp_path, "a", "file", "full"), ())
    assert [type(one).__name__ for one in group.values()] == ["SyncPlan", "Invalid", "Invalid"]


@pytest.mark.parametrize("hanger", ["a", "b", "c"])
def test_one_that_hangs_holds_up_no_other(
    source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanger: str
) -> None:
    monkeypatch.setattr(plans, "_PATIENCE", 0.3)
    targets = names(tmp_path, "a", "b", "c")
    with hanging(hanger, monkeypatch) as answer:
        groups = plan_syncs(source, targets, ())
        first = next(groups)
        assert list(first) == [target for target in targets if not target.endswith(hanger)]
        assert apply_syncs({target: plan for target, plan in first.items() if isinstance(plan, SyncPlan)}, source) == {}
        answer.set()
        second = next(groups)
        assert list(second) == names(tmp_path, hanger)
        assert isinstance(second[str(tmp_path / hanger)], SyncPlan)
        assert next(groups, None) is None


def test_one_that_never_answers_is_given_up_at_the_end(
    source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = names(tmp_path, "a", "b")
    with hanging("a", monkeypatch):
        first, second = plan_syncs(source, targets, (), until=time.monotonic() + 0.5)
        assert list(first) == [targets[1]]
        error = second[targets[0]]
        assert isinstance(error, Unavailable)
        assert error.kind == "gave-up"
        assert targets[0] in error.message


@pytest.mark.parametrize("pair", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "ground/x"), ("ground", "a")])
def test_targets_in_one_another_are_refused_before_the_first_group(
    source: Repository, tmp_path: Path, pair: tuple[str, str]
) -> None:
    with pytest.raises(Invalid):
        next(plan_syncs(source, names(tmp_path, "other", *pair), ()))


def test_a_link_to_another_target_is_that_target(source: Repository, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(Invalid):
        next(plan_syncs(source, names(tmp_path, "a", "link"), ()))


def test_one_that_answers_late_and_lies_in_another_has_that_error(
    source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "_PATIENCE", 0.1)
    with hanging("late", monkeypatch) as answer:
        groups = plan_syncs(source, names(tmp_path, "a", "a/late"), ())
        first = next(groups)
        answer.set()
        second: Plans = next(groups)
    assert list(first) == names(tmp_path, "a")
    assert isinstance(second[str(tmp_path / "a/late")], Invalid)


def test_a_defect_is_raised_and_is_no_answer(
    source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> None:
        raise ZeroDivisionError(path)

    monkeypatch.setattr(plans, "existing", broken)
    with pytest.raises(ZeroDivisionError):
        next(plan_syncs(source, names(tmp_path, "a", "b"), ()))
