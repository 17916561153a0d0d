"""Time by the command line, as planners and crews live it: missions that run out, and a clock that was a year ahead.

docs/time.md tells both stories. The clock of the machine is the one thing that the tests replace.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran, code_of, flightbag
from tests.support.field import Desk
from tests.support.terminal import at_terminal

HOUR, DAY = 3600, 86400
NOW = int(time.time()) + HOUR  # after all that the fixtures made
YEAR = 365 * DAY
Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Set the clock of this machine, and let it stand."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: seconds)

    set_to(NOW)
    return set_to


def ok(*args: object) -> Ran:
    ran = flightbag(*args)
    assert ran.status == 0, ran.out + ran.err
    return ran


def write(desk: Desk, mission: str = "left", flight: str = "2026-11-23-01", **keys: str) -> Path:
    """A mission file with these keys in its table [mission]."""
    path = desk.write_mission(mission, flight=flight)
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    path.write_text(path.read_text().replace("[target]", f"{lines}[target]", 1))
    return path


def utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def shown(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def kinds(ran: Ran) -> list[str]:
    return [finding["kind"] for finding in ran.json["findings"]]


def fails(*args: object) -> str:
    ran = flightbag(*args)
    assert ran.status in (1, 2), ran.out + ran.err
    return " ".join((ran.out + ran.err).split())


def rotate(desk: Desk, verb: str, *args: object) -> None:
    """Change the trust root of the desk's store."""
    draft = desk.folder / f"{verb}.draft"
    ok("trust", verb, desk.store, draft, *args)
    expected = ("--expect", code_of("trust", "show", draft))
    ok("trust", "sign", draft, "--key", desk.folder / "owner.key", *expected)
    ok("trust", "rotate", desk.store, draft)
    draft.unlink()


