"""What the command line gives a command: `Argument` and `Option`, beside the type of a parameter of its function.

    def verify(store: Annotated[str, Argument(metavar="STORE", help="...")], ...) -> int:

The type is `str`, `int`, `float`, `bool` (an option that takes no value), `Path`, a tuple of these, or a list of one of
them, which may be repeated; what has a default may be left out. `commands` makes a command of such a function. This
module says only what there is: it loads nothing, because the modules of all commands load it.
"""

from __future__ import annotations


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


class Option(Parameter):
    """A parameter that is given by its name."""
