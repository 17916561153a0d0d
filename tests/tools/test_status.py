"""What a command ends with when memory or the stack runs out: a message, and never a traceback."""

from __future__ import annotations

import json

import pytest

from tools.fsck import COULD_NOT_CHECK
from tools.status import UNKNOWN, exits


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
        assert err.count("\n") == 2, "a message and a remedy"
        assert not as_json or json.loads(out)["error"]["remedy"]


def test_the_status_is_that_of_the_program() -> None:
    @exits(error_status=lambda _: COULD_NOT_CHECK)
    def command() -> int:
        raise MemoryError

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == COULD_NOT_CHECK