class TestAMissionRunsOut:
    def test_from_the_mission_file_to_the_no_go(self, desk: Desk, clock: Clock) -> None:
        path = write(desk, valid_for='"72h"')
        end = NOW + 72 * HOUR
        assert f"valid, if it is built now: until {shown(end)} (in 72 h)" in ok("plan", path, "--store", desk.store).out
        assert ok("plan", path, "--store", desk.store, "--json").json["expires_at"] == end
        built = ok("build", path, "--store", desk.store, "--key", desk.key)
        assert f"valid: until {shown(end)} (in 72 h)" in built.out
        clock(NOW + HOUR)
        assert f"until {shown(end)} (in 71 h)" in ok("show", desk.store, "left").out
        assert ok("show", desk.store, "left", "--json").json["issue"]["expires_at"] == end
        go = ok("verify", desk.store, "--trust", desk.root)
        assert f"valid      until {shown(end)} (in 71 h)" in go.out
        assert "never expires" not in go.out
        clock(end)
        (verdict,) = desk.verify().json["missions"]
        assert (verdict["go"], verdict["valid_from"], verdict["expires_at"]) == (True, None, end)
        assert f"valid                       until {shown(end)} (in 0 s)" in ok("show", desk.store, "left").out
        (row,) = ok("ls", desk.store, "--json").json["missions"]
        assert (row["valid_from"], row["expires_at"]) == (None, end)
        assert ok("ls", desk.store).out.endswith("  expires in 0 s\n")
        clock(end + 1)
        assert ok("ls", desk.store).out.endswith("  EXPIRED 1 s ago\n")
        (finding,) = ok("ls", desk.store, "--json").json["findings"]
        assert (finding["kind"], finding["missions"], finding["information"]) == ("expired", ["left"], True)
        assert f"EXPIRED at {shown(end)} (1 s ago)" in ok("show", desk.store, "left").out
        ran = desk.verify()
        assert (ran.status, kinds(ran)) == (1, ["expired"])
        assert f"the mission expired at {shown(end)}, and it is {shown(end + 1)}" in fails(
            "verify", desk.store, "--trust", desk.root
        )

    def test_one_that_never_expires_says_so(self, built: Desk) -> None:
        ran = built.verify()
        assert "expiry: the mission never expires" in ran.json["missions"][0]["not_judged"]
        assert "not judged expiry: the mission never expires" in ok("verify", built.store, "--trust", built.root).out
        assert "never expires" in ok("show", built.store, "left").out
        assert ok("ls", built.store).out.endswith("  never expires\n")

    def test_not_before_its_time(self, desk: Desk, clock: Clock) -> None:
        start, end = NOW + DAY, NOW + 2 * DAY
        path = write(desk, valid_from=utc(start), valid_until=utc(end))
        built = ok("build", path, "--store", desk.store, "--key", desk.key)
        assert f"valid: from {shown(start)} (in 24 h), until {shown(end)} (in 48 h)" in built.out
        assert kinds(desk.verify()) == ["not-yet-valid"]
        assert ok("ls", desk.store).out.endswith("  valid in 24 h\n")
        assert desk.built(path)["outcome"] == "unchanged"
        ok("aircraft", "enrol", "--state", *state(desk))
        aboard = flightbag("verify", desk.store, "--state", desk.folder / "state", "--json")
        assert aboard.status == 0, "without a trusted clock it is not judged"
        assert (
            f"valid_from: whether it is {shown(start)} yet, for want of a trusted clock"
            in (aboard.json["missions"][0]["not_judged"])
        )
        clock(start)
        assert desk.verify().status == 0

    def test_a_draft_and_its_signature_say_it_too(self, desk: Desk, clock: Clock) -> None:
        path = write(desk, valid_for='"10d"')
        ok("build", path, "--store", desk.store)
        assert f"until {shown(NOW + 10 * DAY)} (in 10 days)" in ok("show", desk.store, "left", "--draft").out
        assert ok("ls", desk.store).out.endswith("; expires in 10 days\n")
        clock(NOW + 10 * DAY + 1)
        assert "was overtaken: it expired at" in fails("sign", desk.store, "left", "--key", desk.key)
        clock(NOW + 5 * DAY)
        assert ok("build", path, "--store", desk.store, "--json").json["expires_at"] == NOW + 10 * DAY
        clock(NOW + 5 * DAY + 1)
        assert ok("build", path, "--store", desk.store, "--json").json["expires_at"] == NOW + 15 * DAY + 1
        expected = ("--expect", code_of("show", desk.store, "left", "--draft"))
        signed = ok("sign", desk.store, "left", "--key", desk.key, *expected, "--json").json
        assert (signed["valid_from"], signed["expires_at"]) == (None, NOW + 15 * DAY + 1)

    def test_built_again_it_does_not_run_out_unnoticed(self, desk: Desk, clock: Clock) -> None:
        path = write(desk, valid_for='"4h"')
        first = desk.built(path)
        clock(NOW + 2 * HOUR)
        same = desk.built(path)
        assert (same["outcome"], same["manifest"], same["expires_at"]) == (
            "unchanged",
            first["manifest"],
            NOW + 4 * HOUR,
        )
        for now in (NOW + 2 * HOUR + 1, NOW + 100 * DAY):
            clock(now)
            again = desk.built(path)
            assert (again["outcome"], again["expires_at"]) == ("built", now + 4 * HOUR)
            assert {artifact["action"] for artifact in again["artifacts"]} == {"reused"}
            assert desk.verify().status == 0

    def test_a_changed_validity_is_another_mission(self, desk: Desk, clock: Clock) -> None:
        desk.built(write(desk))
        for keys, end in (
            ({"valid_for": '"4h"'}, NOW + 4 * HOUR),
            ({"valid_for": '"3h"'}, NOW + 3 * HOUR),
            ({"valid_until": utc(NOW + 2 * HOUR)}, NOW + 2 * HOUR),
            ({}, None),
        ):
            report = desk.built(write(desk, **keys))
            assert (report["outcome"], report["expires_at"]) == ("built", end)
            assert desk.built(write(desk, **keys))["outcome"] == "unchanged"

    def test_a_rollback_gives_the_time_again(self, desk: Desk, clock: Clock) -> None:
        desk.built(write(desk, valid_for='"4h"'))
        desk.built(write(desk, flight="second", valid_for='"8h"'))
        clock(NOW + HOUR)
        to = ok("rollback", desk.store, "left", "--key", desk.key, "--dry-run", "--json").json["to"]
        ran = ok("rollback", desk.store, "left", "--key", desk.key, "--to", to)
        assert f"valid: until {shown(NOW + 5 * HOUR)} (in 4 h)" in ran.out
        assert ok("show", desk.store, "left", "--json").json["issue"]["expires_at"] == NOW + 5 * HOUR


