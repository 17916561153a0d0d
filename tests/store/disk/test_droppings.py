"""Names that something else than this program drops on media: which they are, and that none is of a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.audit.refs import FILES, FOLDERS
from store.disk.droppings import is_dropping
from store.format.manifest import MISSION_ID

# What lies on sticks that were in a Mac, in Windows, in Linux, and in folders that programs synchronise.
DROPPED = [
    *(".DS_Store", "._north-ridge", "._.", ".Spotlight-V100", ".Trashes", ".fseventsd", ".TemporaryItems", ".apdisk"),
    *(
        "desktop.ini",
        "DESKTOP.INI",
        "Thumbs.db",
        "ehthumbs.db",
        "System Volume Information",
        "$RECYCLE.BIN",
        "FOUND.000",
    ),
    *(".VolumeIcon.icns", ".com.apple.timemachine.donotpresent", ".AppleDouble", "Network Trash Folder"),
    *("@eaDir", "#recycle", "LOST.DIR", "FSCK0000.REC", "fsck0001.000", ".goutputstream-9K2LQ2"),
    *(".dropbox", ".dropbox.cache", ".nextcloudsync.log", ".sync_0a1b2c3d4e5f.db", ".sync_0a1b2c3d4e5f.db-wal"),
    *("lost+found", ".Trash-1000", ".directory", ".nfs000000000081d2c400000006", ".fuse_hidden0000000a00000001"),
    *("north-ridge.sync-conflict-20261130-101500-ABCDEFG", "1.root.sync-conflict-20261130-101500-ABCDEFG.cbor"),
    *("log.sync-conflict-20261130-101500-ABCDEFG", ".stfolder", ".stversions", "~syncthing~log.tmp"),
    *("north-ridge (Ada's conflicted copy 2026-11-30)", "log (conflicted copy 2026-11-30 101500)"),
]


@pytest.mark.parametrize("name", DROPPED)
def test_it_is_dropped(name: str) -> None:
    assert is_dropping(name)
    assert not MISSION_ID.fullmatch(name)


@pytest.mark.parametrize(
    "name", ["log", "README", ".hidden", ".DS_Store2", "found.txt", "sync-conflict", "a.tmp", "recycler", "._"]
)
def test_anything_else_is_not(name: str) -> None:
    assert is_dropping(name) == (name == "._")


@given(st.from_regex(MISSION_ID, fullmatch=True) | st.sampled_from(sorted(FOLDERS | FILES)))
def test_nothing_of_a_store_is(name: str) -> None:
    assert not is_dropping(name)
