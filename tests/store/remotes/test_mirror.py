"""The mirror of a far store: what is taken in, within bounds; and a push through it, in publication order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from store.disk.layout import ORDERS, RESULTS, SMALL_FILES
from store.disk.media import object_path
from store.errors import Conflict, Corrupt, NoStore, NotFound, Unavailable
from store.format.manifest import ENVELOPE_LIMIT
from store.ground.orders import holder_of, read_order, read_result
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, apply_sync, plan_sync
from store.ground.trust_chain import rotate
from store.remotes.mirror import LISTED, Listed, apply_push, mirrored, plan_push
from tests.support.far import FolderFar
from tests.support.missions import NOW, ROOT, root_draft, sign_root
from tests.support.orders import FLEET, ORDER, Trip, result
from tests.support.stores import (
    CAMERA,
    ENGINE,
    NORTH,
    SOUTH,
    audit,
    check,
    copy_of,
    file_of,
    flip,
    later,
    listing,
    make_store,
    overwrite,
    publish,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_store(tmp_path / "source")


@pytest.fixture
def far(tmp_path: Path) -> FolderFar:
    return FolderFar(tmp_path / "far")


def push(source: Path, far: FolderFar, *missions: str, checksum: bool = False) -> SyncPlan:
    with Repository.open(source) as repository, mirrored(far, repository.media, missions) as mirror:
        plan = plan_push(repository, mirror, missions, checksum=checksum)
        apply_push(plan, repository, mirror, lambda _: None)
    return plan


class TestMirror:
    def test_it_is_a_store_without_the_artifacts(self, source: Path) -> None:
        with mirrored(far := FolderFar(source)) as mirror, mirror.opened() as repository:
            assert repository is not None
            assert repository.missions() == [NORTH.id, SOUTH.id]
            for one in (NORTH, SOUTH):
                assert repository.current(one.id).manifest_id == one.manifest_id
            names = {name for call, names in far.calls for name in names if call == "fetch"}
            assert object_path(NORTH.entry(CAMERA).id) not in names
            assert mirror.resident(NORTH.entry(CAMERA).id, NORTH.entry(CAMERA).size)

    def test_what_the_other_store_has_is_not_fetched(self, source: Path) -> None:
        with Repository.open(source) as local, mirrored(far := FolderFar(source), local.media) as mirror:
            assert not [name for _, names in far.calls for name in names if name.startswith("objects/")]
            with mirror.opened() as repository:
                assert repository is not None
                assert repository.current(NORTH.id).manifest_id == NORTH.manifest_id

    def test_what_the_other_store_has_damaged_is_fetched(self, source: Path, tmp_path: Path) -> None:
        local = copy_of(source, tmp_path / "local")
        flip(file_of(local, NORTH.manifest_id))
        with Repository.open(local) as damaged, mirrored(far := FolderFar(source), damaged.media) as mirror:
            fetched = [name for _, names in far.calls for name in names if name.startswith("objects/")]
            assert fetched == [object_path(NORTH.manifest_id)]
            with mirror.opened() as repository:
                assert repository is not None
                assert repository.current(NORTH.id).manifest_id == NORTH.manifest_id

    @pytest.mark.parametrize(
        "name",
        [
            "../escape",
            "missions/../../escape",
            "/etc/escape",
            "/flightbag.toml",
            "missions/a/b",
            "objects/ab/../../x",
            "trust/0.root.cbor",
        ],
    )
    def test_a_name_of_no_store_becomes_no_path(self, source: Path, name: str) -> None:
        far = FolderFar(source)
        far.listing = lambda of=far.listing: iter([*of(), Listed(name, 3)])  # type: ignore[method-assign]
        with mirrored(far) as mirror:
            assert name not in mirror.files
        assert not [one for _, names in far.calls for one in names if one == name]

    @pytest.mark.parametrize("name", ["missions/big", f"orders/{'a' * 64}", "drafts/big", "trust/2.root.cbor"])
    def test_a_file_beyond_its_bound_is_not_fetched_and_is_no_valid_file(self, source: Path, name: str) -> None:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"\0" * 70_000)
        with mirrored(far := FolderFar(source)) as mirror:
            assert (Path(mirror.folder) / name).read_bytes() == b""
        assert not [one for _, names in far.calls for one in names if one == name]

    def test_a_file_that_comes_with_more_bytes_than_were_listed_is_no_valid_file(self, source: Path) -> None:
        name = f"missions/{NORTH.id}"
        far = FolderFar(source)
        far.listing = lambda of=far.listing: (  # type: ignore[method-assign]
            one._replace(size=10) if one.name == name else one for one in of()
        )
        with mirrored(far) as mirror:
            assert (Path(mirror.folder) / name).read_bytes() == b""

    def test_a_link_that_comes_is_not_followed(self, source: Path) -> None:
        name = f"missions/{NORTH.id}"
        far = FolderFar(source)

        def fetch(files: Mapping[str, int], folder: str, fetch: Callable[..., None] = far.fetch) -> None:
            fetch({one: size for one, size in files.items() if one != name}, folder)
            if name in files:
                (Path(folder) / name).symlink_to(source / name)

        far.fetch = fetch  # type: ignore[method-assign]
        with mirrored(far) as mirror:
            path = Path(mirror.folder) / name
            assert (path.is_symlink(), path.read_bytes()) == (False, b"")
        assert (source / name).stat().st_size == 65

    def test_an_object_beyond_what_a_manifest_may_have_is_not_fetched(self, source: Path) -> None:
        name = object_path(NORTH.manifest_id)
        far = FolderFar(source)
        far.listing = lambda of=far.listing: (  # type: ignore[method-assign]
            one._replace(size=ENVELOPE_LIMIT + 1) if one.name == name else one for one in of()
        )
        with mirrored(far):
            assert not [one for _, names in far.calls for one in names if one == name]

    def test_an_object_in_another_folder_is_none(self, source: Path) -> None:
        text = str(NORTH.manifest_id)
        far = FolderFar(source)
        others = [f"objects/{text[:3]}/{text[3:]}", f"objects/{text}", f"objects/{text[:2]}/{text[2:4]}/{text[4:]}"]
        far.listing = lambda of=far.listing: iter(  # type: ignore[method-assign]
            [*(one for one in of() if one.name != object_path(NORTH.manifest_id)), *(Listed(one, 3) for one in others)]
        )
        with mirrored(far) as mirror:
            assert bytes(NORTH.manifest_id) not in mirror.objects

    @pytest.mark.parametrize("name", ["missions", "objects", "trust", "objects/{shard}"])
    def test_a_link_in_the_place_of_a_folder_is_refused(self, source: Path, name: str) -> None:
        path = source / name.format(shard=str(NORTH.manifest_id)[:2])
        path.rename(source.parent / "elsewhere")
        path.symlink_to(source.parent / "elsewhere")
        with pytest.raises(Corrupt, match="hangar:store") as caught, mirrored(FolderFar(source)):
            pass
        assert caught.value.kind == "wrong-type"

    def test_too_many_names(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("store.remotes.mirror.FOLDER_LIMIT", 1)
        with pytest.raises(Corrupt) as caught, mirrored(FolderFar(source)):
            pass
        assert caught.value.kind == "too-many"

    @pytest.mark.parametrize("folder", [True, False])
    def test_names_in_ever_new_folders_have_a_bound(
        self, far: FolderFar, folder: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("store.remotes.mirror._NAMES", 50)
        names = iter(Listed(f"objects/{number:x}{'' if folder else '/x'}", 0, folder) for number in range(100))
        far.listing = lambda: names  # type: ignore[method-assign]
        with pytest.raises(Corrupt) as caught, mirrored(far):
            pass
        assert (caught.value.kind, len(list(names))) == ("too-many", 49)

    @pytest.mark.parametrize("name", [f"missions/{NORTH.id}", object_path(NORTH.manifest_id)])
    def test_a_folder_that_comes_in_the_place_of_a_file_is_no_valid_file(self, source: Path, name: str) -> None:
        class Changed(FolderFar):
            def fetch(self, files: Mapping[str, int], folder: str) -> None:
                super().fetch({one: size for one, size in files.items() if one != name}, folder)
                if name in files:
                    Path(folder, name, "inner").mkdir(parents=True)

        with mirrored(Changed(source)) as mirror:
            assert (Path(mirror.folder) / name).read_bytes() == b""

    def test_what_an_operating_system_drops_is_no_other_thing(self, source: Path, far: FolderFar) -> None:
        for name in (".DS_Store", "System Volume Information/WPSettings.dat"):
            path = far.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        push(source, far)
        assert check(far.path, NORTH.id).go

    def test_a_mirror_has_a_bound(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("store.remotes.mirror._BYTES", 100)
        with pytest.raises(Unavailable, match="--mission"), mirrored(FolderFar(source)):
            pass

    @pytest.mark.parametrize("name", ["photo.jpg", "missions/of-someone", "Documents/"])
    def test_a_folder_of_something_else_is_no_store(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "far" / name
        path.parent.mkdir(parents=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"x")
        with pytest.raises(NoStore), mirrored(FolderFar(tmp_path / "far")):
            pass

    @pytest.mark.parametrize("name", ["south/flightbag.toml", "photos/1.jpg", "a/b/c"])
    def test_what_lies_in_foreign_folders_is_no_store(self, source: Path, far: FolderFar, name: str) -> None:
        """A bucket has names only: a forgotten prefix must not put one store around others."""
        far.listing = lambda: iter([Listed(name, 3)])  # type: ignore[method-assign]
        with pytest.raises(NoStore):
            push(source, far)
        assert not far.path.exists()

    def test_errors_name_the_far_store(self, source: Path, tmp_path: Path) -> None:
        with Repository.init(tmp_path / "other") as repository:
            rotate(repository, root_draft(sign_root(replace(ROOT, domain="elsewhere"), "root-a")), now=NOW)
        other = tmp_path / "other"
        with pytest.raises(Conflict, match="hangar:store is of the trust domain"):
            push(source, FolderFar(other))


def test_every_folder_of_small_files_is_listed() -> None:
    assert {f"{folder}/*" for folder in SMALL_FILES} < {*LISTED}


class TestOrders:
    """An order goes to a machine, and the result comes back: the mirror has what both are judged by."""

    def test_there(self, tmp_path: Path) -> None:
        trip = Trip(tmp_path).begin()
        far = FolderFar(tmp_path / "far")
        assert [file.name for file in push(trip.ground, far).files] == [holder_of(ORDERS, ORDER.key)]
        with Repository.open(far.path) as repository:
            assert read_order(repository.evidence, ORDER.key)[1] == ORDER
        assert not audit(far.path).errors
        assert not push(trip.ground, far).files

    def test_and_back(self, tmp_path: Path) -> None:
        trip = Trip(tmp_path).begin()
        trip.fulfil()
        far = FolderFar(trip.stick)
        with mirrored(far) as mirror, mirror.opened() as source, Repository.open(trip.ground) as ground:
            assert source is not None
            plan = plan_sync(source, ground, ())
            apply_sync(plan, source, trip.ground, bring=far.bring)
            assert [file.name for file in plan.files] == [holder_of(RESULTS, ORDER.key)]
            assert read_result(ground.evidence, ORDER.key, FLEET) == result()


class TestPush:
    @pytest.mark.parametrize("damage", ["missing", "flipped"])
    def test_a_source_that_is_not_whole_is_told_with_a_remedy(self, source: Path, far: FolderFar, damage: str) -> None:
        path = file_of(source, NORTH.entry(CAMERA).id)
        flip(path, 1) if damage == "flipped" else path.unlink()
        with pytest.raises((Corrupt, NotFound)) as caught:
            push(source, far)
        assert "--checksum" in caught.value.remedy

    def test_a_store_that_was_only_begun(self, source: Path, far: FolderFar) -> None:
        far.path.mkdir()
        (far.path / "flightbag.toml").write_bytes((source / "flightbag.toml").read_bytes())
        push(source, far)
        assert audit(far.path).findings == ()

    def test_a_new_store_and_nothing_more_to_do(self, source: Path, far: FolderFar) -> None:
        plan = push(source, far)
        assert len(plan.moves) == 2
        assert all(check(far.path, one.id).go for one in (NORTH, SOUTH))
        assert audit(far.path).findings == ()
        before = listing(far.path)
        plan = push(source, far)
        assert not plan.missing
        assert plan.unchanged == (NORTH.id, SOUTH.id)
        assert listing(far.path) == before

    def test_the_order_of_publication(self, source: Path, far: FolderFar) -> None:
        push(source, far)
        order = [call if call == "send" else name for call, names in far.calls for name in names if call != "fetch"]
        assert list(dict.fromkeys(one.partition("/")[0] for one in order)) == [
            "flightbag.toml",
            "send",
            "log",
            "trust",
            "missions",
        ]

    def test_only_what_is_missing_goes(self, source: Path, far: FolderFar) -> None:
        push(source, far)
        newer = later(NORTH, camera=b"fx: 3.0\n")
        publish(source, newer)
        plan = push(source, far)
        assert [move.mission for move in plan.moves] == [NORTH.id]
        assert {id_ for id_, _ in plan.missing} == {newer.manifest_id, newer.manifest.table} | (
            {entry.id for entry in newer.table.entries} - {entry.id for entry in NORTH.table.entries}
        )
        assert check(far.path, NORTH.id).go
        assert audit(far.path).findings == ()

    def test_a_damaged_source_object_does_not_go(self, source: Path, far: FolderFar) -> None:
        flip(file_of(source, NORTH.entry(CAMERA).id))
        with pytest.raises(Corrupt):
            push(source, far)
        assert not list((far.path / "missions").iterdir())

    @pytest.mark.parametrize("damage", [flip, lambda path: overwrite(path, lambda data: data[:-1])])
    def test_checksum_finds_what_is_damaged_there(
        self, source: Path, far: FolderFar, damage: Callable[[Path], None]
    ) -> None:
        push(source, far)
        damage(file_of(far.path, NORTH.entry(CAMERA).id))
        assert not check(far.path, NORTH.id).go
        plan = push(source, far, checksum=True)
        assert [id_ for id_, _ in plan.missing] == [NORTH.entry(CAMERA).id]
        assert check(far.path, NORTH.id).go

    def test_what_arrived_before_an_interruption_is_not_sent_again(self, source: Path, far: FolderFar) -> None:
        push(source, far)
        for path in (far.path / "missions").iterdir():
            path.unlink()
        flip(file_of(far.path, SOUTH.manifest_id))
        plan = push(source, far)
        assert [id_ for id_, _ in plan.missing] == [SOUTH.manifest_id]
        assert (len(plan.moves), plan.present) == (2, len(plan.closure) - 1)
        assert all(check(far.path, one.id).go for one in (NORTH, SOUTH))

    def test_a_newer_mission_there_stays(self, source: Path, far: FolderFar, tmp_path: Path) -> None:
        copy_of(source, far.path)
        publish(far.path, newer := later(NORTH))
        assert push(source, far).newer == (NORTH.id,)
        assert check(far.path, NORTH.id).mission.manifest_id == newer.manifest_id  # type: ignore[union-attr]

    def test_what_somebody_publishes_there_meanwhile_is_not_overwritten(self, source: Path, far: FolderFar) -> None:
        push(source, far)
        publish(source, later(NORTH))
        far.meanwhile = lambda: publish(far.path, later(NORTH, 2))
        with pytest.raises(Conflict, match="again"):
            push(source, far)
        far.meanwhile = lambda: None
        assert push(source, far).newer == (NORTH.id,)
        assert not audit(far.path).errors

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            (f"missions/{SOUTH.id}", f"{NORTH.manifest_id}\n".encode()),  # of the same size
            (f"missions/{NORTH.id}", b""),
            ("trust/2.root.cbor", b"x"),
            ("drafts/north-ridge", b"x"),
        ],
    )
    def test_a_small_file_that_changes_there_meanwhile(
        self, source: Path, far: FolderFar, name: str, data: bytes
    ) -> None:
        """Also without a line of the log."""
        push(source, far)
        publish(source, newer := later(NORTH))
        far.meanwhile = lambda: far._write(name, data)
        with pytest.raises(Conflict) as caught:
            push(source, far)
        assert caught.value.kind == "changed"
        assert f"{newer.manifest_id}\n".encode() != (far.path / "missions" / NORTH.id).read_bytes()

    def test_what_is_collected_there_meanwhile_is_sent_again(self, source: Path, far: FolderFar) -> None:
        push(source, far, SOUTH.id)
        far.meanwhile = lambda: file_of(far.path, NORTH.entry(ENGINE).id).unlink()  # both missions need it
        with pytest.raises(Unavailable, match="again"):
            push(source, far)
        assert not (far.path / "missions" / NORTH.id).exists()
        far.meanwhile = lambda: None
        push(source, far)
        assert check(far.path, NORTH.id).go
        assert check(far.path, SOUTH.id).go
