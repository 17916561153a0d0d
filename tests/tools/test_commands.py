"""Commands made of functions: what a function gets of the command line, and what a person sees of its parameters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import click
import pytest
from click.testing import CliRunner

from tests.support.commands import flightbag
from tests.support.every_command import USES, commands, every_command
from tests.support.field import Desk
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


# -- what a command finds that was left out


def test_sync_and_unpack_without_their_first_store(
    built: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(built.store)
    assert flightbag("sync", tmp_path / "copy", "--json").status == 0
    assert (tmp_path / "copy" / "missions" / "left").exists()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bag.tar").touch()
    ran = flightbag("unpack", "bag.tar", env={"FLIGHTBAG_STORE": str(tmp_path / "new")})
    assert (ran.status, (tmp_path / "new").exists()) == (3, False), ran.err


def test_every_command_that_takes_a_store_finds_it(equipped: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use of a command in the store, with STORE left out, ends as it does with it."""
    monkeypatch.chdir(equipped.store)
    tried = 0
    for name in sorted(every_command() - {"store-fsck", "gc"}):
        args = [str(one) for one in USES[name].args(equipped)]
        if args.count(str(equipped.store)) != 1 or USES[name].makes or USES[name].removes:
            continue
        at = args.index(str(equipped.store))
        left_out = args[: at - 1] + args[at + 1 :] if args[at - 1] == "--store" else args[:at] + args[at + 1 :]
        ran, short = flightbag(*args), flightbag(*left_out)
        assert (short.status, ran.status in (0, 1)) == (ran.status, True), (name, short.err)
        assert f"flightbag: store {equipped.store}" in short.err, name
        tried += 1
    assert tried > 15


def test_verify_always_says_which_store(built: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, words in ((built.folder, ("ground",)), (built.store, ()), (built.store / "trust", ("left",))):
        monkeypatch.chdir(folder)
        ran = flightbag("verify", *words, "--trust", built.root)
        assert (ran.status, ran.out.splitlines()[0]) == (0, f"store {built.store}")
        assert flightbag("verify", *words, "--trust", built.root, "--json").json["store"] == str(built.store)


# -- what else the environment gives


def test_the_environment_gives_the_trust_root(built: Desk, tmp_path: Path) -> None:
    env = {"FLIGHTBAG_TRUST": str(built.root)}
    assert flightbag("verify", built.store, env=env).status == 0
    inside = {"FLIGHTBAG_TRUST": str(built.store / "trust" / "1.root.cbor")}
    ran = flightbag("verify", built.store, env=inside)
    assert (ran.status, "lies inside" in ran.err) == (2, True)
    monkey = {"FLIGHTBAG_TRUST": "1.root.cbor", "FLIGHTBAG_STORE": str(built.store)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(built.store / "trust")
        ran = flightbag("verify", env=monkey)
    assert (ran.status, "lies inside" in ran.err) == (2, True)


def test_a_passphrase_file_of_the_environment_is_left_out_where_no_key_is_opened(built: Desk, tmp_path: Path) -> None:
    env = {"FLIGHTBAG_PASSPHRASE_FILE": str(tmp_path / "nowhere")}
    assert flightbag("verify", built.store, "--trust", built.root, env=env).status == 0
    assert flightbag("keys", "new", tmp_path / "bare.key", "--no-passphrase", env=env).status == 0
    ran = flightbag("keys", "new", tmp_path / "none.key", env=env)
    assert (ran.status, "nowhere" in ran.err, (tmp_path / "none.key").exists()) == (2, True, False)
    ran = flightbag("verify", built.store, "--trust", built.root, "--passphrase-file", tmp_path / "nowhere")
    assert (ran.status, "need --receipt-key" in ran.err) == (2, True)


def test_what_is_given_is_not_contradicted_by_the_environment(built: Desk, tmp_path: Path) -> None:
    env = {"FLIGHTBAG_STATE": str(tmp_path / "state"), "FLIGHTBAG_TRUST": str(tmp_path / "none")}
    assert flightbag("verify", built.store, "--trust", built.root, env=env).status == 0
    ran = flightbag("verify", built.store, env=env)
    assert (ran.status, "only one of them may be set" in " ".join(ran.err.split())) == (2, True)
    host = ("--id", "uav-07", "--host", "cpu", "--trust", built.root)
    assert flightbag("aircraft", "enrol", *host, env=env).status == 0
    assert flightbag("aircraft", "show", "--json", env=env).json["id"] == "uav-07"
    only = {"FLIGHTBAG_STATE": env["FLIGHTBAG_STATE"]}
    assert flightbag("verify", built.store, "--trust", built.root, env=only).status == 0


def test_the_environment_gives_keys_and_their_passphrase(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("four words or more\n")
    env = {"FLIGHTBAG_PASSPHRASE_FILE": str(tmp_path / "words"), "FLIGHTBAG_STORE": str(desk.store)}
    assert flightbag("keys", "new", tmp_path / "a key", env=env).status == 0
    draft = tmp_path / "next.draft"
    assert flightbag("trust", "add-key", draft, "root", f"{tmp_path}/a key.pub", env=env).status == 0
    code = flightbag("trust", "show", draft, "--json").json["code"]
    keys = {"FLIGHTBAG_KEY": os.pathsep.join((str(desk.folder / "owner.key"), str(tmp_path / "a key")))}
    ran = flightbag("trust", "sign", draft, "--expect", code, "--json", env=env | keys)
    assert (ran.status, len(ran.json["signers"])) == (0, 2), ran.err
    assert f"flightbag: --key {desk.folder / 'owner.key'} {tmp_path / 'a key'}, by FLIGHTBAG_KEY" in ran.err
    assert "by FLIGHTBAG_PASSPHRASE_FILE" in ran.err
    ran = flightbag("trust", "show", desk.store, "-q", env=env | keys)
    assert (ran.status, ran.err) == (0, "")
