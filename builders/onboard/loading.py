"""Opening a mission's engines, aboard or on the ground: from verified bytes, by the backend that made them.

    >>> from builders.onboard.loading import open_engine
    >>> session = open_engine(mission, "embedder")
    >>> [tensor.name for tensor in session.inputs], [tensor.name for tensor in session.outputs]
    (['image'], ['descriptor'])

Nothing is opened by a path that another user can write to. Weights in a file of their own, which a library wants to
map, are written to a private file; it is gone when the engine is open.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from builders.engines.backends import backend, this_host
from builders.engines.base import EngineBackend, EngineSession
from builders.engines.failures import failure
from builders.engines.session import WEIGHTS
from store.errors import NotFound, Unavailable
from store.takeoff.engines import Engine, engine_for, engines_of
from store.takeoff.loading import load
from store.takeoff.mission import VerifiedMission

# A file system in memory: nothing is written to a disk, and nothing has to be read back.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder made in it is private


def open_engine(mission: VerifiedMission, backbone: str) -> EngineSession:
    """Return the engine of a backbone of a verified mission, ready to run: of several, the one of `engine_aboard`.

    Raises Refused where this machine does not meet the host class that the engine needs, Invalid where the library does
    not take the engine, Corrupt or Unavailable where the medium no longer gives the verified bytes, and as
    `engine_aboard` does.
    """
    parts = {entry.meta["part"]: entry for entry in engine_aboard(mission, backbone).entries}
    entry = parts["model"]
    library, host = backend(entry.meta["backend"]), entry.meta["host"]
    engine = load(mission, entry.name, kind="engine")
    weights = load(mission, parts["weights"].name, kind="engine") if "weights" in parts else None
    return open_parts(library, host, engine, weights)


def engine_aboard(mission: VerifiedMission, backbone: str) -> Engine:
    """Return the engine of a backbone that flies here (FORMAT.md 4.5): the one that the class loads for which the
    mission was verified, or this machine's where none was asked.

    Raises NotFound where the mission has no engine of that backbone, Refused where it has none for that class.
    """
    every = engines_of(mission.table.entries)
    engines = [engine for engine in every.get(backbone, ()) if any(e.meta["part"] == "model" for e in engine.entries)]
    if not engines:
        raise NotFound(
            f"mission {mission.facts.id} has no engine of a backbone {backbone}",
            remedy=f"its backbones are {', '.join(sorted(every)) or 'none'}",
            backbone=backbone,
        )
    if len(engines) == 1:
        return engines[0]  # whoever opens it says what is lacking
    host = mission.host or this_host(sorted({engine.entries[0].meta["backend"] for engine in engines}))
    engine = engine_for(engines, host)
    if engine is None:
        needs = " or ".join(engine.need for engine in engines)
        message = (
            f"the engines of {backbone} need {needs}, this machine is {host or 'of no class: no backend runs here'}"
        )
        raise failure("wrong-host", message, host=host)
    return engine


def open_parts(library: EngineBackend, host: str, engine: memoryview, weights: memoryview | None) -> EngineSession:
    """Return the session of an engine that needs the host class `host`; `weights` is None where the engine has them
    inside. The caller has hashed both."""
    if weights is None:
        return library.load(engine, host)
    with private_file(WEIGHTS, weights) as path:
        return library.load(engine, host, path)


@contextmanager
def private_file(name: str, data: memoryview) -> Iterator[Path]:
    """Give a file of this name with these bytes, in a folder that only this user can enter.

    The folder goes when the block ends; what is mapped by then stays mapped. Raises Unavailable where the file cannot
    be written.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="flightbag-", dir=_folder_with_room(len(data)))
            )
            path = Path(folder) / name
            path.write_bytes(data)
        except OSError as error:
            raise Unavailable(
                f"the private copy of {name} cannot be written: {error.strerror}",
                remedy="free some space, or name another folder for temporary files in TMPDIR",
            ) from error
        yield path


def _folder_with_room(size: int) -> Path | None:
    """Shared memory where it has room for `size` bytes; else None, which stands for the folder of temporary files."""
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return None
    room = status.f_bavail * status.f_frsize
    return _SHARED_MEMORY if room > size and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None