class TestTheTrustRootSetsLifetimes:
    def test_a_default_and_a_maximum(self, desk: Desk, clock: Clock) -> None:
        never = write(desk)
        desk.built(never)
        rotate(desk, "set-lifetime", "max=72h")
        shown_root = ok("trust", "show", desk.store)
        assert "at most 3d" in shown_root.out
        assert ok("trust", "show", desk.store, "--json").json["max_lifetime"] == 3 * DAY
        assert kinds(desk.verify()) == ["lifetime"]
        for words, path in (
            ("mission.valid_for is missing: trust root 2 allows at most 3d", never),
            (
                f"mission.valid_for: the mission would expire at {shown(NOW + 73 * HOUR)}: trust root 2 allows at most "
                f"3d from the issue of a mission to its expiry, now until {shown(NOW + 3 * DAY)}",
                write(desk, "long", valid_for='"73h"'),
            ),
            ("mission.valid_until: the mission would expire", write(desk, "late", valid_until=utc(NOW + 4 * DAY))),
        ):
            for args in (("plan", path, "--store", desk.store), ("build", path, "--store", desk.store)):
                said = fails(*args)
                assert f"{path}: {words}" in said
                assert "valid_for" in said or "set-lifetime" in said
        rotate(desk, "set-lifetime", "default=24h")
        report = desk.built(never)
        assert (report["outcome"], report["expires_at"]) == ("built", NOW + DAY)
        assert desk.verify().status == 0
        rotate(desk, "set-lifetime", "max=none")
        assert "1d by default; missions may never expire" in ok("trust", "show", desk.store).out

    def test_whoever_signs_reads_each_changed_rule_as_people_write_it(self, desk: Desk, clock: Clock) -> None:
        draft = desk.folder / "x.draft"
        said = ok("trust", "set-issued-after", desk.store, draft, utc(NOW - DAY)).out
        assert f"  not before: {shown(NOW - DAY)}, before none\n" in said
        said = ok("trust", "set-lifetime", desk.store, draft, "max=36h").out
        assert "  valid for: at most 36h, before missions may never expire\n" in said
        assert f"not before  {shown(NOW - DAY)}\n" in said

    def test_from_the_first_root_on(self, desk: Desk) -> None:
        store = desk.folder / "other"
        ok("init", store)
        keys = ("--root-key", desk.folder / "owner.key", "--mission-key", desk.key)
        lifetimes = ("--lifetime", "default=12h", "--lifetime", "max=2d")
        ok("trust", "new", store, "--domain", "other", *keys, *lifetimes)
        assert "12h by default; at most 2d" in ok("trust", "show", store).out

    @pytest.mark.parametrize(
        "text", ["max", "max=", "least=1h", "max=0h", "max=0.5s", "default=-1d", "max=999999999999d"]
    )
    def test_what_is_no_lifetime(self, desk: Desk, text: str) -> None:
        said = fails("trust", "set-lifetime", desk.store, desk.folder / "x.draft", text)
        assert "is not a lifetime" in said
        assert "give default=TIME or max=TIME" in said
        assert not (desk.folder / "x.draft").exists()

    def test_a_default_beyond_the_maximum(self, desk: Desk) -> None:
        draft = desk.folder / "x.draft"
        ok("trust", "set-lifetime", desk.store, draft, "max=24h")
        said = fails("trust", "set-lifetime", desk.store, draft, "default=25h")
        assert "root.default_lifetime is 25h, more than root.max_lifetime, 1d" in said
        assert "set the default to less, or to none" in said


def state(desk: Desk) -> tuple[object, ...]:
    host = ok("engines", "host", "--json").json["host"]
    return desk.folder / "state", "--id", "uav-07", "--host", host, "--trust", desk.root


def takeoff(desk: Desk, *more: object) -> Ran:
    """What the aircraft says of the stick, which is a copy of the ground store."""
    stick = desk.folder / "stick"
    shutil.rmtree(stick, ignore_errors=True)
    shutil.copytree(desk.store, stick)
    return flightbag("verify", stick, "left", "--state", desk.folder / "state", "--json", *more)


