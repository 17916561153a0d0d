"""The errors that every layer raises: few classes, by what a handler does with them.

An error carries fields, not prose alone: `fields` holds the names and values (object, expected, actual,
path, ...) and `remedy` says what the reader can do. Only the entry points in `tools` print and exit.
"""

from __future__ import annotations

from typing import Self


class FlightbagError(Exception):
    """Base of all errors of this project.

    `message` names the thing and what is wrong with it; `remedy` says what to do next. `kind` is the kind of finding
    that the error amounts to (FORMAT.md 7 and 8), "" where it has none; `errno` is the number that the system gave,
    None where no system call failed. `problems` are the messages of an error that stands for several, `extra` is the
    extra of this package that would mend it, "" for any other error. Code decides by the class and by these, never by
    the words. `fields` are all facts (object, entry, path, expected, actual, ...) for reports.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        kind: str = "",
        errno: int | None = None,
        problems: tuple[str, ...] = (),
        extra: str = "",
        **fields: object,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.kind = kind
        self.errno = errno
        self.problems = problems
        self.extra = extra
        self.fields: dict[str, object] = {**({"kind": kind} if kind else {}), **fields}
        if errno is not None:
            self.fields["errno"] = errno
        if problems:
            self.fields["problems"] = problems
        if extra:
            self.fields["extra"] = extra

    def restated(self, message: str, **fields: object) -> Self:
        """The same error with a message that says more, and further facts; the cause stays that of the original."""
        facts = {**self.fields, **fields}
        other = type(self)(message, remedy=self.remedy, **facts)  # type: ignore[arg-type]
        other.__cause__ = self.__cause__
        return other

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class Invalid(FlightbagError):
    """The input cannot be right: a mission file, an argument, a name. Nothing was done."""


class NotFound(FlightbagError):
    """What was asked for is not there, and that is certain."""


class Corrupt(FlightbagError):
    """Bytes are there and are not what they must be."""


class Untrusted(FlightbagError):
    """Well-formed, but nobody who may has vouched for it."""


class Conflict(FlightbagError):
    """Two truths meet: another trust domain, a newer mission at the target."""


class Refused(FlightbagError):
    """The answer is no: coverage failed, a gate was not met. What was published before stays."""


class Unavailable(FlightbagError):
    """Could not tell or could not do: unreadable, locked, disk full, a missing extra. Never means 'fine'."""
