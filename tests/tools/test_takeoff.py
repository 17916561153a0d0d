"""Copying, damaging and verifying a store through the command line: what the crew and the auditor see."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import cbor2
import pytest

from store.format.cose import Envelope, Signature
from store.format.entries import Entry, EntryTable, sorted_table
from store.format.ids import ObjectId
from store.format.manifest import AAD_LABEL, CONTENT_TYPE, PAYLOAD_LIMIT, Manifest
from store.ground.repository import Repository
from store.trust.keys import PrivateKey, sign
from tests.faults.disks import bad_sectors
from tests.support.commands import flightbag, listing, program
from tests.support.field import RIGHT, Desk


def entries(desk: Desk) -> dict[str, Entry]:
    with Repository.open(desk.store) as repository:
        return {entry.name: entry for entry in repository.current("left").table.entries}


def path_of(desk: Desk, id_: ObjectId) -> Path:
    path = desk.store / "objects" / str(id_)[:2] / str(id_)[2:]
    path.chmod(0o644)
    return path


def shards(desk: Desk) -> list[Entry]:
    return [entry for entry in entries(desk).values() if entry.kind == "descriptors"]


def flip_bit(desk: Desk) -> tuple[Entry, str]:
    entry = shards(desk)[0]
    path = path_of(desk, entry.id)
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x10
    path.write_bytes(data)
    return entry, "bit-flip"


def truncate(desk: Desk) -> tuple[Entry, str]:
    entry = shards(desk)[1]
    os.truncate(path_of(desk, entry.id), entry.size - 1)
    return entry, "truncated"


def remove(desk: Desk) -> tuple[Entry, str]:
    entry = next(entry for entry in entries(desk).values() if entry.kind == "engine")
    path_of(desk, entry.id).unlink()
    return entry, "missing"


def swap(desk: Desk) -> tuple[Entry, str]:
    """The file holds, at the same size, what another object of the mission should be."""
    found = entries(desk)
    victim = found["files/calibration/camera.yaml"]
    other = found["files/calibration/second.yaml"]
    path_of(desk, victim.id).write_bytes(path_of(desk, other.id).read_bytes())
    return victim, "swapped"


DAMAGES: list[Callable[[Desk], tuple[Entry, str]]] = [flip_bit, truncate, remove, swap]


@pytest.fixture
def two_files(built: Desk) -> Desk:
    (built.folder / "second.yaml").write_text("fx: 999.9\n")
    files = [("calibration/camera.yaml", Path("camera.yaml")), ("calibration/second.yaml", Path("second.yaml"))]
    built.built(built.write_mission("left", files=files))
    return built


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damage_is_one_finding(two_files: Desk, damage: Callable[[Desk], tuple[Entry, str]]) -> None:
    entry, kind = damage(two_files)
    ran = two_files.verify()
    assert ran.status == 1
    (finding,) = ran.json["findings"]
    assert (finding["kind"], finding["object"], finding["entry"]) == (kind, str(entry.id), entry.name)
    assert finding["message"]
    assert finding["remedy"]
    people = flightbag("verify", two_files.store, "--trust", two_files.root)
    assert "\nNO-GO  " in people.out
    assert entry.name in people.out
    assert str(entry.id)[:12] in people.out


def test_three_damages_at_once_are_three_findings(two_files: Desk) -> None:
    expected = {(str(entry.id), kind) for entry, kind in (damage(two_files) for damage in DAMAGES[:3])}
    ran = two_files.verify()
    assert ran.status == 1
    assert {(f["object"], f["kind"]) for f in ran.json["findings"]} == expected
    assert len(ran.json["findings"]) == 3


def test_what_verify_found_a_sync_with_checksum_mends(two_files: Desk) -> None:
    good = two_files.folder / "good"
    shutil.copytree(two_files.store, good)
    for damage in DAMAGES:
        damage(two_files)
    assert flightbag("sync", good, two_files.store).status == 0
    assert two_files.verify().status == 1, "by name and size alone a flipped bit is not noticed"
    assert flightbag("sync", good, two_files.store, "--checksum").status == 0
    assert two_files.verify().status == 0


def test_a_ref_to_another_missions_manifest(built: Desk) -> None:
    built.built(built.write_mission("right", bbox=RIGHT))
    shutil.copy(built.store / "missions/right", built.store / "missions/left")
    said = built.verify().json
    verdicts = {m["mission"]: m for m in said["missions"]}
    assert verdicts["right"]["go"] is True
    (finding,) = said["findings"]
    assert finding["missions"] == ["left"]
    assert (finding["kind"], finding["step"]) == ("wrong-mission", "E")
    assert (finding["expected"], finding["actual"]) == ("left", "right")


def resign(desk: Desk, key: PrivateKey, change: Callable[[Manifest, EntryTable], tuple[bytes, bytes]]) -> None:
    """Puts a manifest payload and a table of the test's making in the place of what is published."""
    with Repository.open(desk.store) as repository:
        opened = repository.current("left")
        root = repository.trust_root().root
        payload, table = change(opened.manifest, opened.table)
    envelope = sign(Envelope(CONTENT_TYPE, payload), key, root.aad(AAD_LABEL)).render()
    for data in (envelope, table):
        path = desk.store / "objects" / str(ObjectId.of(data))[:2] / str(ObjectId.of(data))[2:]
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(data)
    (desk.store / "missions/left").write_text(f"{ObjectId.of(envelope)}\n")


