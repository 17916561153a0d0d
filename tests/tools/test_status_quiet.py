"""-q and -v: what a command prints with them, for every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from store.errors import NotFound
from tests.support.commands import Ran, code_of, flightbag, program
from tests.support.every_command import STORE_FSCK, USES, commands
from tests.support.field import Desk, two_keys
from tools import lines
from tools.lines import Loudness
from tools.status import NO, OK, action, exits, notice, say, settle

# Commands whose output is the answer, as they are used in USES.
ANSWERS = {
    *("keys show", "plan", "status", "ls", "show", "fsck", STORE_FSCK, "help", "remote ls", "verify", "check-proof"),
    *("log", "diff", "map", "stats", "explain-key", "query", "probe", "quality", "trust show", "release show"),
    *("completion", "receipts", "aircraft show", "engines fulfil", "engines show", "engines host", "doctor", "nodes"),
}


def used(name: str, desk: Desk, *more: object) -> Ran:
    args = (*USES[name].args(desk), *more)
    return program(STORE_FSCK, *args) if name == STORE_FSCK else flightbag(*args, columns=80)


@pytest.mark.parametrize("name", USES)
def test_quiet_leaves_an_answer_and_nothing_else(equipped: Desk, name: str) -> None:
    ran = used(name, equipped, "-q")
    assert (ran.status, ran.err, bool(ran.out)) == (0, "", name in ANSWERS), ran
    assert USES[name].is_done(equipped)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_verbose_keeps_the_status(equipped: Desk, name: str) -> None:
    ran = used(name, equipped, "-v")
    assert (ran.status, bool(ran.out)) == (0, True), ran


def test_both_are_a_mistake_wherever_they_stand() -> None:
    for name, _ in commands():
        ran = flightbag("-q", *name.split(), "-v", columns=80)
        assert (ran.status, ran.out) == (16 if name == "fsck" else 2, ""), name
        assert ran.err.startswith("flightbag: -v and -q exclude each other\n  -> usage:"), name
    assert flightbag("-qv", "ls").status == flightbag("trust", "-v", "show", "-q").status == 2


def test_they_stand_at_the_program_a_group_or_the_command(equipped: Desk) -> None:
    whole = re.compile(r"\b[0-9a-f]{64}\b")
    short, *long = (
        flightbag(*args).out
        for args in (
            ("trust", "show", equipped.store),
            ("-v", "trust", "show", equipped.store),
            ("trust", "--verbose", "show", equipped.store),
            ("trust", "show", equipped.store, "-vv"),
        )
    )
    assert not whole.search(short)
    assert whole.search(long[0])
    assert long[0] == long[1] == long[2]
    assert flightbag("trust", "show", equipped.store).out == short


def test_quiet_and_json_print_the_document(equipped: Desk) -> None:
    ran = flightbag("pin", equipped.store, "fresh", "left", "--json", "-q")
    assert (ran.json["pins"][0]["name"], ran.json["ok"], ran.err) == ("fresh", True, "")


def test_quiet_leaves_errors_and_the_result_of_work_that_failed(equipped: Desk) -> None:
    ran = flightbag("pin", equipped.store, "fresh", "lift", "-q")
    assert (ran.status, ran.out) == (1, "")
    assert "lift" in ran.err
    (equipped.folder / "file").write_text("")
    ran = flightbag("sync", equipped.store, equipped.folder / "copy", equipped.folder / "file", "-q")
    assert (ran.status, "copied" in ran.out, "1 of 2 targets failed" in ran.err) == (2, True, True), ran


def test_a_dry_run_and_a_list_are_answers(equipped: Desk) -> None:
    for args in (
        ("gc", equipped.store, "--dry-run"),
        ("sync", equipped.store, equipped.folder / "copy", "--dry-run"),
        ("remove", equipped.store, "left", "--dry-run"),
        ("rollback", equipped.store, "left", "--key", equipped.key, "--dry-run"),
        ("pin", equipped.store),
    ):
        ran, loud = flightbag(*args, "-q"), flightbag(*args)
        assert (ran.status, ran.out) == (0, loud.out), args
        assert ran.out, args


def test_the_store_that_is_taken_is_named_unless_quiet(equipped: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(equipped.store)
    assert flightbag("ls").err
    assert flightbag("ls", "-q").err == ""


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_loudness", Loudness.QUIET)


@pytest.mark.usefixtures("quiet")
class TestHeldBack:
    @pytest.mark.parametrize(("status", "told"), [(OK, ""), (NO, "work\n")])
    def test_the_status_decides(self, capsys: pytest.CaptureFixture[str], status: int, told: str) -> None:
        @action
        def work() -> int:
            say("work")
            notice("it begins")
            return status

        with pytest.raises(SystemExit) as ended:
            work()
        assert (ended.value.code, *capsys.readouterr()) == (status, told, "")

    def test_an_error_brings_out_what_was_done_before_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        @action
        def work() -> int:
            say("the first one is done")
            raise NotFound("there is no second one")

        with pytest.raises(SystemExit):
            work()
        assert capsys.readouterr() == ("the first one is done\n", "flightbag: there is no second one\n")

    def test_what_is_good_is_said_by_the_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        @exits(acts=lambda _: True, good=(OK, NO))
        def work() -> int:
            say("work")
            return NO

        with pytest.raises(SystemExit):
            work()
        assert capsys.readouterr() == ("", "")

    def test_a_result_is_out_before_a_command_goes_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        @action
        def work() -> int:
            say("half of it")
            settle(NO)
            assert capsys.readouterr().out == "half of it\n"
            return NO

        with pytest.raises(SystemExit):
            work()
        assert capsys.readouterr().out == ""


def test_a_file_that_a_quiet_command_writes_is_whole(equipped: Desk, tmp_path: Path) -> None:
    assert flightbag("pack", equipped.store, "left", "-o", tmp_path / "bag.tar", "-q").status == 0
    assert flightbag("unpack", tmp_path / "store", tmp_path / "bag.tar", "-q") == Ran(0, "", "")
    assert flightbag("verify", tmp_path / "store", "left", "--trust", equipped.root).status == 0


def test_quiet_never_hides_that_signatures_are_missing(built: Desk) -> None:
    two_keys(built)
    store, key = built.store, ("--key", built.folder / "planner.key")
    ran = flightbag("build", built.folder / "left.toml", "--store", store, *key, "-q")
    assert (ran.status, "NOT PUBLISHED, a draft" in ran.words) == (0, True), ran
    code = code_of("show", store, "left", "--draft")
    ran = flightbag("sign", store, "left", *key, "--expect", code, "-q")
    assert "left is still a draft, with 1 of 2 signatures" in ran.words
    ran = flightbag("withdraw", store, "left", "--reason", "old", *key, "-q")
    assert (ran.status, "NOT WITHDRAWN: it has 1 of 2 signatures" in ran.words) == (0, True), ran


def test_quiet_never_hides_a_warning_about_what_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone of the example is not trained."""
    (tmp_path / "words").write_text("a passphrase of several words")
    (tmp_path / "words").chmod(0o600)
    monkeypatch.setenv("FLIGHTBAG_PASSPHRASE_FILE", str(tmp_path / "words"))
    key, root, store, example = (tmp_path / name for name in ("p.key", "r.key", "store", "example"))
    for args in (("example", example), ("keys", "new", root), ("keys", "new", key), ("init", store)):
        assert flightbag(*args).status == 0
    keys = ("--root-key", root, "--mission-key", f"{key}.pub")
    assert flightbag("trust", "new", store, "--domain", "fleet", *keys).status == 0
    ran = flightbag("build", example / "valley.toml", "--store", store, "--key", key, "-q")
    assert (ran.status, ran.out.startswith("warning: nothing shows"), "built" in ran.out) == (0, True, False), ran
