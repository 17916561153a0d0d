"""Work units, and what runs them. A unit publishes nothing, and needs no store where it runs.

A unit is a picklable request, a function of a module, and a result of bytes with their hashes: compile this model for
this host class, describe this cell, train this index. An executor runs units; `LocalExecutor` runs them on this
machine, with the threads and processes that the functions themselves start; `builders.cluster` runs them on a Ray
cluster. The caller inserts the results.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from builders.artifacts.task import Progress, silent
from builders.engines.base import EngineBackend
from store.format.cbor import Value

Request = TypeVar("Request")
Result = TypeVar("Result")
# A result on its way: a value of `store.format.cbor`, and bytes that travel beside it.
Packed: TypeAlias = tuple[Value, Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a unit needs of the machine that runs it: `host`, a need (FORMAT 4.5), "" for none, and `provider`, an
    execution provider of ONNX Runtime by its name here, "" for none. A unit that `waits` has a time limit of its own,
    and says nothing while it runs."""

    host: str = ""
    provider: str = ""
    waits: bool = False


def no_needs(_request: Any) -> Needs:
    """The needs of a unit that any machine can run."""
    return Needs()


def nothing_common(_request: Any) -> None:
    """The common part of requests that have none."""


def no_files(_request: Any) -> Mapping[Path, Sequence[str]]:
    """The files of a request that names none."""
    return {}


@dataclass(frozen=True, slots=True)
class Travel(Generic[Request, Result]):
    """How a kind of unit runs on another machine.

    `pack` says what travels of a result. `reader` of a request returns the function that makes the result of that: it
    believes nothing, and raises KeyError, TypeError, ValueError or Corrupt for anything that no unit packs; it holds as
    little of the request as it needs. `same` is what must be equal there and here, or the result would mean something
    else. `common` is the object that many requests share, sent once; None for none. `files` are the regular files that
    the request names, each with the names of files below its folder that belong to it; any other path in a request
    becomes a private folder where the unit runs.

    Law: for the result of a request, reader(request)(*pack(result)) equals it, but for the places of its files.
    """

    pack: Callable[[Result], Packed]
    reader: Callable[[Request], Callable[[Any, Sequence[bytes]], Result]]
    same: Callable[[Request], Mapping[str, Value]]
    needs: Callable[[Request], Needs] = no_needs
    common: Callable[[Request], object] = nothing_common
    files: Callable[[Request], Mapping[Path, Sequence[str]]] = no_files


@dataclass(frozen=True, slots=True)
class Work(Generic[Request, Result]):
    """A kind of work unit.

    `one` makes the result of a request; it can run in any process that has the request. `many` makes the results of
    several requests on one machine, in their order; it takes a request when it has room for it. `travel` is how a unit
    runs on another machine.

    Law: `many` of requests gives what `one` gives of each.
    """

    one: Callable[[Request, Progress], Result]
    many: Callable[[Iterable[Request], Progress], Iterator[Result]] | None = None
    travel: Travel[Request, Result] | None = None


class Executor(Protocol):
    """Runs work units. A result that it returns is what the unit's function made of the request, whichever machine ran
    it, and however often."""

    @property
    def width(self) -> int:
        """The number of units that can be under way at once."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What people should know of the units that it ran."""
        ...

    def makes(self, backend: EngineBackend, host: str) -> str:
        """Return why no machine here makes an engine of this backend for this need, "" where one does."""
        ...

    def run(
        self, work: Work[Request, Result], requests: Iterable[Request], progress: Progress = silent
    ) -> Generator[Result, None, None]:
        """Yield the results of the requests, in their order. Close it early, and what is under way ends.

        A request is taken when there is room for it. Raises what the functions of the work raise, and Unavailable where
        the machines that it needs are not there.
        """
        ...

    def run_one(self, work: Work[Request, Result], request: Request, progress: Progress = silent) -> Result:
        """Return the result of one request."""
        ...


class LocalExecutor:
    """Runs work units on this machine."""

    width = 1
    notes: Sequence[str] = ()

    def makes(self, backend: EngineBackend, host: str) -> str:
        return backend.makes(host)

    def run(
        self, work: Work[Request, Result], requests: Iterable[Request], progress: Progress = silent
    ) -> Generator[Result, None, None]:
        if work.many is not None:
            yield from work.many(requests, progress)
        else:
            for request in requests:
                yield work.one(request, progress)

    def run_one(self, work: Work[Request, Result], request: Request, progress: Progress = silent) -> Result:
        return work.one(request, progress)
