"""The check of a checkout under the trust roots that come later."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.disk.media import Media
from store.ground.checkout import check_checkout, checkout
from store.takeoff.evidence import StoreEvidence
from store.trust.root import SignedRoot
from tests.support.missions import ROOT, next_root, sign_root
from tests.support.stores import NORTH, ROOT_FILE, check, make_store


@pytest.mark.parametrize("rotations", [0, 1, 2])
def test_a_record_may_be_older_than_the_pinned_root(tmp_path: Path, rotations: int) -> None:
    store, target = make_store(tmp_path / "store"), tmp_path / "out"
    mission = check(store, NORTH.id).mission
    assert mission is not None
    with Media(store) as media:
        checkout(mission, StoreEvidence(media), str(target))
    root, data = ROOT, ROOT_FILE
    for _ in range(rotations):
        root = next_root(root)
        data = sign_root(root, "root-a")
    assert check_checkout(str(target), SignedRoot.parse(data)) == ()
    record = target / ".flightbag/trust/1.root.cbor"
    record.chmod(0o644)
    record.write_bytes(b"smuggled")
    assert check_checkout(str(target), SignedRoot.parse(data)) != ()


@pytest.mark.parametrize("hard_link", [False, True])
def test_each_byte_is_told_as_written_and_as_read_again(tmp_path: Path, hard_link: bool) -> None:
    store, told = make_store(tmp_path / "store"), dict.fromkeys(("writing", "reading again"), 0)
    mission = check(store, NORTH.id).mission
    assert mission is not None
    size = sum(entry.size for entry in mission.table.entries)

    def progress(what: str, count: int, total: int) -> None:
        assert total == size
        told[what] += count

    with Media(store) as media:
        checkout(mission, StoreEvidence(media), str(tmp_path / "out"), hard_link=hard_link, progress=progress)
    assert told == {"writing": size, "reading again": size}
