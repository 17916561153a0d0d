"""Commands made of functions: what a function gets of the command line, and what a person sees of its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import pytest
from click.testing import CliRunner

from tests.support.commands import flightbag
from tests.support.every_command import commands
from tools.commands import command_of
from tools.parameters import Argument, Option
from tools.start import app


def given(function: Any, *args: str, env: dict[str, str] | None = None) -> Any:
    """What the command of a function returns, or the message of the mistake."""
    result = CliRunner(env=env).invoke(command_of("it", function), args, standalone_mode=False)
    if isinstance(result.exception, click.ClickException):
        return result.exception.format_message()
    assert result.exception is None, result.exception
    return result.return_value


def everything(
    where: Annotated[Path, Argument(metavar="WHERE", help="A place.")],
    more: Annotated[list[str] | None, Argument(metavar="MORE", help="More.")] = None,
    count: Annotated[int, Option(min=1, max=9, help="A number.")] = 3,
    part: Annotated[float | None, Option(help="A part.")] = None,
    yes_please: Annotated[bool, Option("--yes", help="Do it.")] = False,
    key: Annotated[list[Path] | None, Option("--key", "-k", metavar="FILE", help="A key.")] = None,
    pair: Annotated[tuple[str, str] | None, Option(metavar="A B", help="Two.")] = None,
    name: Annotated[str | None, Option(envvar="TEST_NAME", metavar="NAME", help="A name.")] = None,
) -> Any:
    """Do it."""
    return [where, more, count, part, yes_please, key, pair, name]


def test_what_is_left_out_has_its_default() -> None:
    assert given(everything, "a") == [Path("a"), None, 3, None, False, None, None, None]


def test_every_type() -> None:
    args = (
        "a",
        "--count",
        "9",
        "b",
        "--part=0.5",
        "--yes",
        "-k",
        "x",
        "--key",
        "y",
        "--pair",
        "p",
        "q",
        "c",
        "--name",
        "n",
    )
    assert given(everything, *args) == [
        *(Path("a"), ["b", "c"], 9, 0.5, True),
        *([Path("x"), Path("y")], ("p", "q"), "n"),
    ]


def test_the_environment_stands_in() -> None:
    assert given(everything, "a", env={"TEST_NAME": "e"})[-1] == "e"
    assert given(everything, "a", "--name", "n", env={"TEST_NAME": "e"})[-1] == "n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "Missing argument 'WHERE'."),
        (("a", "--count", "0"), "Invalid value for '--count': 0 is not in the range 1<=x<=9."),
        (("a", "--count", "one"), "Invalid value for '--count': 'one' is not a valid int"),
        (("a", "--part", "half"), "Invalid value for '--part': 'half' is not a valid float."),
        (("a", "--name"), "Option '--name' requires an argument."),
        (("a", "--pair", "p"), "Option '--pair' requires 2 arguments."),
        (("a", "--yes=1"), "Option '--yes' does not take a value."),
        (("a", "--nmae", "n"), "No such option '--nmae'. Did you mean '--name'?"),
    ],
)
def test_a_mistake_has_a_message(args: tuple[str, ...], message: str) -> None:
    assert str(given(everything, *args)).startswith(message)


def test_a_list_that_is_needed() -> None:
    def needs(
        missions: Annotated[list[str], Argument(metavar="MISSION", help="The missions.")],
        key: Annotated[list[Path], Option("--key", metavar="FILE", help="The keys.")],
    ) -> Any:
        """Need both."""
        return missions, key

    assert given(needs, "a", "b", "--key", "k") == (["a", "b"], [Path("k")])
    assert given(needs, "--key", "k") == "Missing argument 'MISSION...'."
    assert given(needs, "a") == "Missing option '--key'."


HELP = """\
Usage: it [OPTIONS] WHERE [MORE]...

  Do it.

Positional arguments:
  WHERE      A place.
  [MORE]...  More.

Options:
  --count N       A number.  [default: 3; 1<=x<=9]
  --part N        A part.
  --yes           Do it.
  -k, --key FILE  A key.
  --pair A B      Two.
  --name NAME     A name.  [env var: TEST_NAME]
  -v, --verbose   Print ids and lists whole.
  -q, --quiet     Print nothing but answers, errors and findings.
  -h, --help      Show this message and exit.
"""


def test_the_help_has_every_parameter() -> None:
    assert CliRunner().invoke(command_of("it", everything), ["--help"]).output == HELP


def test_a_parameter_without_its_place_is_a_mistake_of_the_program() -> None:
    def bare(where: str) -> None: ...

    with pytest.raises(TypeError, match="where"):
        command_of("bare", bare)


def test_arguments_that_may_be_left_out_stand_in_brackets() -> None:
    usages = {
        name: flightbag(*name.split(), "--help").out.split("\n\n")[0] for name in ("pack", "verify", "show", "ls")
    }
    assert usages == {
        "pack": "Usage: flightbag pack [OPTIONS] [STORE] [MISSION]...",
        "verify": "Usage: flightbag verify [OPTIONS] [STORE] [MISSION]",
        "show": "Usage: flightbag show [OPTIONS] [STORE] MISSION",
        "ls": "Usage: flightbag ls [OPTIONS] [STORE]",
    }


def test_every_number_and_every_text_has_a_name_in_the_help() -> None:
    for name, command in commands(app):
        for one in command.params:
            assert one.metavar or (isinstance(one, click.Option) and one.is_flag), f"{name}: {one.name}"
