"""The life of missions from the command line: go back, compare, count, check out."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from store.disk.log import Event
from store.ground.repository import Repository
from tests.support.commands import Ran, code_of, flightbag, listing
from tests.support.field import Desk
from tests.support.store_files import entry_of, object_file


class TestMissions:
    def test_rollback(self, twice: Desk) -> None:
        first, second = (row["manifest"] for row in flightbag("log", twice.store, "left", "--json").json["events"])
        sequence = flightbag("show", twice.store, "left", "--json").json["issue"]["sequence"]
        before = listing(twice.store)
        dry = flightbag("rollback", twice.store, "left", "--key", twice.key, "--dry-run", "--json").json
        assert (dry["to"], dry["current"], dry["manifest"]) == (first, second, None)
        assert listing(twice.store) == before
        named = ("--expect", dry["to_code"])
        done = flightbag("rollback", twice.store, "left", "--key", twice.key, *named, "--json").json
        assert done["sequence"] > sequence
        camera = entry_of(twice.store, "left", "files/")
        assert object_file(twice.store, camera["id"]).read_text() == "fx: 712.4\n"
        assert twice.verify().status == 0
        again = flightbag("rollback", twice.store, "left", "--to", first, "--key", twice.key, "--json").json
        assert (again["unchanged"], again["manifest"]) == (True, None)
        assert flightbag("log", twice.store, "left", "--json").json["events"][-1]["event"] == "rolled-back"
        dry = flightbag("rollback", twice.store, "left", "--key", twice.key, "--dry-run", "--json").json
        named = ("--expect", dry["to_code"])
        back = flightbag("rollback", twice.store, "left", "--key", twice.key, *named, "--json").json
        assert object_file(twice.store, entry_of(twice.store, "left", "files/")["id"]).read_text() == "fx: 800.0\n"
        assert back["to"] == second

    def test_rollback_is_refused(self, twice: Desk) -> None:
        stranger = twice.folder / "stranger.key"
        flightbag("keys", "new", stranger, "--no-passphrase")
        first = flightbag("log", twice.store, "left", "--json").json["events"][0]["manifest"]
        assert flightbag("rollback", twice.store, "left", "--key", stranger, "--to", first).status == 1
        assert flightbag("rollback", twice.store, "right", "--key", twice.key).status == 1, "there is nothing before it"
        other = flightbag("log", twice.store, "right", "--json").json["events"][0]["manifest"]
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
        assert "kept" in [one["name"] for one in flightbag("pin", "--json", env=env).json["pins"]]
        assert flightbag("unpin", "kept", env=env).status == 0
        assert flightbag("diff", "left", "left", env=env).status == 0

    def test_a_budget_of_bytes(self, built: Desk) -> None:
        path = built.write_mission("left")
        plain = path.read_text()
        closure = flightbag("ls", built.store, "--json").json["missions"][0]["bytes"]
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
        assert [one["manifest"] for one in flightbag("ls", built.store, "--json").json["missions"]] == [
            flightbag("log", built.store, "left", "--json").json["events"][-1]["manifest"]
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
            assert path.read_bytes() == object_file(twice.store, one["id"]).read_bytes()
            assert path.samefile(object_file(twice.store, one["id"])) == linked
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
        assert flightbag("checkout", "--check", tmp_path / "desk" / "ground", "--trust", twice.root).status == 3

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
        object_file(twice.store, entry_of(twice.store, "left", "engines/")["id"]).unlink()
        assert self.out(twice, tmp_path / "out").status == 1
        assert list(tmp_path.glob("out*")) == []

    def test_an_interrupted_checkout_leaves_nothing_under_its_name(self, twice: Desk, tmp_path: Path) -> None:
        (tmp_path / "out.partial/.flightbag").mkdir(parents=True)
        (tmp_path / "out.partial/deep").mkdir()
        (tmp_path / "out.partial/deep/half").write_text("half")
        assert self.out(twice, tmp_path / "out").status == 0
        assert self.check(twice, tmp_path / "out") == (0, [])


class TestSigners:
    """Who signed is shown by every view, and stays known after the key was revoked."""

    @pytest.fixture
    def ended(self, built: Desk) -> Desk:
        """`left`, whose planner was named, and then revoked and replaced."""
        folder = built.folder
        assert flightbag("keys", "new", folder / "relief.key", "--no-passphrase", "--name", "Rea").status == 0
        draft, relief = folder / "next.draft", folder / "relief.key.pub"
        pub = folder / "planner.key.pub"
        for command in (
            ("add-key", built.store, draft, "mission", relief),
            ("add-key", built.store, draft, "mission", pub, "--name", "Pia"),
            ("revoke", built.store, draft, pub),
        ):
            assert flightbag("trust", *command).status == 0
        owner = ("--key", folder / "owner.key")
        ran = flightbag("trust", "sign", draft, *owner, "--expect", code_of("trust", "show", draft))
        assert ran.status == 0, ran.err
        self.before = int(time.time())
        time.sleep(1.05 - time.time() % 1)  # the log counts seconds
        ran = flightbag("trust", "rotate", built.store, draft)
        assert ran.status == 0, ran.err
        return built

    def test_after_a_revocation(self, ended: Desk) -> None:
        kid = flightbag("keys", "show", ended.folder / "planner.key.pub", "--json").json["kid"]
        assert flightbag("show", ended.store, "left").status == 1
        at = ("--at", self.before)
        ran = flightbag("show", ended.store, "left", *at)
        assert ran.status == 0, ran.err
        assert "under trust root 1; no clearance" in ran.out.splitlines()[0]
        assert f"revoked since: {kid[:12]} (Pia), which has signed this" in ran.out
        assert re.search(rf"signed by +{kid[:12]}\n", ran.out)
        value = flightbag("show", ended.store, "left", *at, "--json").json
        assert value["signers"] == [{"kid": kid, "name": ""}]
        assert value["revoked_since"] == [{"kid": kid, "name": "Pia"}]
        assert (value["at"], value["trust_root_version"]) == (self.before, 1)

        log = flightbag("log", ended.store, "left")
        assert f"signed by {kid[:12]} (Pia)" in log.out
        assert flightbag("log", ended.store, "left", "--json").json["events"][-1]["signers"] == [
            {"kid": kid, "name": "Pia"}
        ]

    def test_a_trust_root(self, ended: Desk) -> None:
        kid = flightbag("keys", "show", ended.folder / "owner.key.pub", "--json").json["kid"]
        shown = flightbag("trust", "show", ended.store)
        assert f"  {kid[:12]}  has signed\n" in shown.out
        assert flightbag("trust", "show", ended.store, "--json").json["signers"] == [{"kid": kid, "name": ""}]


def test_a_log_that_somebody_wrote_names_nobody_by_other_things_than_kids(twice: Desk) -> None:
    with Repository.open(twice.store) as repository:
        for kids in ("abc", [1], ["zz"], [["a"]], {}, None, ["ab" * 32]):
            repository.append_log(
                Event(1, "signed", {"mission": "left", "sequence": 1, "kids": kids, "for": "published"})
            )
    ran = flightbag("log", twice.store, "left")
    assert (ran.status, "signed by abababababab" in ran.out) == (0, True), ran.err
    assert [row["signers"] for row in flightbag("log", twice.store, "--json").json["events"] if "signers" in row] == [
        [{"kid": "ab" * 32, "name": ""}]
    ]


def test_a_proof_says_who_signed_the_mission(equipped: Desk) -> None:
    kid = flightbag("keys", "show", equipped.key, "--json").json["kid"]
    check = (
        "check-proof",
        equipped.folder / "camera.proof",
        equipped.folder / "carried.yaml",
        "--trust",
        equipped.root,
    )
    ran = flightbag(*check, columns=80)
    assert (ran.status, f"  signed by {kid[:12]}\n" in ran.out) == (0, True), ran.err
    assert max(map(len, ran.out.splitlines()[1:])) <= 80
    assert flightbag(*check, "--json").json["signers"] == [{"kid": kid, "name": ""}]
