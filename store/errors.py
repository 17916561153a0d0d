"""The errors that every layer raises: few classes, named by what a handler does with them.

An error carries its facts beside the message: `fields` maps names to values (object, expected, actual, path, ...), and
`remedy` tells the reader what to do next. Code decides by the class, by `kind`, `errno`, `object_id`, or by a typed
attribute of a subclass, never by words and never by a look into `fields`. A message does not change after the error was
raised: `restated` makes a copy. Errors print nothing and end no process; only the entry points in `tools` do.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

# A full disk, a quota, and a file that outgrows a limit of the process or of the file system.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FlightbagError(Exception):
    """Base of all errors of this project.

    `message` names the thing and what is wrong with it; `remedy` names the next step, "" where there is none. `kind` is
    the kind of finding that the error amounts to (FORMAT.md 7 and 8), "" where it has none. `errno` is the error number
    of the system call that failed, None where none did. `fields` holds all facts (object, entry, path, expected,
    actual, ..., `kind` and `errno` among them) for reports.
    `problems` are the messages of an error that stands for several, () for one; `extra` is the extra of this package
    that would mend it, "" for any other error. Code decides by the class and by these attributes, never by the words.
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

    @property
    def object_id(self) -> str:
        """The id of the object that the error is about, in hex; "" where it is about no object."""
        return str(self.fields.get("object", ""))

    def restated(self, message: str, *, remedy: str = "", **fields: object) -> Self:
        """Return a copy of the error with another message, and with another remedy and further facts where given.

        Class, cause, kind, errno and all other facts are those of the original, which does not change.
        """
        facts = {**self.fields, **fields}
        other = type(self)(message, remedy=remedy or self.remedy, **facts)  # type: ignore[arg-type]
        other.__cause__ = self.__cause__
        return other

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class Invalid(FlightbagError):
    """The input (a mission file, an argument, a name) breaks a rule. Nothing was changed."""


class NotFound(FlightbagError):
    """The thing that was asked for does not exist, and that is certain."""


class Corrupt(FlightbagError):
    """The bytes exist and are not what they must be."""


class Untrusted(FlightbagError):
    """The bytes are well-formed, but nobody who is entitled to vouch for them has done so."""


class Conflict(FlightbagError):
    """Two valid states contradict each other: another trust domain, a newer mission at the target."""


class Refused(FlightbagError):
    """A gate of the build or of the publication was not met. The missions published before stay as they are."""


class Unavailable(FlightbagError):
    """The answer is unknown or the work could not be done: unreadable, locked, disk full, a missing extra.

    It never means that all is well.
    """


class NoStore(Unavailable):
    """No store can be opened at the path: nothing was looked at, so nothing is known about what a store may hold."""


def either(names: Sequence[str]) -> str:
    """Return alternatives as a text: `a`, `a or b`, `a, b or c`; "" for none."""
    *others, last = names or ("",)
    return f"{', '.join(others)} or {last}" if others else last


# The most names that a remedy offers, and the most that it compares.
_OFFERED, _COMPARED = 3, 1000


def instead_of(word: str, names: Sequence[str]) -> str:
    """Return the remedy for a name that is none of `names`: those that are like it or have it in them, else the first
    few; "" for none."""
    if not names:
        return ""
    from difflib import get_close_matches  # takes milliseconds, and only a mistake needs it

    like = get_close_matches(word[:80].lower(), names[:_COMPARED], n=_OFFERED)
    like = like or [name for name in names if len(word) > 2 and word in name][:_OFFERED]
    more = [f"one of {len(names) - _OFFERED} more"] if not like and len(names) > _OFFERED else []
    return f"give {either([*(like or names[:_OFFERED]), *more])}"


def no_space(path: str, number: int = errno.ENOSPC) -> Unavailable:
    """Return the error for a file or a folder that takes no more bytes, "" for one that the system did not name;
    `number` is one of NO_SPACE."""
    from tempfile import gettempdir  # slow to load, and only this error needs it

    temporary = os.path.realpath(gettempdir())
    what, remedy = path, "free some space there; finished work is kept"
    if not path:
        what = f"a file that the command writes, perhaps a temporary one in {temporary}"
        remedy = f"free some space on the disk of the store and on that of {temporary}; finished work is kept"
    elif os.path.realpath(path).startswith(os.path.join(temporary, "")):
        remedy = "free some space there, or name another folder for temporary files in TMPDIR; finished work is kept"
    return Unavailable(
        f"no space is left for {what}: {os.strerror(number)}",
        remedy=remedy,
        kind="no-space",
        errno=number,
        path=path,
    )
