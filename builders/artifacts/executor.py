"""Work units, and what runs them. A unit publishes nothing, and needs no store where it runs.

A unit is a picklable request, a function of a module, and a result of bytes with their hashes: compile this model for
this host class, describe this cell, train this index. An executor runs units; `LocalExecutor` runs them on this
machine, with the threads and processes that the functions themselves start. The caller inserts the results.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from builders.artifacts.task import Progress, silent

Request = TypeVar("Request")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Work(Generic[Request, Result]):
    """A kind of work unit.

    `one` makes the result of a request; it can run in any process that has the request. `many` makes the results of
    several requests on one machine, in their order; it takes a request when it has room for it.

    Law: `many` of requests gives what `one` gives of each.
    """

    one: Callable[[Request, Progress], Result]
    many: Callable[[Iterable[Request], Progress], Iterator[Result]] | None = None


class LocalExecutor:
    """Runs work units on this machine."""

    def run(
        self, work: Work[Request, Result], requests: Iterable[Request], progress: Progress = silent
    ) -> Generator[Result, None, None]:
        """Yield the results of the requests, in their order. Close it early, and what is under way ends.

        Raises what the functions of the work raise.
        """
        if work.many is not None:
            yield from work.many(requests, progress)
        else:
            for request in requests:
                yield work.one(request, progress)

    def run_one(self, work: Work[Request, Result], request: Request, progress: Progress = silent) -> Result:
        """Return the result of one request."""
        return work.one(request, progress)
