"""What a command ends with when memory or the stack runs out: a message, and never a traceback."""

from __future__ import annotations

import errno
import json

import pytest

from store.errors import NO_SPACE, Unavailable
from tools.fsck import COULD_NOT_CHECK
from tools.status import UNKNOWN, exits, fail


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("maximum recursion depth exceeded")])
def test_exhaustion_is_a_message(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    @exits()
    def command(*, as_json: bool) -> int:
        raise error

    for as_json in (False, True):
        with pytest.raises(SystemExit) as ended:
            command(as_json=as_json)
        assert ended.value.code == UNKNOWN
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert err.count("\n  -> ") == 1, "a message and a remedy"
        assert not as_json or json.loads(out)["error"]["remedy"]


@pytest.mark.parametrize("number", NO_SPACE)
def test_a_full_disk_is_a_message(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    @exits()
    def command(*, as_json: bool) -> int:
        raise OSError(number, "words", "some/file")

    with pytest.raises(SystemExit) as ended:
        command(as_json=True)
    assert ended.value.code == UNKNOWN
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["kind"] == "no-space"
    assert "no space is left for some/file" in err
    assert "free some space" in err


def test_any_other_error_of_the_system_is_one_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    @exits()
    def command() -> int:
        raise OSError(errno.EBADF, "words")

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == UNKNOWN
    assert "Traceback" in capsys.readouterr().err


def test_a_remedy_of_several_lines_is_printed_on_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Its lines may come from the log of a library: none begins like one of ours."""
    fail(Unavailable("a\nb", remedy="read the log:\nflightbag: GO\n\x1b[2J"), as_json=False)
    assert capsys.readouterr().err == ("flightbag: a\\nb\n  -> read the log:\n     flightbag: GO\n     \\x1b[2J\n")


def test_the_status_is_that_of_the_program() -> None:
    @exits(error_status=lambda _: COULD_NOT_CHECK)
    def command() -> int:
        raise MemoryError

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == COULD_NOT_CHECK
