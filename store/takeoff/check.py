"""The takeoff check of one mission of a store folder, without an aircraft's state."""

from __future__ import annotations

import os

from store.disk.media import Media
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, Verdict
from store.takeoff.verify import pinned_root, verify_mission


def takeoff_check(
    store: str | os.PathLike[str],
    mission: str,
    *,
    trust: bytes,
    now: int,
    aircraft: str | None = None,
    host: str | None = None,
) -> Verdict:
    """Verifies one mission of a store: steps A to F of the takeoff check.

    `trust` is the pinned root file's bytes, `now` unix seconds. GO is `verdict.mission is not None`. Raises
    Unavailable or NotFound where the store itself cannot be opened, Untrusted for an unusable pinned root. The
    verdict's mission reads from the store as long as it is in use.
    """
    evidence = StoreEvidence(Media(store))
    return verify_mission(evidence, mission, pinned_root(trust), Binding(now, aircraft, host))
