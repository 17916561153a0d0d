"""What a node does: it runs one unit of work, and sends back a reply (`parcel`).

The driver sends a unit pickled: whoever may send units to a cluster may run code on it, with or without this program.
What is pickled names three things that are not in it: what many requests have in common, which a process of a node
keeps; the files of the request, which are put into a private folder; and other paths, which become that folder. The
folder goes when the unit ends.
"""

from __future__ import annotations

import io
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from builders.artifacts.executor import Work
from builders.artifacts.shard import forget_networks
from builders.cluster import parcel
from builders.cluster.node import GPU_PROVIDERS
from builders.descriptors.network import share_cores
from builders.engines.failures import failure, unexpected_failure
from builders.files import read_regular
from store.errors import FlightbagError, Invalid, Unavailable
from store.format.cbor import Value

# Files of a request travel in memory.
MAX_FILE = 4 * 2**30
# What many requests have in common holds a network of up to 2 GiB; a mission has some descriptor sets.
_KEPT = 4
_COMMON, _FILE, _FOLDER = "common", "file", "folder"

# The files of a request in their order: the name of each, and (name below its folder, its bytes) of it and those beside
# it.
ShippedFiles: TypeAlias = Sequence[tuple[str, Sequence[tuple[str, Callable[[], bytes]]]]]


@dataclass(frozen=True, slots=True)
class Order:
    """What travels: a kind of work, a request, and what must be equal where it runs."""

    work: Work[Any, Any]
    request: Any
    same: Mapping[str, Value]


@cache
def _version() -> str:
    return metadata.version("flightbag")  # it reads a file


def same_here(work: Work[Any, Any], request: Any) -> dict[str, Value]:
    """Return what must be equal where a request is made and where it runs."""
    assert work.travel is not None
    return {"flightbag": _version(), **work.travel.same(request)}


# -- where the request is made


def packed(order: Order, common: object, files: Sequence[Path]) -> bytes:
    """Return an order as bytes, without what is common and without the content of its files."""
    places = {path: number for number, path in enumerate(files)}

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> tuple[str, int] | None:
            if common is not None and thing is common:
                return _COMMON, 0
            if isinstance(thing, Path):
                return (_FILE, places[thing]) if thing in places else (_FOLDER, 0)
            return None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(order)
    return buffer.getvalue()


def packed_common(common: object) -> bytes:
    """Return what is common to many requests as bytes."""
    return pickle.dumps(common, protocol=pickle.HIGHEST_PROTOCOL)


def read_file(path: Path) -> bytes:
    """Return the bytes of a file of a request. Raise Invalid for one that is too large to travel."""
    return read_regular(path, MAX_FILE, "file", too_large="build with --executor local")


# -- where it runs


_kept: dict[str, object] = {}


def _common(name: str, read: Callable[[], bytes]) -> object:
    """Return what is common to many requests: kept since an earlier one, or read now."""
    if name not in _kept:
        if len(_kept) == _KEPT:
            _kept.clear()
            forget_networks()
        _kept[name] = pickle.loads(read())  # noqa: S301 # from the driver, which may run code here anyway
    return _kept[name]


def run(order: bytes, name: str, common: Callable[[], bytes], files: ShippedFiles) -> bytes:
    """Return the reply to an order. `name` is that of what it has in common with others, "" where it has nothing. An
    error of whatever kind is a reply too."""
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="flightbag-", ignore_cleanup_errors=True) as folder:
            return _run(order, name, common, files, Path(folder), start)
    except FlightbagError as error:
        return parcel.sealed_failure(error)
    except MemoryError:
        return parcel.sealed_failure(failure("out-of-memory", "memory ran out while a unit was running"))
    except OSError as error:
        return parcel.sealed_failure(unexpected_failure(error, tempfile.gettempdir()))
    except Exception:  # noqa: BLE001 # the driver raises it
        return parcel.sealed_unexpected(traceback.format_exc())


def _run(data: bytes, name: str, common: Callable[[], bytes], files: ShippedFiles, folder: Path, start: float) -> bytes:
    paths = [_placed(folder / "files" / str(number), *file) for number, file in enumerate(files)]

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, id_: Any) -> Any:
            what, number = id_
            return _common(name, common) if what == _COMMON else paths[number] if what == _FILE else folder

    order = Unpickler(io.BytesIO(data)).load()
    work = order.work
    _require_same(order.same, same_here(work, order.request))
    # A node runs as many units as it has cores, or one on each GPU, for which many cores decode.
    share_cores(None if work.travel.needs(order.request).provider in GPU_PROVIDERS else 1)
    done: dict[str, int] = {}

    def progress(activity: str, count: int, _total: int) -> None:
        done[activity] = done.get(activity, 0) + max(count, 0)

    value, parts = work.travel.pack(work.one(order.request, progress))
    ms = round((time.monotonic() - start) * 1000)
    return parcel.sealed(parcel.Reply(value, tuple(parts), tuple(done.items()), ms))


def _require_same(there: Mapping[str, Value], here: Mapping[str, Value]) -> None:
    differing = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    if differing:
        key = differing[0]
        raise Unavailable(
            f"this node would make something else: its {key} is {here.get(key)!r}, the driver's {there.get(key)!r}",
            remedy="install the same versions on every node of the cluster as on the machine that builds",
            kind="version",
        )


def _placed(folder: Path, name: str, files: Sequence[tuple[str, Callable[[], bytes]]]) -> Path:
    """Write the files of a request into a folder. Return the path of the first."""
    for inner, read in files:
        relative = PurePosixPath(inner)
        if relative.is_absolute() or ".." in relative.parts:
            raise Invalid(f"{inner!r} does not lie below the folder of {name}")
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read())
    return folder / name
