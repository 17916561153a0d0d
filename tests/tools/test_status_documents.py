"""What commands print with `--json`: one document, of the schema in docs/json.md, with the exit status in it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import Unavailable
from tests.faults.disks import bad_sectors
from tests.support.commands import Ran, flightbag, program
from tests.support.documents import FIELDS, check
from tests.support.every_command import CAMERA, STORE_FSCK, USES, commands, every_command
from tests.support.field import Desk
from tests.support.store_files import entry_of, object_file
from tests.support.stores import flip
from tools.status import command, exits, fail, print_document, print_json


def test_every_command_has_its_fields() -> None:
    assert set(FIELDS) == every_command()


@pytest.mark.parametrize("name", USES)
def test_every_command_prints_one_document(equipped: Desk, name: str) -> None:
    args = (*USES[name].args(equipped), "--json")
    ran = program(STORE_FSCK, *args) if name == STORE_FSCK else flightbag(*args)
    assert check(name, ran)["ok"], ran.out
    assert USES[name].is_done(equipped)


def test_a_mistake_in_the_arguments_is_a_document() -> None:
    for name, _ in commands():
        said = check(name, flightbag(*name.split(), "--nonsense", "--json"))
        assert (said["error"]["kind"], said["status"]) == ("usage", 16 if name == "fsck" else 2), name
        assert "--nonsense" in said["error"]["message"]
        assert said["error"]["remedy"].endswith(f"\nsee `flightbag {name} -h`")
    for name, args in {"trust": ("trust", "sing"), "flightbag": ("sings",)}.items():
        said = check(name, flightbag(*args, "--json"))
        assert (said["error"]["kind"], said["status"]) == ("usage", 2)
    said = check("verify", flightbag("verify", "a", "b", "--json", "--trust"))
    assert "requires an argument" in said["error"]["message"]
    said = check(STORE_FSCK, program(STORE_FSCK, "--json", "--budget"))
    assert (said["error"]["kind"], said["status"]) == ("usage", 16)


# What a crew and an auditor look at, and the name of the command's status for "could not look".
LOOKS: dict[str, Callable[[Desk, Path], tuple[object, ...]]] = {
    "verify": lambda desk, stick: ("verify", stick / "store", "--trust", desk.root),
    "fsck": lambda _, stick: ("fsck", stick / "store", "--full"),
    "sync": lambda desk, stick: ("sync", stick / "store", desk.folder / "copy"),
    "checkout": lambda desk, stick: ("checkout", stick / "store", "left", desk.folder / "out", "--trust", desk.root),
    "unpack": lambda desk, stick: ("unpack", desk.folder / "unpacked", stick / "left.tar"),
    "check-proof": lambda desk, stick: (
        *("check-proof", stick / "camera.proof", stick / "camera.yaml"),
        *("--trust", desk.root),
    ),
}


@pytest.fixture
def stick(equipped: Desk) -> Path:
    """A stick with a store, a bag, a file and its proof."""
    stick = equipped.folder / "stick"
    stick.mkdir()
    assert flightbag("sync", equipped.store, stick / "store").status == 0
    shutil.copy(equipped.folder / "left.tar", stick)
    shutil.copy(equipped.folder / "camera.proof", stick)
    shutil.copy(equipped.folder / "carried.yaml", stick / "camera.yaml")
    return stick


def tampered(stick: Path) -> None:
    """One bit of the same file, in every form in which it lies on the stick."""
    camera = object_file(stick / "store", entry_of(stick / "store", "left", CAMERA)["id"])
    bag = stick / "left.tar"
    flip(bag, bag.read_bytes().index(camera.read_bytes()))
    flip(camera)
    flip(stick / "camera.yaml")


@pytest.mark.parametrize("name", LOOKS)
def test_no_stick_is_told_from_one_that_was_tampered_with(
    equipped: Desk, stick: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stick that is whole, absent, an empty mount point, unreadable, and one that somebody changed."""
    unknown, no = (8, 4) if name == "fsck" else (3, 1)

    def looked() -> Ran:
        ran = flightbag(*LOOKS[name](equipped, stick), "--json")
        assert check(name, ran)["status"] == flightbag(*LOOKS[name](equipped, stick)).status
        for made in ("copy", "out", "unpacked"):
            shutil.rmtree(equipped.folder / made, ignore_errors=True)
        return ran

    ran = flightbag(*LOOKS[name](equipped, stick), "--json")
    assert check(name, ran)["status"] == 0, ran.out
    for made in ("copy", "out", "unpacked"):
        shutil.rmtree(equipped.folder / made, ignore_errors=True)
    stick.rename(equipped.folder / "drawer")
    assert looked().status == unknown
    stick.mkdir()
    assert looked().status == unknown
    (stick / "store").mkdir()
    assert looked().status == unknown
    shutil.rmtree(stick)
    (equipped.folder / "drawer").rename(stick)
    with monkeypatch.context() as patch:
        files = [one.stat().st_ino for one in stick.rglob("*") if one.is_file()]
        bad_sectors(patch, *files)
        if name != "unpack":  # reads by other calls; see below
            assert looked().status == unknown
    tampered(stick)
    assert looked().status == no


def test_a_bag_on_a_bad_sector_could_not_be_looked_at(tmp_path: Path) -> None:
    said = check("unpack", flightbag("unpack", tmp_path / "store", "/proc/self/mem", "--json"))  # reads with EIO
    assert (said["status"], said["error"]["errno"]) == (3, errno.EIO)


