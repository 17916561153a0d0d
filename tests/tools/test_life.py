"""The life of a store, from the command line: audit, repair, collect, pin, go back, compare, check out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran, flightbag, listing, program
from tests.support.field import RIGHT, Desk


@pytest.fixture
def twice(built: Desk) -> Desk:
    """`left` built, then built again with another camera file; and `right`, which shares cells and the engine."""
    (built.folder / "camera.yaml").write_text("fx: 800.0\n")
    built.built(built.write_mission("left"))
    built.built(built.write_mission("right", bbox=RIGHT))
    return built


def fsck(desk: Desk, *more: object) -> tuple[int, list[dict[str, Any]]]:
    ran = flightbag("fsck", desk.store, "--json", *more)
    return ran.status, [json.loads(line) for line in ran.out.splitlines()]


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    return [line["kind"] for line in lines if line["type"] == "finding" and not line.get("information")]


def entry(desk: Desk, mission: str, name: str) -> dict[str, Any]:
    entries: list[dict[str, Any]] = flightbag("show", desk.store, mission, "--json").json["entries"]
    return next(one for one in entries if one["name"].startswith(name))


def place(store: Path, id_: str) -> Path:
    return store / "objects" / id_[:2] / id_[2:]


class TestFsck:
    def test_json_is_a_line_a_thing(self, twice: Desk) -> None:
        status, lines = fsck(twice, "--full")
        assert status == 0
        assert [(line["mission"], line["flyable"]) for line in lines if line["type"] == "mission"] == [
            ("left", True),
            ("right", True),
        ]
        summary = lines[-1]
        assert (summary["type"], summary["level"], summary["status"]) == ("summary", "full", 0)
        assert summary["read_objects"] == summary["objects"] > 0
        assert summary["notes"] == {}  # the first build is what a rollback leads to

    def test_repair_from_a_replica(self, twice: Desk) -> None:
        replica = twice.folder / "replica"
        assert flightbag("sync", twice.store, replica).status == 0
        engine = place(twice.store, entry(twice, "left", "engines/")["id"])
        engine.chmod(0o644)
        engine.write_bytes(b"x" + engine.read_bytes()[1:])
        (twice.store / "missions" / "right").write_text("")
        status, lines = fsck(twice, "--full")
        assert (status, sorted(kinds(lines))) == (4, ["bad-ref", "bit-flip"])
        assert {line["mission"] for line in lines if line["type"] == "mission" and not line["flyable"]} == {
            "left",
            "right",
        }
        before = listing(twice.store)
        status, lines = fsck(twice, "--full", "--repair", "--from", replica, "--dry-run")
        assert status == 4
        assert [step["action"] for step in lines[0]["steps"]] == ["fetch", "ref"]
        assert listing(twice.store) == before
        status, lines = fsck(twice, "--full", "--repair", "--from", replica)
        assert (status, kinds(lines)) == (1, [])
        assert fsck(twice, "--full")[0] == 0
        assert twice.verify().status == 0
        events = flightbag("log", twice.store, "--json").json
        assert [event["stage"] for event in events if event["event"] == "repaired"] == ["begun", "done"]

    def test_without_a_replica_errors_are_left(self, twice: Desk) -> None:
        place(twice.store, entry(twice, "left", "engines/")["id"]).unlink()
        status, lines = fsck(twice, "--repair")
        assert (status, kinds(lines)) == (4, ["missing"])
        ran = flightbag("fsck", twice.store, "--repair")
        assert "GROUNDED" in ran.out

    def test_budget_sample_mission_and_exclusive(self, twice: Desk, tmp_path: Path) -> None:
        book = tmp_path / "ledger"
        status, lines = fsck(twice, "--budget", "60s", "--ledger", book, "--drop-cache")
        assert (status, lines[-1]["read_objects"]) == (0, lines[-1]["objects"])
        assert book.exists()
        status, lines = fsck(twice, "--sample", "10%")
        assert (status, 0 < lines[-1]["read_objects"] < lines[-1]["objects"]) == (0, True)
        assert fsck(twice, "--mission", "left", "--full")[0] == 0
        assert fsck(twice, "--mission", "nowhere")[0] == 4
        status, lines = fsck(twice, "--exclusive")
        assert (status, set(kinds(lines))) == (4, {"unreferenced"})
        aircraft = twice.folder / "aircraft"
        flightbag("sync", twice.store, aircraft)
        assert program("store-fsck", aircraft, "--exclusive", "--full").status == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            ("--sample", "ten"),
            ("--sample", "0%"),
            ("--sample", "200%"),
            ("--budget", "60"),
            ("--budget", "0s"),
            ("--full", "--budget", "1s"),
            ("--from", "x"),
            ("--dry-run",),
            ("--mission", "No"),
            ("--mission", "left", "--exclusive"),
        ],
    )
    def test_usage(self, twice: Desk, wrong: tuple[str, ...]) -> None:
        assert fsck(twice, *wrong)[0] == 16

    def test_an_audit_and_its_dry_run_write_nothing_in_the_store(self, twice: Desk) -> None:
        before = listing(twice.store)
        for more in ((), ("--full",), ("--budget", "9s"), ("--sample", "50%"), ("--repair", "--dry-run")):
            assert fsck(twice, *more)[0] == 0
        assert flightbag("gc", twice.store, "--dry-run", "--grace", "0s", "--keep-last", "1").status == 0
        for command in (("ls",), ("log",), ("stats",), ("pin",), ("diff", "left", "right")):
            assert flightbag(command[0], twice.store, *command[1:]).status == 0
        assert listing(twice.store) == before

    def test_a_ledger_is_nothing_else_and_lies_outside(self, twice: Desk) -> None:
        before = listing(twice.store)
        inside = twice.store / "missions" / "left"
        assert flightbag("fsck", twice.store, "--full", "--ledger", inside).status == 16
        key_before = twice.key.read_bytes()
        assert flightbag("fsck", twice.store, "--full", "--ledger", twice.key).status == 8
        assert twice.key.read_bytes() == key_before
        assert listing(twice.store) == before

    def test_no_name_forges_a_line(self, twice: Desk) -> None:
        (twice.store / "objects" / "zz\nclean: 9 objects; 0 findings").write_bytes(b"")
        ran = flightbag("fsck", twice.store)
        assert ran.status == 4
        assert not [line for line in ran.out.splitlines() if line.startswith("clean")]


class TestKeeping:
    def test_gc_and_pins(self, twice: Desk) -> None:
        old = flightbag("log", twice.store, "left", "--json").json[0]["manifest"]
        assert flightbag("pin", twice.store, "first", old).status == 0
        assert flightbag("pin", twice.store, "--json").json == {"first": old}
        assert flightbag("pin", twice.store, "first", "left").status == 1
        dry = flightbag("gc", twice.store, "--dry-run", "--grace", "0s", "--keep-last", "1", "--json").json
        assert (dry["dry_run"], dry["collected"]) == (True, 0)
        assert flightbag("unpin", twice.store, "first").status == 0
        assert flightbag("unpin", twice.store, "first").status == 1
        kept = flightbag("gc", twice.store, "--grace", "0s", "--json").json
        assert kept["collected"] == 0, "the one before the last can be gone back to"
        young = flightbag("gc", twice.store, "--keep-last", "1", "--json").json
        assert (young["collected"], young["young"], young["manifests"]) == (0, 3, [old])
        done = flightbag("gc", twice.store, "--grace", "0s", "--keep-last", "1", "--json").json
        assert (done["collected"], done["manifests"]) == (3, []), "it was given up before"
        assert twice.verify().status == 0
        rows = flightbag("log", twice.store, "left", "--json").json
        assert [(row["there"], row["current"]) for row in rows] == [(False, False), (True, True)]
        assert flightbag("gc", twice.store, "--grace", "0s").status == 0
        assert not list((twice.store / "trash").iterdir())
        assert flightbag("gc", twice.store, "--grace", "soon").status == 2

    def test_a_build_after_a_collection_finds_or_makes_what_it_needs(self, twice: Desk) -> None:
        """Build records that name what was collected are no promise: the file is looked for."""
        (twice.store / "missions" / "right").unlink()
        os.truncate(twice.store / "log", 0)
        done = flightbag("gc", twice.store, "--grace", "0s", "--keep-last", "1", "--json").json
        assert done["collected"] > 3
        assert twice.built(twice.write_mission("right", bbox=RIGHT))["outcome"] == "built"
        assert twice.verify().status == 0


class TestMissions:
    def test_rollback(self, twice: Desk) -> None:
        first, second = (row["manifest"] for row in flightbag("log", twice.store, "left", "--json").json)
        sequence = flightbag("show", twice.store, "left", "--json").json["issue"]["sequence"]
        before = listing(twice.store)
        dry = flightbag("rollback", twice.store, "left", "--key", twice.key, "--dry-run", "--json").json
        assert (dry["to"], dry["current"], dry["manifest"]) == (first, second, None)
        assert listing(twice.store) == before
        done = flightbag("rollback", twice.store, "left", "--key", twice.key, "--json").json
        assert done["sequence"] > sequence
        camera = entry(twice, "left", "files/")
        assert place(twice.store, camera["id"]).read_text() == "fx: 712.4\n"
        assert twice.verify().status == 0
        again = flightbag("rollback", twice.store, "left", "--to", first, "--key", twice.key, "--json").json
        assert (again["unchanged"], again["manifest"]) == (True, None)
        assert flightbag("log", twice.store, "left", "--json").json[-1]["event"] == "rolled-back"
        back = flightbag("rollback", twice.store, "left", "--key", twice.key, "--json").json
        assert place(twice.store, entry(twice, "left", "files/")["id"]).read_text() == "fx: 800.0\n"
        assert back["to"] == second

    def test_rollback_is_refused(self, twice: Desk) -> None:
        stranger = twice.folder / "stranger.key"
        flightbag("keys", "new", stranger, "--no-passphrase")
        assert flightbag("rollback", twice.store, "left", "--key", stranger).status == 1
        assert flightbag("rollback", twice.store, "right", "--key", twice.key).status == 1, "there is nothing before it"
        other = flightbag("log", twice.store, "right", "--json").json[0]["manifest"]
        assert flightbag("rollback", twice.store, "left", "--to", other, "--key", twice.key).status == 2
        assert flightbag("rollback", twice.store, "left", "--to", "x", "--key", twice.key).status == 2
        flightbag("gc", twice.store, "--grace", "0s", "--keep-last", "1")
        assert flightbag("rollback", twice.store, "left", "--key", twice.key).status == 1
        assert twice.verify().status == 0

    def test_diff_and_stats(self, twice: Desk) -> None:
        found = flightbag("diff", twice.store, "left", "right", "--json").json
        assert any(name.startswith("engines/") for name in found["same"])
        shown = {name: flightbag("show", twice.store, name, "--json").json["entries"] for name in ("left", "right")}
        sizes = {name: sum(one["size"] for one in entries) for name, entries in shown.items()}
        assert found["shared_bytes"] + found["own_a_bytes"] == sizes["left"]
        assert found["shared_bytes"] + found["own_b_bytes"] == sizes["right"]
        counted = flightbag("stats", twice.store, "--json").json
        files = [path.stat().st_size for path in (twice.store / "objects").glob("*/*")]
        assert (counted["objects"], counted["bytes"]) == (len(files), sum(files))
        assert counted["dedup_ratio"] > 1
        for one in counted["missions"].values():
            assert one["shared_bytes"] + one["own_bytes"] == one["bytes"]
        assert counted["unique_bytes"] + counted["unreferenced_bytes"] == counted["bytes"]
        assert "dedup ratio" in flightbag("stats", twice.store).out

    def test_the_environment_names_the_store(self, twice: Desk) -> None:
        env = {"FLIGHTBAG_STORE": str(twice.store)}
        assert flightbag("pin", "kept", "left", env=env).status == 0
        assert "kept" in flightbag("pin", "--json", env=env).json
        assert flightbag("unpin", "kept", env=env).status == 0
        assert flightbag("diff", "left", "left", env=env).status == 0

    def test_a_budget_of_bytes(self, built: Desk) -> None:
        path = built.write_mission("left")
        plain = path.read_text()
        closure = flightbag("ls", built.store, "--json").json[0]["bytes"]
        (built.folder / "camera.yaml").write_text("fx: 1.0\n" + " " * 2)
        before = listing(built.store, without=("index", "lock", "tmp"))
        path.write_text(plain + f"\n[limits]\nmax_bytes = {closure // 2}\n")
        ran = built.build(path)
        assert ran.status == 1
        assert ran.json["outcome"] == "failed"
        assert "limits.max_bytes" in ran.json["why"]
        assert "engines/" in ran.json["why"] or "descriptors/" in ran.json["why"]
        assert listing(built.store, without=("index", "lock", "tmp")) == before, "it is told before anything is built"
        # One byte too few for table and manifest: known only when all is built.
        path.write_text(plain + f"\n[limits]\nmax_bytes = {closure - 1}\n")
        ran = built.build(path)
        assert (ran.status, ran.json["outcome"]) == (1, "failed")
        assert [one["manifest"] for one in flightbag("ls", built.store, "--json").json] == [
            flightbag("log", built.store, "left", "--json").json[-1]["manifest"]
        ], "the mission before stays"
        path.write_text(plain + f"\n[limits]\nmax_bytes = {closure + 100}\n")
        assert built.built(path)["outcome"] == "built"
        assert built.built(path)["outcome"] == "unchanged"
        path.write_text(plain + "\n[limits]\nmax_bytes = 0\n")
        assert built.build(path).status == 2


class TestCheckout:
    def out(self, desk: Desk, target: Path, *more: object) -> Ran:
        return flightbag("checkout", desk.store, "left", target, "--trust", desk.root, "--json", *more)

    def check(self, desk: Desk, target: Path) -> tuple[int, list[tuple[str, str]]]:
        ran = flightbag("checkout", "--check", target, "--trust", desk.root, "--json")
        found = [(one["kind"], os.path.relpath(one.get("path", target), target)) for one in ran.json["findings"]]
        return ran.status, sorted(found)

    @pytest.mark.parametrize("linked", [False, True])
    def test_plain_files_as_they_were_verified(self, twice: Desk, tmp_path: Path, linked: bool) -> None:
        target = tmp_path / "out"
        ran = self.out(twice, target, *(["--hard-link"] if linked else []))
        assert ran.status == 0, ran.err
        entries = flightbag("show", twice.store, "left", "--json").json["entries"]
        for one in entries:
            path = target / one["name"]
            assert path.read_bytes() == place(twice.store, one["id"]).read_bytes()
            assert path.samefile(place(twice.store, one["id"])) == linked
        how = ran.json["how"]
        assert sum(how.values()) == len(entries) == ran.json["files"]
        assert set(how) <= ({"hard link"} if linked else {"reflink", "copy"})
        engine = next(one["name"] for one in entries if one["kind"] == "engine")
        backbone, rest = engine.split("/")[1], engine.split("/")[2]
        assert rest.startswith(f"{backbone}__onnxruntime")
        assert rest.endswith("__cpu__fp32.onnx")
        assert self.check(twice, target) == (0, [])
        assert not list(tmp_path.glob("*.partial"))
        assert self.out(twice, target).status == 1, "what is there is never overwritten"

    def test_the_check_finds_every_change(self, twice: Desk, tmp_path: Path) -> None:
        target = tmp_path / "out"
        self.out(twice, target)
        camera = target / "files/calibration/camera.yaml"
        engine = next((target / "engines").rglob("*.onnx"))
        shards = sorted((target / "descriptors").rglob("*.safetensors"))
        camera.unlink()
        engine.chmod(0o644)
        engine.write_bytes(b"x" + engine.read_bytes()[1:])
        shards[0].unlink()
        shards[0].symlink_to(shards[1])
        (target / "files/calibration/CAMERA.YAML").write_text("fx: 712.4\n")
        (target / "extra").mkdir()
        (target / "extra/inner").write_text("x")
        os.mkfifo(target / ".flightbag/pipe")
        assert self.check(twice, target) == (
            1,
            sorted(
                [
                    ("missing", "files/calibration/camera.yaml"),
                    ("bit-flip", str(engine.relative_to(target))),
                    ("wrong-type", str(shards[0].relative_to(target))),
                    ("extra", "files/calibration/CAMERA.YAML"),
                    ("extra", "extra"),
                    ("extra", ".flightbag/pipe"),
                ]
            ),
        )

    def test_the_record_itself_is_verified(self, twice: Desk, tmp_path: Path) -> None:
        target = tmp_path / "out"
        self.out(twice, target)
        record = next((target / ".flightbag/objects").glob("*/*"))
        record.chmod(0o644)
        record.write_bytes(record.read_bytes()[:-1])
        assert self.check(twice, target)[0] == 1
        inside = flightbag("checkout", "--check", target, "--trust", target / ".flightbag/trust/1.root.cbor")
        assert inside.status == 2, "a root inside the folder would vouch for itself"
        assert flightbag("checkout", "--check", tmp_path / "desk" / "ground", "--trust", twice.root).status == 1

    def test_a_root_of_the_record_is_what_it_was(self, twice: Desk, tmp_path: Path) -> None:
        target = tmp_path / "out"
        self.out(twice, target)
        root = target / ".flightbag/trust/1.root.cbor"
        root.chmod(0o644)
        root.write_bytes(b"smuggled")
        assert self.check(twice, target)[0] == 1
        root.unlink()
        assert self.check(twice, target)[0] == 1

    def test_nothing_is_checked_out_into_the_store(self, twice: Desk) -> None:
        before = listing(twice.store)
        assert self.out(twice, twice.store / "out").status == 2
        assert listing(twice.store) == before

    def test_a_folder_that_is_in_the_way_is_left_alone(self, twice: Desk, tmp_path: Path) -> None:
        thesis = tmp_path / "out.partial/thesis.txt"
        thesis.parent.mkdir()
        thesis.write_text("years of work")
        assert self.out(twice, tmp_path / "out").status == 1
        assert thesis.read_text() == "years of work"

    def test_a_mission_that_does_not_verify_is_not_checked_out(self, twice: Desk, tmp_path: Path) -> None:
        place(twice.store, entry(twice, "left", "engines/")["id"]).unlink()
        assert self.out(twice, tmp_path / "out").status == 1
        assert list(tmp_path.glob("out*")) == []

    def test_an_interrupted_checkout_leaves_nothing_under_its_name(self, twice: Desk, tmp_path: Path) -> None:
        (tmp_path / "out.partial/.flightbag").mkdir(parents=True)
        (tmp_path / "out.partial/deep").mkdir()
        (tmp_path / "out.partial/deep/half").write_text("half")
        assert self.out(twice, tmp_path / "out").status == 0
        assert self.check(twice, tmp_path / "out") == (0, [])
