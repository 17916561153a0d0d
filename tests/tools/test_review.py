"""What was reviewed is what is signed: by the command line, at a terminal and without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from store.format.cose import Envelope
from store.format.entries import TABLE_LIMIT, EntryTable
from store.format.manifest import CONTENT_TYPE, PAYLOAD_LIMIT, Manifest, identity_of
from store.format.release import CONTENT_TYPE as RELEASE_TYPE
from store.format.release import Release
from store.format.withdrawal import CONTENT_TYPE as WITHDRAWAL_TYPE
from store.format.withdrawal import Withdrawal
from store.ground.repository import Repository
from tests.support.commands import code_of, flightbag, listing
from tests.support.field import Desk
from tests.support.terminal import Answer, at_terminal

PROMPT = "type its code"


class Signing:
    """One signable thing on a desk: the command that signs it, how it is looked at, and how somebody swaps it."""

    def __init__(self, desk: Desk, what: str) -> None:
        self.desk, self.what = desk, what
        folder, store = desk.folder, desk.store
        if what == "withdrawal":
            assert flightbag("withdraw", store, "left", "--reason", "old imagery").status == 0
        self.command: tuple[object, ...] = {
            "mission": ("sign", store, "right", "--key", desk.key),
            "root": ("trust", "sign", folder / "root.draft", "--key", folder / "owner.key"),
            "release": ("release", "sign", store, folder / "winter.release", "--key", folder / "lab.key"),
            "withdrawal": ("withdraw", store, "left", "--key", desk.key),
        }[what]
        self.view: tuple[object, ...] = {
            "mission": ("show", store, "right", "--draft"),
            "root": ("trust", "show", folder / "root.draft"),
            "release": ("release", "show", folder / "winter.release"),
            "withdrawal": ("withdraw", store, "left"),
        }[what]
        self.file = {
            "mission": store / "drafts/right",
            "root": folder / "root.draft",
            "release": folder / "winter.release",
            "withdrawal": store / "drafts/left.mission",
        }[what]

    def swap(self) -> None:
        """Put another one in its place, as whoever can write the file may: a draft vouches for nothing."""
        if self.what == "mission":
            manifest = Manifest.parse(Envelope.parse(self.file.read_bytes(), CONTENT_TYPE, PAYLOAD_LIMIT).payload)
            takeoff = replace(manifest.mission.takeoff, lat=manifest.mission.takeoff.lat + 1000)
            other = replace(manifest, mission=replace(manifest.mission, takeoff=takeoff))
            # The identity follows the facts: step D derives it again.
            with Repository.open(self.desk.store) as repository:
                table = EntryTable.parse(repository.evidence.object(manifest.table, TABLE_LIMIT))
            other = replace(other, identity=identity_of(other, table))
            self.file.write_bytes(Envelope(CONTENT_TYPE, other.render()).render())
        elif self.what == "root":
            other_draft = self.desk.folder / "other.draft"
            args = ("trust", "add-key", self.desk.store, other_draft, "mission", self.desk.folder / "spare.key.pub")
            assert flightbag(*args).status == 0
            shutil.move(other_draft, self.file)
        elif self.what == "withdrawal":
            value = Withdrawal.parse(Envelope.parse(self.file.read_bytes(), WITHDRAWAL_TYPE, PAYLOAD_LIMIT).payload)
            self.file.write_bytes(Envelope(WITHDRAWAL_TYPE, replace(value, reason="another").render()).render())
        else:
            envelope = Envelope.parse(self.file.read_bytes(), RELEASE_TYPE, PAYLOAD_LIMIT)
            release = Release.parse(envelope.payload)
            first = replace(release.approvals[0], size=release.approvals[0].size + 1)
            other_release = replace(release, approvals=tuple(sorted((first, *release.approvals[1:]))))
            self.file.write_bytes(Envelope(RELEASE_TYPE, other_release.render()).render())

    @property
    def code(self) -> str:
        return code_of(*self.view)

    def is_signed(self) -> bool:
        if self.what == "mission":
            return (self.desk.store / "missions/right").exists()
        if self.what == "withdrawal":
            return (self.desk.store / "withdrawn/left.mission").exists()
        ran = flightbag(*self.view, "--json")
        said = ran.json["releases"][0] if self.what == "release" else ran.json
        return bool(said["signers" if self.what == "root" else "kids"])

    def signed_code(self) -> str:
        return code_of(*(("show", self.desk.store, "right") if self.what == "mission" else self.view))


@pytest.fixture(params=["mission", "root", "release", "withdrawal"])
def signing(request: pytest.FixtureRequest, equipped: Desk) -> Signing:
    return Signing(equipped, request.param)


def test_without_a_terminal_and_a_code_nothing_is_signed(signing: Signing) -> None:
    before = listing(signing.desk.folder, without=())
    ran = flightbag(*signing.command, "--json")
    assert (ran.status, ran.json["error"]["kind"]) == (2, "unreviewed")
    assert "--expect CODE" in ran.json["error"]["remedy"]
    # Not even the key is opened: that would be another error.
    folder, key = signing.desk.folder, signing.command[-1]
    (folder / "phrase").write_text("correct horse battery")
    assert flightbag("keys", "rewrap", key, "--new-passphrase-file", folder / "phrase").status == 0
    (folder / "phrase").write_text("another horse battery")
    locked = flightbag(*signing.command, "--passphrase-file", folder / "phrase", "--json")
    assert locked.json["error"]["kind"] == "unreviewed"
    named = ("--expect", signing.code)
    locked = flightbag(*signing.command, "--passphrase-file", folder / "phrase", *named, "--json")
    assert "the passphrase is wrong" in locked.json["error"]["message"]
    after = listing(signing.desk.folder, without=())
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"ground/lock/mission-right", "ground/lock/mission-left", Path(str(key)).name}
    assert not signing.is_signed()


def test_the_code_of_the_review_signs_in_every_form(signing: Signing) -> None:
    code = signing.code
    shown = flightbag(*signing.view).out
    assert code in shown
    written = code.replace("-", "").lower().replace("0", "o").replace("1", "l")
    ran = flightbag(*signing.command, "--expect", written)
    assert ran.status == 0, ran.err
    # The facts come first, the code is among them.
    assert code in ran.out
    assert signing.is_signed()
    assert signing.signed_code() == code


def test_what_was_swapped_after_the_review_is_not_signed(signing: Signing) -> None:
    code = signing.code
    signing.swap()
    assert signing.code != code
    before = signing.file.read_bytes()
    ran = flightbag(*signing.command, "--expect", code, "--json")
    assert (ran.status, ran.json["error"]["kind"]) == (1, "other-code")
    assert (ran.json["error"]["expected"], ran.json["error"]["actual"]) == (code, signing.code)
    assert signing.file.read_bytes() == before
    assert not signing.is_signed()


@pytest.mark.parametrize("text", ["", "yes", "y", "4X7QK"])
def test_what_is_no_code_signs_nothing(signing: Signing, text: str) -> None:
    ran = flightbag(*signing.command, "--expect", text, "--json")
    assert (ran.status, ran.json["error"]["kind"]) == (2, "invalid")
    assert "is not a code" in ran.json["error"]["message"]
    assert not signing.is_signed()


class TestAtTheTerminal:
    def answered(self, signing: Signing, answer: str | Callable[[str], str]) -> tuple[int, str]:
        return at_terminal(*signing.command, answers=[(PROMPT, answer)])

    def test_the_facts_are_shown_and_the_code_is_asked_for(self, signing: Signing) -> None:
        code = signing.code
        status, seen = self.answered(signing, code.lower())
        assert status == 0, seen
        facts = seen[: seen.index(PROMPT)]
        assert code in facts
        for word in {
            "mission": ("takeoff", "flight", "expires", "entries", "no manifest of this mission"),
            "root": ("changes from trust root 2", "epoch: 2, before 1", "mission: 1 of 1 key"),
            "release": ("release winter for", "engines/embedder", "0 signatures"),
            "withdrawal": ("mission left, up to sequence", "old imagery"),
        }[signing.what]:
            assert word in facts
        assert signing.is_signed()
        assert signing.signed_code() == code

    @pytest.mark.parametrize("answer", ["", "y", "yes", "4X7QK-09DZM"])
    def test_any_other_answer_signs_nothing(self, signing: Signing, answer: str) -> None:
        status, seen = self.answered(signing, answer)
        assert status == (1 if "-" in answer else 2)
        said = seen[seen.index("flightbag: ") :]
        if "-" in answer:
            assert f"has the code {signing.code}, and not {answer}" in " ".join(said.split())
        else:
            assert f"'{answer}' is not a code" in said
        assert not signing.is_signed()

    def test_the_end_of_the_input_signs_nothing(self, signing: Signing) -> None:
        status, _ = at_terminal(*signing.command, answers=[(PROMPT, "")], end=b"\x04")
        assert status == 2
        assert not signing.is_signed()

    def test_an_interrupt_signs_nothing_and_leaves_no_lock(self, signing: Signing) -> None:
        status, seen = at_terminal(*signing.command, answers=[(PROMPT, "")], end=b"\x03")
        assert (status, "interrupted" in seen) == (130, True)
        assert not signing.is_signed()
        assert flightbag(*signing.command, "--expect", signing.code).status == 0

    def test_what_is_swapped_while_a_person_reads_is_not_what_is_signed(self, signing: Signing) -> None:
        code = signing.code

        def answer(seen: str) -> str:
            signing.swap()
            return code

        status, seen = self.answered(signing, answer)
        assert status == 0, seen
        assert signing.signed_code() == code

    def test_a_signer_command_gets_the_same(self, signing: Signing) -> None:
        """It is not even started before the code is given."""
        started = signing.desk.folder / "started"
        parts = [f"{part}.pub" if str(part).endswith(".key") else part for part in signing.command]
        parts += ["--signer", f"touch {started}"]
        status, _ = at_terminal(*parts, answers=[(PROMPT, "no")])
        assert (status, started.exists()) == (2, False)
        status, _ = at_terminal(*parts, answers=[(PROMPT, signing.code)])
        assert (status, started.exists()) == (3, True)  # it signs nothing
        assert not signing.is_signed()

    def test_json_is_for_standard_output_and_the_person_for_the_terminal(self, signing: Signing) -> None:
        out = signing.desk.folder / "out.json"
        status, seen = at_terminal(*signing.command, "--json", answers=[(PROMPT, signing.code)], output=out)
        assert status == 0, seen
        assert json.loads(out.read_text())
        assert signing.is_signed()

    def test_nobody_is_asked_who_cannot_see_the_facts(self, signing: Signing) -> None:
        status, seen = at_terminal(*signing.command, output=signing.desk.folder / "out.txt")
        assert (status, PROMPT in seen) == (2, False)

    def test_the_passphrase_comes_after_the_code(self, signing: Signing) -> None:
        key = Path(str(signing.command[-1]))
        phrase = "correct horse battery"
        (signing.desk.folder / "phrase").write_text(phrase)
        assert flightbag("keys", "rewrap", key, "--new-passphrase-file", signing.desk.folder / "phrase").status == 0
        answers: list[Answer] = [(PROMPT, signing.code), (f"Passphrase for {key.name}", phrase)]
        status, seen = at_terminal(*signing.command, answers=answers)
        assert status == 0, seen
        assert phrase not in seen
        assert signing.is_signed()


class TestRollback:
    def test_the_manifest_it_goes_back_to_is_named(self, equipped: Desk) -> None:
        command = ("rollback", equipped.store, "left", "--key", equipped.key)
        ran = flightbag(*command, "--json")
        assert (ran.status, ran.json["error"]["kind"]) == (2, "unreviewed")
        current = code_of("show", equipped.store, "left")
        ran = flightbag(*command, "--expect", current, "--json")
        assert (ran.status, ran.json["error"]["kind"]) == (1, "other-code")
        dry = flightbag(*command, "--dry-run", "--json").json
        assert dry["to_code"] in flightbag(*command, "--dry-run").out
        status, seen = at_terminal(*command, answers=[(PROMPT, dry["to_code"])])
        assert status == 0, seen
        facts = seen[: seen.index(PROMPT)]
        assert f"this goes back to manifest {dry['to'][:12]}" in facts
        assert f"signing code {dry['to_code']}" in facts
        assert "! files/calibration/camera.yaml" in facts
        row = flightbag("log", equipped.store, "left", "--json").json["events"][-1]
        assert row["event"] == "rolled-back"

    def test_a_log_that_somebody_wrote_chooses_nothing(self, equipped: Desk) -> None:
        """Three manifests; the log loses the line of the second, so that the first would be the one to go back to."""
        command = ("rollback", equipped.store, "left", "--key", equipped.key)
        (equipped.folder / "camera.yaml").write_text("fx: 900.0\n")
        assert equipped.build(equipped.folder / "left.toml").status == 0
        code = flightbag(*command, "--dry-run", "--json").json["to_code"]
        log = equipped.store / "log"
        events = [json.loads(line) for line in log.read_bytes().splitlines()]
        second = [event for event in events if event.get("mission") == "left"][1]
        lines, previous = b"", "0" * 64
        for event in events:
            if event is not second:
                line = json.dumps({**event, "previous": previous}, sort_keys=True, separators=(",", ":")) + "\n"
                lines, previous = lines + line.encode(), blake3(line.encode()).hexdigest()
        log.write_bytes(lines)
        before = (equipped.store / "missions/left").read_bytes()
        ran = flightbag(*command, "--expect", code, "--json")
        assert (ran.status, ran.json["error"]["kind"]) == (1, "other-code")
        assert (equipped.store / "missions/left").read_bytes() == before


class TestTheFirstRoot:
    """Nobody vouches for root 1 but who puts it into effect."""

    @pytest.fixture
    def draft(self, equipped: Desk) -> Path:
        return self.founded(equipped, "first.draft", "planner.key.pub")

    def founded(self, desk: Desk, name: str, mission_key: str) -> Path:
        keys = ("--root-key", desk.folder / "owner.key", "--mission-key", desk.folder / mission_key)
        args = ("trust", "new", desk.folder / "empty", "--domain", "new", *keys, "--draft", desk.folder / name)
        assert flightbag(*args).status == 0
        return desk.folder / name

    def test_its_code_is_given(self, equipped: Desk, draft: Path) -> None:
        command = ("trust", "rotate", equipped.folder / "empty", draft)
        ran = flightbag(*command, "--json")
        assert (ran.status, ran.json["error"]["kind"]) == (2, "unreviewed")
        code = code_of("trust", "show", draft)
        other = self.founded(equipped, "other.draft", "spare.key.pub")
        original = draft.read_bytes()
        draft.write_bytes(other.read_bytes())
        ran = flightbag(*command, "--expect", code, "--json")
        assert (ran.status, ran.json["error"]["kind"]) == (1, "other-code")
        draft.write_bytes(original)
        status, seen = at_terminal(*command, answers=[(PROMPT, code)])
        assert status == 0, seen
        assert code_of("trust", "show", equipped.folder / "empty") == code

    def test_a_later_one_has_a_root_that_vouches_for_it(self, equipped: Desk) -> None:
        command = ("trust", "rotate", equipped.store, equipped.folder / "signed.draft")
        ran = flightbag(*command, "--expect", "4X7QK-09DZM", "--json")
        assert (ran.status, ran.json["error"]["kind"]) == (1, "other-code")
        assert flightbag(*command).status == 0


class TestBuild:
    """A build signs what it has just made. A second pilot builds the draft again, and signs if it is the same."""

    def test_the_draft_is_built_again(self, equipped: Desk) -> None:
        code = code_of("show", equipped.store, "right", "--draft")
        before = (equipped.store / "drafts/right").read_bytes()
        other = equipped.build(equipped.folder / "right.toml", "--expect", "4X7QK-09DZM")
        assert (other.status, other.json["error"]["kind"]) == (1, "other-code")
        assert other.json["error"]["actual"] == code
        assert (equipped.store / "drafts/right").read_bytes() == before
        built = equipped.build(equipped.folder / "right.toml", "--expect", code)
        assert (built.status, built.json["outcome"]) == (0, "built")
        assert equipped.build(equipped.folder / "right.toml", "--expect", code).json["outcome"] == "unchanged"
        assert equipped.build(equipped.folder / "right.toml", "--expect", "4X7QK-09DZM").status == 1

    def test_a_mission_file_that_somebody_changed(self, equipped: Desk) -> None:
        code = code_of("show", equipped.store, "right", "--draft")
        changed = equipped.write_mission("right", takeoff=(47.0202, -99.1602))
        ran = equipped.build(changed, "--expect", code)
        assert (ran.status, ran.json["error"]["kind"]) == (1, "other-code")
        assert not (equipped.store / "missions/right").exists()


def test_every_view_prints_the_code(equipped: Desk) -> None:
    code = code_of("show", equipped.store, "right", "--draft")
    assert code in flightbag("ls", equipped.store).out
    assert code in flightbag("show", equipped.store, "right", "--draft").out
    built = equipped.build(equipped.folder / "right.toml").json
    assert (built["outcome"], built["signing_code"]) == ("built", code)
    unchanged = flightbag("build", equipped.folder / "right.toml", "--store", equipped.store, "--key", equipped.key)
    assert f"signing code {code}" in unchanged.out
    assert code in flightbag("show", equipped.store, "right").out
    release = code_of("release", "show", equipped.folder / "winter.release")
    sign = ("release", "sign", equipped.store, equipped.folder / "winter.release", "--key", equipped.folder / "lab.key")
    assert flightbag(*sign, "--expect", release).status == 0
    assert release in flightbag("release", "show", equipped.store).out