class TestAClockThatWasAYearAhead:
    """The drill of docs/time.md: a mission is issued a year ahead, and flown; then nothing that expires is GO."""

    @pytest.fixture
    def driven(self, desk: Desk, clock: Clock) -> Desk:
        ok("aircraft", "enrol", "--state", *state(desk))
        clock(NOW + YEAR)
        desk.built(write(desk))
        clock(NOW)
        assert takeoff(desk).status == 0, "without a trusted clock nobody can know"
        ok("aircraft", "consume", "2026-11-23-01", "--state", desk.folder / "state")
        assert desk.built(write(desk, flight="next", valid_for='"72h"'))["outcome"] == "built"
        ran = takeoff(desk)
        assert kinds(ran) == ["expired"]
        assert "flightbag aircraft lower-floor" in ran.json["findings"][0]["remedy"]
        return desk

    def flown_is_flown(self, desk: Desk) -> None:
        """The flight that was consumed is still consumed."""
        assert desk.built(write(desk, valid_for='"72h"'))["outcome"] == "built"
        assert kinds(takeoff(desk)) == ["consumed-flight"]

    def test_with_a_trusted_clock_it_had_never_been_go(self, desk: Desk, clock: Clock) -> None:
        ok("aircraft", "enrol", "--state", *state(desk))
        clock(NOW + YEAR)
        desk.built(write(desk))
        clock(NOW)
        ran = takeoff(desk, "--clock", "trusted")
        assert kinds(ran) == ["issued-in-future"]
        assert kinds(desk.verify()) == ["issued-in-future"]
        assert takeoff(desk).status == 0, "and nothing of it was remembered"

    def test_a_person_lowers_the_floor(self, driven: Desk) -> None:
        assert kinds(takeoff(driven, "--clock", "trusted")) == ["floor-ahead"]
        args = ("aircraft", "lower-floor", utc(NOW), "--state", driven.folder / "state")
        before = ok("aircraft", "show", "--state", driven.folder / "state", "--json").json
        assert "give --yes" in fails(*args)
        assert ok("aircraft", "show", "--state", driven.folder / "state", "--json").json == before
        assert f"lowered the floor of uav-07 from {shown(NOW + YEAR)} to {shown(NOW)}" in ok(*args, "--yes").out
        assert "nothing to lower" in ok(*args).out
        assert ok(*args, "--json").own == {"id": "uav-07", "before": NOW, "floor": NOW}
        assert takeoff(driven).status == 0
        assert takeoff(driven, "--clock", "trusted").status == 0
        self.flown_is_flown(driven)

    def test_a_new_epoch_lowers_it(self, driven: Desk) -> None:
        rotate(driven, "new-epoch")
        driven.built(write(driven, flight="next", valid_for='"72h"'))
        assert takeoff(driven).status == 0
        self.flown_is_flown(driven)

    def test_enrolled_again_with_the_root_of_a_new_epoch(self, driven: Desk) -> None:
        """The way back for an aircraft whose root is too old for the stick; it loses no flight."""
        rotate(driven, "new-epoch")
        driven.built(write(driven, flight="next", valid_for='"72h"'))
        shutil.copy(driven.store / "trust/2.root.cbor", driven.root)
        ok("aircraft", "enrol", "--state", *state(driven), "--again")
        assert ok("aircraft", "show", "--state", driven.folder / "state", "--json").json["floor"] == NOW
        assert takeoff(driven).status == 0
        self.flown_is_flown(driven)

    def test_the_ground_makes_nothing_under_a_root_from_the_future(self, desk: Desk, clock: Clock) -> None:
        clock(NOW + YEAR)
        rotate(desk, "set-threshold", "mission=1")
        draft = desk.folder / "next.draft"
        ok("trust", "new-epoch", desk.store, draft)
        clock(NOW)
        path = write(desk)
        for args in (
            ("build", path, "--store", desk.store, "--key", desk.key),
            ("trust", "sign", draft, "--key", desk.folder / "owner.key"),
        ):
            ran = flightbag(*args, "--json")
            assert (ran.status, ran.json["error"]["kind"]) == (1, "issued-in-future")
        draft.unlink()
        rotate(desk, "new-epoch")
        desk.built(path)
        assert desk.verify().status == 0


def test_the_floor_is_lowered_at_a_terminal(desk: Desk, clock: Clock) -> None:
    ok("aircraft", "enrol", "--state", *state(desk))
    clock(NOW + YEAR)
    desk.built(write(desk))
    clock(NOW)
    assert takeoff(desk).status == 0
    args = ("aircraft", "lower-floor", utc(NOW), "--state", desk.folder / "state")
    status, shown_ = at_terminal(*args, answers=[(f"to {shown(NOW)}?", "y")])
    assert (status, "not confirmed: nothing was changed" in shown_) == (2, True)
    assert f"from {shown(NOW + YEAR)} to {shown(NOW)}?" in shown_
    status, shown_ = at_terminal(*args, answers=[(f"to {shown(NOW)}?", "")], end=b"\x04")
    assert (status, "not confirmed: nothing was changed" in shown_) == (2, True), "Ctrl-D is no answer"
    output = desk.folder / "lowered.json"
    status, _ = at_terminal(*args, "--json", answers=[(f"to {shown(NOW)}?", "no")], output=output)
    assert (status, json.loads(output.read_text())["error"]["message"]) == (2, "not confirmed: nothing was changed")
    status, shown_ = at_terminal(*args, answers=[(f"to {shown(NOW)}?", "yes")])
    assert (status, "lowered the floor" in shown_) == (0, True)


def test_a_number_of_no_time_lowers_nothing(desk: Desk) -> None:
    ok("aircraft", "enrol", "--state", *state(desk))
    for text in ("yesterday", "2026-11-25", "-5", str(10**12)):
        fails("aircraft", "lower-floor", text, "--state", desk.folder / "state", "--yes")


def test_distances() -> None:
    from tools.render import distance

    expected: dict[int, Any] = {
        0: "in 0 s",
        239: "in 239 s",
        240: "in 4 min",
        4 * HOUR: "in 4 h",
        95 * HOUR: "in 95 h",
        96 * HOUR: "in 4 days",
        -71 * HOUR: "71 h ago",
        -1: "1 s ago",
    }
    assert {seconds: distance(seconds) for seconds in expected} == expected
