"""The takeoff check of one mission in a store folder, without an aircraft's state.

>>> from store import takeoff_check
>>> verdict = takeoff_check(store_path, "north-ridge", trust=root_bytes, now=now, host="cpu-x86_64-avx2")
>>> verdict.go, verdict.findings
(True, ())
>>> verdict.mission.code  # two people compare it over the radio
'9AJ6A-ZYP4V'
>>> verdict.not_judged
('aircraft', 'flight', 'rollback')
"""

from __future__ import annotations

import os

from store.disk.layout import open_store
from store.format.host import require_host_class
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, Verdict
from store.takeoff.verify import pinned_root, verify_mission


def takeoff_check(
    store: str | os.PathLike[str],
    mission: str,
    *,
    trust: bytes,
    now: int | None,
    aircraft: str | None = None,
    host: str | None = None,
) -> Verdict:
    """Return the verdict of steps A to F of the takeoff check (FORMAT.md 7) for one mission of a store.

    `trust` is the bytes of the pinned root file, `now` whole unix seconds by a trusted clock, None without one. A store
    on a removable medium is read from the medium, past the page cache. Without `aircraft` or `host` the verdict lists
    them as not judged.

    The mission may fly exactly if `verdict.mission` is not None; it reads from the store folder as long as it is in
    use. Raise NoStore or Unavailable if the store cannot be opened, Untrusted if the pinned root cannot be used, and
    Invalid for a `host` that is not a host class (FORMAT.md 4.5) and for another `now`.
    """
    if host is not None:
        require_host_class(host)
    binding = Binding(now, aircraft, host)
    evidence = StoreEvidence(open_store(store, drop_cache=None))
    return verify_mission(evidence, mission, pinned_root(trust), binding)
