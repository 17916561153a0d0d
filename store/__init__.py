"""Flightbag's store: everything that is needed aboard.

    verdict = store.takeoff_check(path, "north-ridge", trust=root_bytes, now=int(time.time()), aircraft="uav-07")
    if verdict.mission is not None:
        engine = store.load(verdict.mission, "engines/...", kind="engine")

Importing this package loads neither lmdb nor any numeric library; nothing here opens an index.
"""

from store.takeoff.check import takeoff_check
from store.takeoff.loading import load
from store.takeoff.mission import Verdict, VerifiedMission

__all__ = ["Verdict", "VerifiedMission", "load", "takeoff_check"]