def test_the_state_of_an_aircraft_that_is_not_mounted(equipped: Desk) -> None:
    (equipped.folder / "mount").mkdir()
    for state in ("nowhere", "mount"):
        for name, args in {
            "verify": ("verify", equipped.store, "--state", equipped.folder / state),
            "aircraft show": ("aircraft", "show", "--state", equipped.folder / state),
            "aircraft consume": ("aircraft", "consume", "F-1", "--state", equipped.folder / state),
        }.items():
            said = check(name, flightbag(*args, "--json"))
            assert said["status"] == 3
            assert "no-state" in (said.get("error") or said["findings"][0])["kind"]


def test_an_answer_that_is_no_says_why(equipped: Desk, tmp_path: Path) -> None:
    desk, left = equipped, equipped.folder / "left.toml"
    (tmp_path / "no-receipt").write_text("")
    (desk.store / "receipts" / ("0" * 64)).write_bytes(b"none")
    (desk.folder / "camera.yaml").write_text("fx: 900.0\n")
    second = desk.folder / "second"
    assert flightbag("sync", desk.store, second).status == 0
    assert flightbag("trust", "rotate", desk.store, desk.folder / "signed.draft").status == 0
    text = left.read_text()
    left.write_text(text.replace('model = "embedder.onnx"', 'model = "embedder.onnx"\nsalt = "again"'))
    assert left.read_text() != text
    for name, args, status in (
        ("ls", ("ls", desk.store), 0),
        ("verify", ("verify", desk.store, "--trust", desk.root), 1),
        ("receipts", ("receipts", desk.store), 1),
        ("release show", ("release", "show", desk.store), 0),
        ("show", ("show", desk.store, "left"), 0),
        ("show", ("show", desk.store, "right", "--draft"), 0),
        ("show", ("show", desk.store, "nobody"), 1),
        ("explain-key", ("explain-key", left, "embedder", "--against", "left", "--store", second), 1),
        ("status", ("status", left, "--store", second), 1),
        ("sign", ("sign", second, "right"), 1),
        ("sync", ("sync", second, tmp_path / "a", tmp_path / "no-receipt"), 2),
        ("unpack", ("unpack", tmp_path / "bags", desk.folder / "left.tar", tmp_path / "none.tar"), 3),
        ("query", ("query", desk.store, "left", desk.folder / "frame.png", "--trust", desk.root), 1),
        ("report", ("report", desk.store, "--trust", desk.root, "-o", tmp_path / "report.html"), 1),
        ("withdraw", ("withdraw", desk.store, "left"), 1),
        ("log", ("log", desk.store, "nobody"), 1),
        ("trust rotate", ("trust", "rotate", desk.store, desk.folder / "signed.draft"), 0),
        ("pin", ("pin", second), 0),
    ):
        ran = flightbag(*args, "--json")
        assert check(name, ran)["status"] == status, (args, ran.out, ran.err)


def run(function: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Ran:
    with pytest.raises(SystemExit) as ended:
        command(function)(as_json=True)
    assert isinstance(ended.value.code, int)
    return Ran(ended.value.code, *capsys.readouterr())


def test_an_error_after_the_result_is_in_the_same_document(capsys: pytest.CaptureFixture[str]) -> None:
    def late(*, as_json: bool) -> int:
        print_json({"copied": 3})
        raise Unavailable("the disk is full", kind="no-space") if as_json else AssertionError

    ran = run(late, capsys)
    assert (ran.status, ran.json["status"], ran.json["copied"], ran.json["error"]["kind"]) == (3, 3, 3, "no-space")


def test_what_comes_after_a_document_that_is_printed_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def early(*, as_json: bool) -> int:
        print_json({"copied": 3})
        print_document(0)
        raise KeyboardInterrupt if as_json else AssertionError

    ran = run(early, capsys)
    assert (ran.status, ran.json["status"], ran.json["ok"]) == (0, 0, True)
    assert ran.err == "flightbag: interrupted\n"


@pytest.mark.parametrize(
    ("error", "status", "kind"), [(KeyboardInterrupt(), 130, "interrupted"), (ValueError("x"), 3, "program-error")]
)
def test_what_nobody_expects_is_a_document(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, kind: str
) -> None:
    def broken(*, as_json: bool) -> int:
        raise error if as_json else AssertionError

    ran = run(broken, capsys)
    assert (ran.status, ran.json["status"], ran.json["error"]["kind"]) == (status, status, kind)


def test_a_command_that_says_nothing_has_its_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(lambda *, as_json: int(not as_json), capsys)
    assert ran.json == {"schema": "flightbag/flightbag/1", "ok": True, "status": 0, "findings": []}


def test_no_field_is_called_like_one_of_the_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(*, as_json: bool) -> int:
        print_json({"status": "good"})
        return int(not as_json)

    ran = run(wrong, capsys)
    assert (ran.status, ran.json["error"]["kind"]) == (3, "program-error")
    assert "['status']" in ran.err


def test_a_command_says_which_statuses_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    @exits(good=(0, 1))
    def mended(*, as_json: bool) -> int:
        fail(Unavailable("x"), as_json=False)
        return int(as_json)

    with pytest.raises(SystemExit):
        mended(as_json=True)
    assert Ran(1, *capsys.readouterr()).json["ok"] is True
