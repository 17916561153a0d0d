"""Libraries of engines, each looked at in a process of its own, whatever becomes of that process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from builders.libraries import answer, look
from store.errors import Unavailable

ENDS = {
    "signal": "import os; os.kill(os.getpid(), 4)",
    "status": "import sys; sys.exit(7)",
    "nothing": "pass",
    "text": "import sys; open(sys.argv[2], 'w').write('no JSON')",
    "other": """import sys; open(sys.argv[2], 'w').write('{"host": 1}')""",
    "long": """import sys; open(sys.argv[2], 'w').write('{"host": "' + 'x' * 70000 + '"}')""",
    "types": """import sys; open(sys.argv[2], 'w').write(
    '{"host": "cpu", "version": "1", "error": "", "remedy": "", "providers": [1], "absent": false}')""",
}


def test_a_library_that_is_installed_is_described() -> None:
    found = look("onnxruntime")
    assert found.error == ""
    assert f"ort-{found.version}" in found.host
    assert "CPUExecutionProvider" in found.providers


def test_one_that_is_not_is_absent() -> None:
    found = look("tensorrt")
    if found.error:
        assert (found.absent, bool(found.remedy)) == (True, True)


@pytest.mark.parametrize("way", ENDS)
def test_a_process_that_ends_otherwise_is_no_answer(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loader.py").write_text(ENDS[way])
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    with pytest.raises(Unavailable, match="loads the library of onnxruntime") as caught:
        look("onnxruntime", "loader")
    assert caught.value.kind == "failed"
    assert "install the library again" in caught.value.remedy


def test_an_error_of_a_backend_is_an_answer() -> None:
    def broken(_name: str) -> dict[str, str]:
        raise Unavailable("it is broken", remedy="mend it")

    assert answer("x", broken) == {
        "host": "",
        "version": "",
        "providers": [],
        "error": "it is broken",
        "remedy": "mend it",
        "absent": False,
    }
