"""The small files of a store that travel: which names they have, and the most bytes that a reader takes of each.

A far store and a bag are written by others, so a name becomes a path only if it is one of these, and no more of it is
read than its bound (FORMAT.md 2.1). Pins and the names of releases stay where they are; of the log each way has its own
rule.
"""

from __future__ import annotations

import re

from store.disk.layout import DRAFTS, MISSIONS, ORDERS, RECEIPTS, RESULTS, ROOT_FILE, TOML, TOML_LIMIT, TRUST, WITHDRAWN
from store.format import withdrawal
from store.format.manifest import ENVELOPE_LIMIT, MISSION_ID
from store.format.receipt import RECEIPT_LIMIT
from store.format.ref import REF_SIZE
from store.trust.root import ROOT_FILE_LIMIT

_KEY = re.compile(r"[0-9a-f]{64}")
# Of each folder the names of its files, and their bound; beside them there is `flightbag.toml`.
BY_FOLDER: dict[str, tuple[tuple[re.Pattern[str], int], ...]] = {
    TRUST: ((ROOT_FILE, ROOT_FILE_LIMIT),),
    DRAFTS: ((MISSION_ID, ENVELOPE_LIMIT), (withdrawal.NAME, withdrawal.FILE_LIMIT)),
    ORDERS: ((_KEY, REF_SIZE),),
    RESULTS: ((_KEY, REF_SIZE),),
    RECEIPTS: ((_KEY, RECEIPT_LIMIT),),
    WITHDRAWN: ((withdrawal.NAME, withdrawal.FILE_LIMIT),),
    MISSIONS: ((MISSION_ID, REF_SIZE),),
}


def limit_of(path: str) -> int | None:
    """Return the most bytes of a small file that travels, None for a path that none has.

    >>> limit_of("missions/north-ridge"), limit_of("missions/../log")
    (65, None)
    """
    if path == TOML:
        return TOML_LIMIT
    folder, _, name = path.rpartition("/")
    return next((limit for pattern, limit in BY_FOLDER.get(folder, ()) if pattern.fullmatch(name)), None)
