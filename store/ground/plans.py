"""The plans of a sync to several targets, made side by side: a medium that does not answer holds up no other.

Each target is looked at in a thread of its own. What is planned goes on without those that are slow, and these follow
when they answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Condition, Thread

from store.disk.layout import check_free, no_store, store_above
from store.errors import FlightbagError, Invalid, NoStore, Unavailable
from store.ground.repository import Repository
from store.ground.seen import Seen
from store.ground.sync import SyncPlan, check_apart, plan_sync

# Targets which have answered wait for the others, because each object is then read once for all: so many seconds, or so
# large a part of the time that is left, in which all has to be copied.
_PATIENCE, _PART = 10.0, 0.25

Plans = Mapping[str, SyncPlan | FlightbagError]


def plan_syncs(
    source: Repository,
    targets: Sequence[str],
    missions: Sequence[str],
    *,
    checksum: bool = False,
    seen: Seen | None = None,
    until: float | None = None,
) -> Iterator[Plans]:
    """Yield the plan of each target, or the error of `plan_sync` for it, in groups: first all that answer together,
    then the others as they answer. A target that does not exist yet has the plan of an empty one.

    Stop waiting at `until` (of time.monotonic), None for never: each target that is left has the error Unavailable
    (kind gave-up). Raise Invalid, before the first group, for a target in the source store or in another target; a
    target of a later group has that error.
    """
    if len(set(targets)) != len(targets):
        check_apart(source, [(target, target) for target in targets])
    answers: dict[str, tuple[str, SyncPlan | BaseException]] = {}
    changed = Condition()

    def look(target: str) -> None:
        real = target
        answer: SyncPlan | BaseException
        try:
            real = os.path.realpath(target)
            with existing(target) as store:
                answer = plan_sync(source, store, missions, checksum=checksum, seen=seen)
        except BaseException as error:  # noqa: BLE001 - of another thread: it is given or raised below
            answer = error
        with changed:
            answers[target] = real, answer
            changed.notify()

    if len(targets) == 1:
        look(targets[0])
    else:
        for target in targets:
            # A daemon: a medium that never answers keeps no process from ending.
            Thread(target=look, args=(target,), daemon=True).start()
    left, places = list(targets), dict[str, str]()
    while left:
        with changed:
            rest = _rest(until)
            changed.wait_for(lambda: answers, rest)
            if answers:
                shortly = _PATIENCE if rest is None else min(_PATIENCE, _PART * rest)
                changed.wait_for(lambda: len(answers) == len(left), shortly)
            group = {target: answers.pop(target) for target in left if target in answers}
        if not group:
            yield {target: _gave_up(target) for target in left}
            return
        if defects := [one for _, one in group.values() if not isinstance(one, SyncPlan | FlightbagError)]:
            raise defects[0]
        plans = {target: one for target, (_, one) in group.items() if isinstance(one, SyncPlan | FlightbagError)}
        later, places = bool(places), places | {target: real for target, (real, _) in group.items()}
        try:
            check_apart(source, list(places.items()))
        except Invalid as error:
            if not later:
                raise
            plans = dict.fromkeys(plans, error)
        for target in group:
            left.remove(target)
        yield plans


@contextmanager
def existing(path: str) -> Iterator[Repository | None]:
    """Yield the store at `path`, or None if nothing lies at `path` yet. Raise if something else lies there."""
    if not os.path.lexists(path):  # first: the error for it looks for stores nearby, on media that may not answer
        if store_above(path) is not None:
            raise no_store(path)
        yield None
        return
    try:
        repository = Repository.open(path)
    except NoStore as error:
        if error.kind != "no-store":
            raise
        check_free(path)
        yield None
        return
    with repository:
        yield repository


def _rest(until: float | None) -> float | None:
    """Return the seconds that are left; None for no end."""
    return None if until is None else max(0.0, until - time.monotonic())


def _gave_up(target: str) -> Unavailable:
    return Unavailable(
        f"could not check: {target} did not answer in time",
        remedy="use another medium, or allow more time with --give-up",
        kind="gave-up",
        path=target,
    )
