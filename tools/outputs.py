"""Where a command may write a file for people: not into a store, and over no file of somebody else.

Each kind of file has a mark near its beginning, which no other program writes: a file with the mark is replaced.
"""

from __future__ import annotations

from pathlib import Path

from store.errors import Invalid
from tools import keyfiles

# The mark of a file is among so many bytes.
_HEAD = 200


def check_output(path: Path, option: str, mark: bytes) -> None:
    """Raise Invalid for a path in a store, in no folder, or of a file of another kind, such as the area of the mission
    or a picture of the camera: the work that fills the file may take hours."""
    keyfiles.refuse_store(path)
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise Invalid(f"{option} {path} is no place for a file", remedy="give a file in a folder that exists")
    if path.exists() and not _has(path, mark):
        raise Invalid(
            f"{option} {path} is a file that this option did not write, and would be lost",
            remedy="give the path of a new file",
            path=str(path),
        )


def _has(path: Path, mark: bytes) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return mark in file.read(_HEAD)
    except OSError:
        return False