def planner(desk: Desk) -> PrivateKey:
    return PrivateKey.of_pem(desk.key.read_bytes(), None)


def test_an_unknown_key(built: Desk) -> None:
    resign(built, PrivateKey.generate(), lambda manifest, table: (manifest.render(), table.render()))
    (finding,) = built.verify().json["findings"]
    assert (finding["kind"], finding["step"], finding["entry"]) == ("unknown-signer", "C", "manifest")


def test_a_table_with_a_changed_id(built: Desk) -> None:
    """Somebody files another table under the id that the manifest signs, and one whose id it does not sign."""

    def changed(table: EntryTable) -> bytes:
        first, *rest = table.entries
        return sorted_table([Entry(first.name, ObjectId(bytes(32)), first.size, first.key, first.meta), *rest]).render()

    with Repository.open(built.store) as repository:
        opened = repository.current("left")
    path_of(built, opened.manifest.table).write_bytes(changed(opened.table))
    (finding,) = built.verify().json["findings"]
    assert (finding["kind"], finding["step"], finding["entry"]) == ("bit-flip", "D", "table")
    assert finding["object"] == str(opened.manifest.table)


def test_a_table_that_is_signed_but_not_what_the_root_says(built: Desk) -> None:
    def change(manifest: Manifest, table: EntryTable) -> tuple[bytes, bytes]:
        first, *rest = table.entries
        other = sorted_table(
            [Entry(first.name, ObjectId(bytes(32)), first.size, first.key, first.meta), *rest]
        ).render()
        value = cbor2.loads(manifest.render())
        value["table"] = [bytes(ObjectId.of(other)), len(other)]
        return cbor2.dumps(value, canonical=True), other

    resign(built, planner(built), change)
    (finding,) = built.verify().json["findings"]
    assert (finding["kind"], finding["step"]) == ("bad-merkle-root", "D")


def test_a_forged_signature(built: Desk) -> None:
    with Repository.open(built.store) as repository:
        id_ = repository.current("left").manifest_id
        data = repository.evidence.object(id_, 2**20)
    envelope = Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT)
    kid = envelope.signatures[0].kid
    forged = envelope.with_signature(Signature(kid, bytes([2] * 32 + [0] * 32))).render()
    path = built.store / "objects" / str(ObjectId.of(forged))[:2] / str(ObjectId.of(forged))[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(forged)
    (built.store / "missions/left").write_text(f"{ObjectId.of(forged)}\n")
    (finding,) = built.verify().json["findings"]
    assert finding["kind"] == "bad-signature"


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("--aircraft", "uav-08", "wrong-aircraft"),
        ("--host", "cpu-aarch64", "wrong-host"),
        ("--host", "cpu", "wrong-host"),
    ],
)
def test_not_for_this_aircraft(built: Desk, option: str, value: str, kind: str) -> None:
    ran = built.verify(None, option, value)
    assert ran.status == 1
    assert [f["kind"] for f in ran.json["findings"]] == [kind]


