"""Both verifiers say the same of changed and re-signed stores: a sample of the 10,000 of `make fuzz`."""

from __future__ import annotations

import pytest

from tests.conformance.side_by_side import CHANGES, Answer, agree, run

EACH = 6
STORES = EACH * len(CHANGES)


def test_a_sample() -> None:
    counts, differing = run(STORES, seed=20)
    assert not differing, "\n".join(map(str, differing))
    assert sum(counts[name, "by another kind"] for name in CHANGES) < STORES // 20
    assert STORES // 10 < sum(counts[name, "GO"] for name in CHANGES) < STORES // 2
    assert counts["nothing", "GO"] > 0
    assert all(counts[name, "GO"] + counts[name, "NO-GO"] == EACH for name in CHANGES)


def no_go(*findings: str) -> Answer:
    return False, frozenset((one[0], one[2:]) for one in findings)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ((True, frozenset()), (True, frozenset()), "yes"),
        ((True, frozenset()), no_go("E expired"), "no"),
        ((True, frozenset()), "no-store", "no"),
        (no_go("E expired"), no_go("E expired", "F missing"), "no"),
        (no_go("E expired"), no_go("E stale-imagery"), "no"),
        (no_go("E bad-field"), no_go("E bad-order"), "by another kind"),
        (no_go("E bad-field"), no_go("E threshold"), "no"),
        (no_go("E bad-field"), no_go("E bad-field", "E bad-order"), "no"),
        (no_go("F bad-entry"), no_go("F bad-order"), "no"),
        (no_go("F truncated"), no_go("F bit-flip"), "no"),
        (no_go("D bad-field"), no_go("D not-canonical"), "by another kind"),
        (no_go("D bad-field"), no_go("D bad-count"), "no"),
        (no_go("C threshold"), no_go("C bad-signature"), "by another kind"),
        (no_go("C threshold"), no_go("B threshold"), "no"),
        (no_go("A bad-field", "B threshold"), no_go("A bad-order", "B bad-field"), "no"),
    ],
)
def test_what_agrees(one: Answer, other: Answer, said: str) -> None:
    assert agree(one, other) == agree(other, one) == said
