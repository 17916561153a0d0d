"""Differences in bags: the object comes out, or nothing is published."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from store.disk.media import object_path
from store.ground.repository import Repository
from store.remotes.delta import difference
from store.remotes.pack import Pack, plan_pack, write_part
from store.remotes.tar import Member, padding, render, render_comment
from tests.store.remotes.test_pack import names_in, part_of
from tests.store.remotes.test_unpack import refused, take
from tests.support.stores import NORTH, SOUTH, audit, check, copy_of, later, make_store, overwrite, publish

pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
RANDOM = Random(0)
OLD = RANDOM.randbytes(400_000)
NEW = OLD[:200_000] + RANDOM.randbytes(30_000) + OLD[230_000:]
BEFORE, AFTER = later(NORTH, big=OLD), later(later(NORTH, big=OLD), big=NEW)
SAVED = len(NEW) // 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store with both versions of a mission, and one with the first."""
    folder = tmp_path_factory.mktemp("made")
    there = make_store(folder / "there", BEFORE, SOUTH)
    here = copy_of(there, folder / "here")
    publish(here, AFTER)
    return here, there


def plan(here: Path, there: Path | None, split: int | None = None) -> Pack:
    with Repository.open(here) as source:
        if there is None:
            return plan_pack(source, None, (), delta=True)
        with Repository.open(there) as target:
            return plan_pack(source, target, (), split=split, delta=True)


def parts(here: Path, there: Path, split: int | None = None) -> list[bytes]:
    pack = plan(here, there, split)
    with Repository.open(here) as source:
        return [part_of(pack, number, source) for number in range(len(pack.parts))]


def test_what_is_much_like_an_object_of_the_other_side_goes_as_the_difference(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    here, there = made
    [bag] = parts(here, there)
    assert parts(here, there) == [bag]
    [one] = [name for name in names_in(bag) if name.startswith("deltas/")]
    ids = AFTER.entry("files/big").id, BEFORE.entry("files/big").id
    assert one == f"deltas/{ids[0]}-{len(NEW)}/{ids[1]}"
    assert object_path(ids[0]) not in names_in(bag)
    assert len(bag) < SAVED
    target = copy_of(there, tmp_path / "target")
    done = take(bag, target)
    assert done.plan is not None
    assert done.bytes > len(NEW)
    assert check(target, AFTER.id).go
    assert not audit(target).errors
    again = take(bag, target)
    assert (again.inserted, again.present) == (0, done.inserted)


def test_without_a_version_at_the_other_side_objects_go_whole(made: tuple[Path, Path], tmp_path: Path) -> None:
    assert plan(made[0], None).differences == ()
    assert plan(made[0], make_store(tmp_path / "other", SOUTH)).differences == ()


def test_a_source_that_has_no_base_any_more_packs_whole(made: tuple[Path, Path], tmp_path: Path) -> None:
    here = copy_of(made[0], tmp_path / "here")
    (here / object_path(BEFORE.entry("files/big").id)).unlink()
    assert plan(here, made[1]).differences == ()


def test_a_difference_that_no_part_holds_gives_way_to_pieces(made: tuple[Path, Path], tmp_path: Path) -> None:
    here, there = made
    assert len(plan(here, there, 50_000).differences) == 1
    split = 25_000
    assert plan(here, there, split).differences == ()
    small = parts(here, there, split)
    target = copy_of(there, tmp_path / "target")
    for bag in reversed(small):
        last = take(bag, target)
    assert last.plan is not None
    assert check(target, AFTER.id).go


def changed(made: tuple[Path, Path], change: Callable[[bytes], bytes]) -> bytes:
    """A bag whose difference was changed by somebody who keeps its head and headers right."""
    here, there = made
    pack = plan(here, there)
    [item] = pack.differences
    with Repository.open(here) as source:
        bag = part_of(pack, 0, source)
    frame = difference(OLD, NEW)
    old = render(Member(item.path, item.size)) + frame + padding(item.size)
    assert old in bag
    new = change(frame)
    head = pack.heads[0]
    told = replace(head, bytes=head.bytes - len(frame) + len(new))
    bag = render_comment(told.render()) + bag[len(render_comment(head.render())) :]
    return bag.replace(old, render(Member(item.path, len(new))) + new + padding(len(new)))


@pytest.mark.parametrize(
    "change",
    [
        lambda _: difference(OLD, NEW[:-1] + b"?"),
        lambda _: difference(OLD, OLD),
        lambda _: difference(b"", bytes(2**20)),
        lambda frame: frame[:-1],
        lambda frame: frame + b"\0",
        lambda frame: frame[:40] + bytes([frame[40] ^ 1]) + frame[41:],
        lambda frame: bytes(len(frame)),
    ],
    ids=["another object", "the base", "zeros", "cut off", "a byte more", "a bit flipped", "no frame"],
)
def test_a_difference_that_gives_other_bytes_publishes_nothing(
    made: tuple[Path, Path], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    target = copy_of(made[1], tmp_path / "target")
    ref = (target / "missions" / AFTER.id).read_bytes()
    error = refused(changed(made, change), target)
    assert error.kind in ("bad-delta", "bad-header")
    assert "bag.tar" in error.message
    assert (target / "missions" / AFTER.id).read_bytes() == ref
    assert not (target / object_path(AFTER.entry("files/big").id)).exists()
    assert check(target, AFTER.id).go


def test_no_folder_of_objects_gets_more_than_it_may_have_by_a_difference(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [bag] = parts(*made)
    target = copy_of(made[1], tmp_path / "target")
    shard = (target / object_path(AFTER.entry("files/big").id)).parent
    shard.mkdir(exist_ok=True)
    largest = max(len(list(one.iterdir())) for one in (made[0] / "objects").iterdir())
    monkeypatch.setattr("store.remotes.unpack.SHARD_LIMIT", largest)
    for number in range(largest):
        (shard / f"{number:062x}").touch()
    error = refused(bag, target)
    assert (error.kind, str(shard) in error.message) == ("too-many", True)


def test_a_base_that_is_missing_or_damaged_at_the_other_side(made: tuple[Path, Path], tmp_path: Path) -> None:
    [bag] = parts(*made)
    base = object_path(BEFORE.entry("files/big").id)
    target = copy_of(made[1], tmp_path / "target")
    overwrite(target / base, lambda data: bytes(len(data)))
    assert refused(bag, target).kind == "bad-delta"
    (target / base).unlink()
    error = refused(bag, target)
    assert (error.kind, "without --delta" in error.remedy) == ("incomplete-bag", True)
    # The remedy: pack without --delta.
    with Repository.open(made[0]) as source, Repository.open(made[1]) as there:
        whole = plan_pack(source, there, ())
        out = bytearray()
        write_part(whole, 0, source, out.extend)
    take(bytes(out), target)
    assert check(target, AFTER.id).go
