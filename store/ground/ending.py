"""What a trust root ends: the missions, releases, results and withdrawals of a store that hold now and not under it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from store.disk.layout import RESULTS
from store.errors import Corrupt, FlightbagError
from store.format.ref import ref_id
from store.ground import orders, releases, withdrawals
from store.ground.repository import Repository
from store.takeoff.mission import Opened
from store.takeoff.verify import check_for_all, open_manifest, read_release
from store.trust.root import SignedRoot
from store.values import dataclass


@dataclass(frozen=True, slots=True)
class Ended:
    """What does not hold any more, by name, each with the reason. `missions` no aircraft flies then; `releases` approve
    nothing, and no build relies on `results` (by build key); `withdrawals` ground what they are about all the same.
    `drafts` are of the trust root before, so that nobody can publish them.
    """

    missions: dict[str, str]
    releases: dict[str, str]
    results: dict[str, str]
    withdrawals: dict[str, str]
    drafts: tuple[str, ...]


def ended_by(repository: Repository, new: SignedRoot) -> Ended:
    """Return what a trust root ends that follows the newest one of the store. Nobody has to have signed it yet, and
    nothing is written."""
    if not repository.evidence.root_versions():
        return Ended({}, {}, {}, {}, ())
    before = repository.trust_root()
    evidence = repository.evidence

    def mission(name: str, root: SignedRoot) -> None:
        opened = open_manifest(evidence, ref_id(evidence.ref(name)), root)
        findings = check_for_all(evidence, opened, name) if isinstance(opened, Opened) else opened
        if findings:
            raise Corrupt("; ".join(finding.message for finding in findings), kind=findings[0].kind)

    ids = releases.listed(repository)
    keys = {str(key): key for key in orders.keys_in(repository.media, RESULTS)}

    def ended(names: Iterable[str], check: Callable[[str, SignedRoot], object]) -> dict[str, str]:
        """Return the names that pass the check under the root of now, and not under the new one."""
        reasons = {}
        for name in names:
            if not _failure(check, name, before) and (why := _failure(check, name, new)):
                reasons[name] = why
        return reasons

    return Ended(
        ended(repository.missions(), mission),
        ended(ids, lambda name, root: read_release(evidence, ids[name], root.root)),
        ended(keys, lambda name, root: orders.read_result(evidence, keys[name], root.root)),
        ended(withdrawals.names(repository), lambda name, root: withdrawals.standing(repository, name, root.root)),
        tuple(evidence.drafts()),
    )


def _failure(check: Callable[[str, SignedRoot], object], name: str, root: SignedRoot) -> str:
    try:
        check(name, root)
    except FlightbagError as error:
        return error.message
    return ""
