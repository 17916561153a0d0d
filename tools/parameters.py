"""What the command line gives a command: `Argument` and `Option`, beside the type of a parameter of its function.

    def verify(store: Annotated[str, Leading(metavar="STORE", help="...", ...)], ...) -> int:

The type is `str`, `int`, `float`, `bool` (an option that takes no value), `Path`, a tuple of these, or a list of one of
them, which may be repeated; what has a default may be left out. `commands` makes a command of such a function. This
module says only what there is: it loads nothing, because the modules of all commands load it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Later:
    """A value that is looked up when the command runs, so that what keeps it from being found is an error of the
    command, with its exit status."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self.look = look


class Parameter:
    """What a person sees of a parameter: its name in usage and help (`metavar`), what it does, the environment variable
    that may give it, and for a number the least and the greatest value.

    `names` are the names of an option, with their dashes; without any, it is called as the parameter of the function.
    """

    def __init__(
        self,
        *names: str,
        help: str,  # noqa: A002 - read where commands are declared, as in every library for command lines
        metavar: str | None = None,
        envvar: str | None = None,
        min: int | None = None,  # noqa: A002
        max: int | None = None,  # noqa: A002
    ) -> None:
        self.names = names
        self.help = help
        self.metavar = metavar
        self.envvar = envvar
        self.least = min
        self.greatest = max


class Argument(Parameter):
    """A parameter that is given by its place."""


class Leading(Argument):
    """The first argument, where it may be left out although others follow it.

    The number of arguments mostly says whether it was given. Where it does not, `is_first` says whether a text is this
    argument or the next one. `resolve` returns the value when the command runs: of the text, None where it was left
    out, and the arguments after it.
    """

    def __init__(
        self,
        *,
        metavar: str,
        help: str,  # noqa: A002
        is_first: Callable[[str], bool],
        resolve: Callable[[str | None, Sequence[str]], Any],
    ) -> None:
        super().__init__(metavar=metavar, help=help)
        self.is_first = is_first
        self.resolve = resolve


class Option(Parameter):
    """A parameter that is given by its name.

    `absent` returns the value where the option is left out, when the command runs. A value that comes from the
    environment gives way to the option `yields_to` on the command line.
    """

    def __init__(
        self,
        *names: str,
        help: str,  # noqa: A002
        metavar: str | None = None,
        envvar: str | None = None,
        min: int | None = None,  # noqa: A002
        max: int | None = None,  # noqa: A002
        absent: Callable[[], Any] | None = None,
        yields_to: str | None = None,
    ) -> None:
        super().__init__(*names, help=help, metavar=metavar, envvar=envvar, min=min, max=max)
        self.absent = absent
        self.yields_to = yields_to
