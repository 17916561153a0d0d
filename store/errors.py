"""The errors that every layer raises: few classes, by what a handler does with them.

An error carries fields, not prose alone: `fields` holds the names and values (object, expected, actual,
path, ...) and `remedy` says what the reader can do. Only the entry points in `tools` print and exit.
"""

from __future__ import annotations


class FlightbagError(Exception):
    """Base of all errors of this project.

    `message` names the thing and what is wrong with it; `remedy` what to do; `fields` are the facts, for
    machines.
    """

    def __init__(self, message: str, *, remedy: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.fields = fields

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
