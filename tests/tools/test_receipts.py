"""The command `receipts`, and the receipts that `verify` and `aircraft consume` leave."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from store.ground import receipts
from tests.support.commands import Ran, flightbag, program
from tests.support.missions import FACTS, ISSUE, ROOT, flight, key
from tests.support.stores import ROOT_FILE, copy_of, flip, later, listing, make_store, publish

# It flies at any time.
MISSION = flight(issue=replace(ISSUE, expires_at=None))


@pytest.fixture(scope="module")
def _first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "desk"
    folder.mkdir()
    make_store(folder / "store", MISSION)
    (folder / "pinned").write_bytes(ROOT_FILE)
    for name in ("pilot", "desk"):
        (folder / f"{name}.key").write_bytes(key(name).pem(None))
    (folder / "locked.key").write_bytes(key("pilot").pem(b"four words or more"))
    (folder / "passphrase").write_text("four words or more\n")
    ran = flightbag("aircraft", "enrol", "--state", folder / "state", *ENROL, "--trust", folder / "pinned")
    assert ran.status == 0, ran.err
    (folder / "fleet").write_text(ran.out.splitlines()[-1])
    return folder


ENROL = ("--id", "uav-07", "--host", "cpu-x86_64-avx2")


@pytest.fixture
def desk(_first: Path, tmp_path: Path) -> Path:
    return copy_of(_first, tmp_path / "desk")


def verify(desk: Path, *more: object, store: str = "store") -> Ran:
    return flightbag("verify", desk / store, "--state", desk / "state", *more)


def shown(desk: Path, store: str = "store") -> dict[str, list[dict[str, object]]]:
    ran = flightbag("receipts", desk / store, "--fleet", desk / "fleet", "--json")
    assert ran.status == 0, ran.err
    value: dict[str, list[dict[str, object]]] = ran.json
    return value


def files(folder: Path) -> int:
    return len(list((folder / "receipts").glob("*")))


def unwritable(desk: Path) -> Path:
    """Makes the store one in which no receipt can be placed, for root too."""
    place = desk / "store" / "receipts"
    place.write_bytes(b"")
    return place


class TestAboard:
    def test_a_go_leaves_one_that_names_all(self, desk: Path) -> None:
        ran = verify(desk, "--clock", "trusted")
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.splitlines()[-1] == f"1 receipt left in {desk / 'store'}"
        (one,) = shown(desk)["verified"]
        assert (one["whose"], one["mission"], one["clock"]) == ("uav-07", MISSION.id, "trusted")
        assert (one["manifest"], one["objects"]) == (str(MISSION.manifest_id), 6)
        assert files(desk / "state") == 0

    def test_json_stays_one_document(self, desk: Path) -> None:
        ran = verify(desk, "--json")
        assert (ran.status, ran.json["ok"], files(desk / "store")) == (0, True, 1)

    def test_a_go_stays_a_go_where_it_cannot_be_written(self, desk: Path) -> None:
        place = unwritable(desk)
        before = listing(desk / "store", but=("lock", "tmp"))
        ran = verify(desk)
        assert (ran.status, "\nGO  " in ran.out) == (0, True)
        assert "the receipts stay in the aircraft's state" in ran.err
        assert "receipt" not in ran.out
        assert listing(desk / "store", but=("lock", "tmp")) == before
        assert files(desk / "state") == 1
        # The next stick brings it.
        copy_of(desk / "store", desk / "stick")
        (desk / "stick" / "receipts").unlink()
        assert verify(desk, store="stick").status == 0
        assert (files(desk / "stick"), files(desk / "state")) == (1, 0)
        assert place.read_bytes() == b""

    def test_no_go_leaves_none_and_brings_those_that_were_kept(self, desk: Path) -> None:
        place = unwritable(desk)
        assert verify(desk).status == 0
        place.unlink()
        flip(desk / "store" / "objects" / str(MISSION.manifest_id)[:2] / str(MISSION.manifest_id)[2:])
        before = files(desk / "state")
        ran = verify(desk)
        assert (ran.status, ran.err, before) == (1, "", 1)
        assert (files(desk / "store"), files(desk / "state")) == (1, 0)
        assert verify(desk).status == 1
        assert files(desk / "store") == 1

    def test_no_go_that_cannot_write_says_nothing_more(self, desk: Path) -> None:
        unwritable(desk)
        assert verify(desk).status == 0
        ran = verify(desk, "--flight", "another")
        assert (ran.status, ran.err, files(desk / "state")) == (1, "", 1)

    def test_a_state_without_a_key_flies_and_the_remedy_helps(self, desk: Path) -> None:
        (desk / "state" / "key").unlink()
        ran = verify(desk)
        assert (ran.status, "\nGO  " in ran.out) == (0, True)
        assert f"there is no receipt: {desk / 'state' / 'key'} is missing" in ran.err
        assert "flightbag aircraft enrol --again" in ran.err
        show = flightbag("aircraft", "show", "--state", desk / "state", "--json")
        assert (show.status, show.json["kid"]) == (0, None)
        assert "signs no receipts" in flightbag("aircraft", "show", "--state", desk / "state").out
        again = flightbag("aircraft", "enrol", "--state", desk / "state", *ENROL, "--trust", desk / "pinned", "--again")
        (desk / "fleet").write_text(again.out.splitlines()[-1])
        assert again.status == 0
        assert verify(desk).err == ""
        assert [one["whose"] for one in shown(desk)["verified"]] == ["uav-07"]

    def test_a_state_that_is_full_of_them_says_so(self, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(receipts, "MAX_KEPT", 0)
        ran = verify(desk)
        assert ran.status == 0
        assert "there is no receipt" in ran.err

    def test_every_mission_has_its_own(self, desk: Path) -> None:
        for _ in range(2):
            assert verify(desk).status == 0
        assert files(desk / "store") == 1, "without a clock nothing new was said"

    def test_a_flight_that_was_flown(self, desk: Path) -> None:
        assert verify(desk).status == 0
        consume = ("aircraft", "consume", FACTS.flight, "--state", desk / "state")
        ran = flightbag(*consume, "--json")
        assert (ran.status, ran.json["before"], ran.err) == (0, False, "")
        assert (files(desk / "state"), shown(desk)["flown"]) == (1, [])
        ran = flightbag(*consume, "--store", desk / "store")
        assert ran.out.splitlines() == [f"{FACTS.flight} was consumed before", f"1 receipt left in {desk / 'store'}"]
        ((flown),) = shown(desk)["flown"]
        assert (flown["whose"], flown["flight"]) == ("uav-07", FACTS.flight)

    def test_a_flight_stays_consumed_where_no_receipt_can_be_left(self, desk: Path) -> None:
        assert verify(desk).status == 0
        ran = flightbag("aircraft", "consume", FACTS.flight, "--state", desk / "state", "--store", desk / "nowhere")
        assert (ran.status, ran.out) == (0, f"consumed {FACTS.flight}\n")
        assert "the receipts stay in the aircraft's state" in ran.err

    def test_the_kid_is_shown(self, desk: Path) -> None:
        out = flightbag("aircraft", "show", "--state", desk / "state").out
        line = (desk / "fleet").read_text()
        assert out.splitlines()[-1] == line
        value = flightbag("aircraft", "show", "--state", desk / "state", "--json").json
        assert f"{value['kid']} uav-07" == line
        assert len(value["key"]) == 64
        private = (desk / "state" / "key").read_text().splitlines()[1]
        assert private not in out + json.dumps(value)


class TestAtADesk:
    def check(self, desk: Path, *more: object) -> Ran:
        return flightbag("verify", desk / "store", "--trust", desk / "pinned", *more)

    def test_by_a_key_of_the_trust_root(self, desk: Path) -> None:
        ran = self.check(desk, "--receipt-key", desk / "locked.key", "--passphrase-file", desk / "passphrase")
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.splitlines()[-1] == f"1 receipt left in {desk / 'store'}"
        (one,) = shown(desk)["verified"]
        assert (one["whose"], one["says"]) == (ROOT.key_text(key("pilot").public.kid), None)

    def test_by_a_key_behind_a_command(self, desk: Path) -> None:
        (desk / "pilot.pub").write_bytes(key("pilot").public.pem())
        (desk / "signer.py").write_text(
            "import sys\n"
            "from cryptography.hazmat.primitives.serialization import load_pem_private_key\n"
            f"key = load_pem_private_key(open({str(desk / 'pilot.key')!r}, 'rb').read(), None)\n"
            "sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))\n"
        )
        command = f"{sys.executable} {desk / 'signer.py'}"
        ran = self.check(desk, "--receipt-key", desk / "pilot.pub", "--signer", command)
        assert (ran.status, ran.err) == (0, "")
        assert shown(desk)["verified"][0]["whose"] == ROOT.key_text(key("pilot").public.kid)
        # A signer that answers with something else leaves none.
        ran = self.check(desk, "--receipt-key", desk / "pilot.pub", "--signer", "true")
        assert (ran.status, files(desk / "store")) == (0, 1)
        assert "there is no receipt" in ran.err

    def test_by_any_key_and_a_line_in_the_list(self, desk: Path) -> None:
        assert self.check(desk, "--receipt-key", desk / "desk.key").status == 0
        assert shown(desk)["verified"][0]["whose"] is None
        with (desk / "fleet").open("a") as file:
            file.write(f"\n{key('desk').public.kid.hex()} anna\n")
        assert shown(desk)["verified"][0]["whose"] == "anna"

    def test_without_the_key_and_after_no_go_there_is_none(self, desk: Path) -> None:
        assert self.check(desk).status == 0
        assert self.check(desk, "--flight", "another", "--receipt-key", desk / "desk.key").status == 1
        assert not (desk / "store" / "receipts").exists()

    def test_where_it_cannot_be_written_the_verdict_stands(self, desk: Path) -> None:
        unwritable(desk)
        ran = self.check(desk, "--receipt-key", desk / "desk.key")
        assert (ran.status, "\nGO  " in ran.out) == (0, True)
        assert "there is no receipt" in ran.err

    @pytest.mark.parametrize(
        "words",
        [
            ("--receipt-key", "absent.key"),
            ("--receipt-key", "pinned"),
            ("--receipt-key", "locked.key"),
            ("--receipt-key", "desk.key", "--at", "2026-11-20T00:00:00Z"),
            ("--passphrase-file", "passphrase"),
            ("--signer", "true"),
        ],
    )
    def test_a_mistake_is_told_before_anything_is_checked(self, desk: Path, words: tuple[str, ...]) -> None:
        given = [desk / word if (desk / word).exists() or word.endswith(".key") else word for word in words]
        ran = self.check(desk, *given)
        assert ran.status in (1, 2), ran.out
        assert (ran.out, "->" in ran.err) == ("", True)

    def test_aboard_the_aircraft_has_a_key_of_its_own(self, desk: Path) -> None:
        assert verify(desk, "--receipt-key", desk / "desk.key").status == 2


class TestShown:
    def test_a_store_without_any(self, desk: Path) -> None:
        assert flightbag("receipts", desk / "store").out == "no receipts\n"

    def test_the_known_and_the_unknown(self, desk: Path) -> None:
        assert verify(desk).status == 0
        receipt = receipts.parsed(next((desk / "store" / "receipts").iterdir()).read_bytes(), ROOT)
        stranger = receipts.signed(replace(receipt, key=key("x").public.raw), key("x"), ROOT)
        (desk / "store" / stranger.name).write_bytes(stranger.data)
        ran = flightbag("receipts", desk / "store", "--fleet", desk / "fleet")
        assert ran.status == 0
        title, known, unknown = ran.out.splitlines()
        assert title == "verified"
        assert known.split()[:2] == ["uav-07", MISSION.id]
        assert known.endswith("  current")
        publish(desk / "store", later(MISSION))
        known = flightbag("receipts", desk / "store", "--fleet", desk / "fleet").out.splitlines()[1]
        assert known.endswith(f"  NOT current, sequence {MISSION.manifest.issue.sequence}")
        assert unknown.startswith(f"  UNKNOWN key {key('x').public.kid.hex()[:12]}, says uav-07: ")

    def test_a_mission_that_was_withdrawn_since(self, desk: Path) -> None:
        assert verify(desk).status == 0
        assert shown(desk)["verified"][0]["withdrawn"] is False
        args = (desk / "store", MISSION.id, "--reason", "old imagery", "--key", desk / "pilot.key")
        assert flightbag("withdraw", *args).status == 0
        assert shown(desk)["verified"][0]["withdrawn"] is True
        ran = flightbag("receipts", desk / "store", "--fleet", desk / "fleet")
        assert ran.out.splitlines()[1].endswith("  WITHDRAWN")

    def test_one_that_does_not_hold_is_status_1(self, desk: Path) -> None:
        assert verify(desk).status == 0
        flip(next((desk / "store" / "receipts").iterdir()), 90)
        ran = flightbag("receipts", desk / "store")
        assert (ran.status, ran.out.startswith(f"NOT a receipt: {desk / 'store' / 'receipts'}/")) == (1, True)
        assert f"-> `store-fsck {desk / 'store'} --repair` moves" in ran.out
        value = flightbag("receipts", desk / "store", "--json").json
        assert (value["verified"], [one["kind"] for one in value["findings"]]) == ([], ["bad-receipt"])
        assert program("store-fsck", desk / "store", "--repair").status == 1
        assert flightbag("receipts", desk / "store").status == 0

    def test_a_crowd_of_strangers_is_counted(self, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tools.receipts._UNKNOWNS", 1)
        for name in ("desk", "pilot"):
            flightbag("verify", desk / "store", "--trust", desk / "pinned", "--receipt-key", desk / f"{name}.key")
        (desk / "pilot.key").write_bytes(key("y").pem(None))
        flightbag("verify", desk / "store", "--trust", desk / "pinned", "--receipt-key", desk / "pilot.key")
        out = flightbag("receipts", desk / "store").out
        assert "and 1 more receipt of unknown keys (see -v)" in out

    @pytest.mark.parametrize("text", ["uav-07", "x" * 64 + " uav-07"])
    def test_a_list_that_is_none_names_the_file_and_the_line(self, desk: Path, text: str) -> None:
        (desk / "fleet").write_text(text)
        ran = flightbag("receipts", desk / "store", "--fleet", desk / "fleet")
        assert ran.status == 2
        assert f"{desk / 'fleet'}: line 1" in ran.err
        assert "flightbag aircraft show" in ran.err

    def test_a_list_that_does_not_exist_is_named_once(self, desk: Path) -> None:
        ran = flightbag("receipts", desk / "store", "--fleet", desk / "none")
        assert (ran.status, ran.err.count(str(desk / "none"))) == (2, 1)

    def test_a_store_does_not_say_whose_its_receipts_are(self, desk: Path) -> None:
        inside = desk / "store" / "fleet"
        inside.write_bytes((desk / "fleet").read_bytes())
        assert flightbag("receipts", desk / "store", "--fleet", inside).status == 2