@pytest.mark.parametrize(
    ("host", "nearest"), [("banana", ""), ("cpu-arm", "cpu-aarch64"), ("cpu-x86-64", "cpu-x86_64"), ("", "")]
)
def test_a_host_class_that_cannot_be_is_refused(built: Desk, host: str, nearest: str) -> None:
    ran = built.verify(None, "--host", host)
    assert ran.status not in (0, 1)
    assert nearest in ran.err
    assert "families cpu, ort" in ran.err


def test_go_for_the_host_that_built_it(built: Desk) -> None:
    host = flightbag("show", built.store, "left", "--json").json["hosts"][0]
    assert built.verify(None, "--host", f"{host}-avx2", "--aircraft", "uav-07").status == 0


def test_unreadable_is_no_go_with_status_3(built: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector in one shard: nothing is known to be wrong, and that is not GO."""
    victim = path_of(built, shards(built)[0].id).stat().st_ino
    bad_sectors(monkeypatch, victim)
    ran = built.verify()
    assert ran.status == 3
    verdict = ran.json["missions"][0]
    assert (verdict["go"], verdict["could_not_look"]) == (False, True)
    assert [f["kind"] for f in ran.json["findings"]] == ["unreadable"]
    assert flightbag("fsck", built.store, "--full").status == 8
    flip_bit_of = shards(built)[1]
    path = path_of(built, flip_bit_of.id)
    path.write_bytes(bytes(flip_bit_of.size))
    assert built.verify().status == 1, "what is known to be wrong outweighs what could not be read"


def test_a_root_inside_the_store_is_refused(built: Desk, tmp_path: Path) -> None:
    link = tmp_path / "innocent.cbor"
    link.symlink_to(built.store / "trust/1.root.cbor")
    for root in (built.store / "trust/1.root.cbor", link):
        assert flightbag("verify", built.store, "--trust", root).status == 2


def test_the_root_of_another_domain_is_no_go(built: Desk, tmp_path: Path) -> None:
    """Same name, same keys: the domain is the hash of root 1, so the manifests of one are nothing to the other."""
    other = tmp_path / "other"
    flightbag("init", other)
    ran = flightbag(
        *("trust", "new", other, "--domain", "test"),
        *("--root-key", built.folder / "owner.key", "--mission-key", built.key, "--threshold", "root=1"),
    )
    assert ran.status == 0
    ran = flightbag("verify", built.store, "--trust", other / "trust/1.root.cbor", "--json")
    assert ran.status == 1
    assert [f["kind"] for f in ran.json["findings"]] == ["bad-signature"]


def copy_with(program_: str, source: Path, target: Path) -> None:
    if shutil.which(program_) is None:
        pytest.skip(f"{program_} is not installed")
    command = {"cp": ["cp", "-r", str(source), str(target)], "rsync": ["rsync", "-a", f"{source}/", str(target)]}
    subprocess.run(command[program_], check=True)


@pytest.mark.parametrize("with_", ["cp", "rsync"])
def test_a_plain_copy_is_a_store(built: Desk, with_: str) -> None:
    copy = built.folder / "copy"
    copy_with(with_, built.store, copy)
    assert built.verify(copy).json["ok"] is True
    assert program("store-fsck", copy, "--full").status == 0


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_copy_with_a_half_written_index_is_repaired_at_first_use(built: Desk, keep: float) -> None:
    """In a process of its own: opening a torn LMDB file can crash it, and here it must not."""
    copy = built.folder / "copy"
    shutil.copytree(built.store, copy)
    data = copy / "index/data.mdb"
    os.truncate(data, int(data.stat().st_size * keep))
    assert built.verify(copy).json["ok"] is True
    assert program("store-fsck", copy, "--full").status == 0
    ran = program("flightbag", "build", built.folder / "left.toml", "--store", copy, "--key", built.key, "--json")
    assert (ran.status, ran.json["outcome"]) == (0, "unchanged"), ran.err


def test_verify_and_fsck_leave_no_trace_on_a_read_only_tree(built: Desk) -> None:
    for path in [built.store, *built.store.rglob("*")]:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
    before = listing(built.store)
    assert built.verify().status == 0
    assert program("store-fsck", built.store, "--full").status == 0
    assert flightbag("ls", built.store).status == 0
    assert flightbag("show", built.store, "left").status == 0
    assert flightbag("sync", built.store, built.folder / "aircraft").status == 0
    assert listing(built.store) == before
    for path in [built.store, *built.store.rglob("*")]:
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o200)


def test_ls_tells_what_cannot_be_read_from_what_does_not_hold(built: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with Repository.open(built.store) as repository:
        manifest = path_of(built, repository.current("left").manifest_id)
    with monkeypatch.context() as patch:
        bad_sectors(patch, manifest.stat().st_ino)
        assert flightbag("ls", built.store).status == 3
    manifest.write_bytes(b"nothing")
    assert flightbag("ls", built.store).status == 1


def test_a_damaged_log_stops_no_build(built: Desk) -> None:
    """The refs stand without the log; only a build whose ref is damaged too needs it."""
    log = built.store / "log"
    log.write_bytes(log.read_bytes().replace(b"published", b"pablished"))
    assert program("store-fsck", built.store).status == 4
    assert built.built(built.write_mission("left", flight="2026-11-24-01"))["outcome"] == "built"
    assert built.verify().status == 0


def test_a_torn_ref_is_built_anew_after_the_last_manifest_of_the_log(built: Desk) -> None:
    before = flightbag("show", built.store, "left", "--json").json
    (built.store / "missions/left").write_text("")
    assert built.verify().status == 1
    report = built.built(built.folder / "left.toml")
    assert report["sequence"] > before["issue"]["sequence"]
    after = flightbag("show", built.store, "left", "--json").json
    assert after["issue"]["previous"] == before["manifest"]


@pytest.fixture
def stick(built: Desk) -> Desk:
    """A desk with a stick, on which the store lies, an aircraft's state, a checkout, and the root of another domain."""
    folder = built.folder
    (folder / "stick").mkdir()
    (folder / "unmounted").mkdir()
    keys = ("--root-key", folder / "owner.key", "--mission-key", built.key)
    for args in (
        ("sync", built.store, folder / "stick" / "store"),
        (
            "aircraft",
            "enrol",
            "--state",
            folder / "state",
            "--id",
            "uav-07",
            "--host",
            "cpu-x86_64",
            "--trust",
            built.root,
        ),
        ("checkout", built.store, "left", folder / "plain", "--trust", built.root),
        ("init", folder / "theirs"),
        ("trust", "new", folder / "theirs", "--domain", "test", *keys),
        ("trust", "add-key", built.store, folder / "root.draft", "mission", folder / "owner.key.pub"),
    ):
        ran = flightbag(*args)
        assert ran.status == 0, ran.err
    shutil.copy(folder / "theirs/trust/1.root.cbor", folder / "theirs.root.cbor")
    return built


# What a crew types by mistake, its status, and the words that lead on. All run in the desk's folder.
VERIFY = "--trust pinned.root.cbor"
MISTAKES = {
    f"verify stick {VERIFY}": (3, "give {desk}/stick/store"),
    "verify stick --state state": (3, "give {desk}/stick/store"),
    f"verify . {VERIFY}": (3, "several lie below it"),
    f"verify unmounted {VERIFY}": (3, "mount it"),
    f"verify unmounted/store {VERIFY}": (3, "{desk}/unmounted is empty"),
    f"verify stick/stroe {VERIFY}": (3, "give stick/store"),
    f"verify stick/store/missions {VERIFY}": (3, "give {desk}/stick/store"),
    f"verify stick/store/flightbag.toml {VERIFY}": (3, "give {desk}/stick/store"),
    f"verify pinned.root.cbor {VERIFY}": (3, "is a file, and a store is a folder"),
    f"verify plain {VERIFY}": (3, "flightbag checkout --check {desk}/plain"),
    f"verify plain/.flightbag {VERIFY}": (3, "flightbag checkout --check {desk}/plain"),
    f"verify state {VERIFY}": (3, "give it as --state"),
    f"verify left stick/store {VERIFY}": (2, "give STORE first: stick/store left"),
    f"verify stick/store lift {VERIFY}": (1, "give left, or sync lift"),
    f"verify stick/store Left {VERIFY}": (1, "give left"),
    f"verify stick/store left.toml {VERIFY}": (1, "give left"),
    f"verify theirs {VERIFY}": (1, "a check of nothing is not GO"),
    "verify stick/store --state stick/store/x": (2, "lies inside"),
    "verify stick/store --state theirs": (3, "it is a store"),
    "verify stick/store --state unmounted": (3, "check the path of the state"),
    "verify stick/store --trust theirs.root.cbor": (1, "have the aircraft enrolled again with that root"),
    "verify stick/store --trust stick": (2, "expected a file, found a directory"),
    "verify stick/store --trust nowhere.cbor": (2, "if it lies on a medium, mount it"),
    "verify stick/store --trust planner.key.pub": (2, "it is the file of a key"),
    "verify stick/store --trust root.draft": (2, "flightbag trust rotate"),
    "verify stick/store --trust camera.yaml": (2, "the root file that the owner of the trust domain handed out"),
    "checkout --check stick/store --trust pinned.root.cbor": (3, "it is a store"),
    "checkout --check nowhere --trust pinned.root.cbor": (3, "that `flightbag checkout` has written"),
    "checkout stick left out --trust pinned.root.cbor": (3, "give {desk}/stick/store"),
    "sync stick new": (3, "give {desk}/stick/store"),
    "sync ground stick": (2, "give {desk}/stick/store"),
    "sync ground camera.yaml": (2, "give a folder that does not exist yet"),
    "sync ground stick/store/new": (3, "give {desk}/stick/store"),
    "sync ground theirs": (1, 'is of the trust domain "test" (code '),
    "sync ground unmounted/a/store": (3, "check that the medium is mounted"),
    "fsck stick": (8, "give {desk}/stick/store"),
    "fsck ground --repair --from stick": (8, "give {desk}/stick/store"),
    "aircraft show --state stick/store": (3, "it is a store"),
    "aircraft enrol --state new --id uav-08 --host cpu-x86_64 --trust planner.key.pub": (2, "it is the file of a key"),
}


def test_a_mistake_of_the_crew_is_answered_by_what_to_do(stick: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stick.folder)
    for mistake, (status, words) in MISTAKES.items():
        ran = flightbag(*mistake.split())
        text = ran.out + ran.err
        assert ran.status == status, (mistake, text)
        assert words.replace("{desk}", str(stick.folder)) in text, mistake
        assert "-> " in text, mistake
        assert "flightbag init" not in text or "unmounted" in mistake, mistake


def test_a_path_is_no_mission_though_the_environment_names_a_store(stick: Desk) -> None:
    env = {"FLIGHTBAG_STORE": str(stick.store)}
    ran = flightbag("verify", stick.folder / "stick", "--trust", stick.root, env=env)
    assert (ran.status, f"give {stick.folder}/stick/store" in ran.err) == (3, True)
    assert flightbag("verify", "left", "--trust", stick.root, env=env).status == 0
