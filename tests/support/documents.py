"""The JSON documents that the commands print: the fields of each, as docs/json.md lists them.

`FIELDS` is keyed by what is typed. A test validates what every command prints by the schema that is made of it, and
compares its keys with the commands that exist: no field is printed that the page does not list.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import jsonschema

from store.findings import Finding
from tests.support.commands import Ran

_TYPES = {
    "text": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "true or false": {"type": "boolean"},
    "object": {"type": "object"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "integers": {"type": "array", "items": {"type": "integer"}},
    "lists": {"type": "array", "items": {"type": "array"}},
    "null": {"type": "null"},
}
MORE = "..."
_LINE = re.compile(r"(\w+)(\??) \((?:rows: ([^)]*)|([^)]*))\) (.+)")


@dataclass(frozen=True)
class Field:
    """A field: what its value is, what it says, and of a list of objects the names in each. `optional` is whether it
    may be left out; a name in `row` may with a question mark. With `...` others follow."""

    name: str
    value: str
    about: str
    row: tuple[str, ...] = ()
    optional: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        if not self.row:
            kinds = [_TYPES[kind] for kind in self.value.split(" or ")] if self.value not in _TYPES else None
            return _TYPES[self.value] if kinds is None else {"anyOf": kinds}
        needed = [name for name in self.row if not name.endswith("?") and name != MORE]
        row: dict[str, Any] = {"type": "object", "required": needed}
        if MORE not in self.row:
            row["propertyNames"] = {"enum": [name.rstrip("?") for name in self.row]}
        return {"type": "array", "items": row}


def fields(text: str) -> tuple[Field, ...]:
    """Read fields of the form `name? (text or null) What it says.` or `name (rows: a b? ...) What they say.`"""
    found = []
    for line in re.split(r"\s*\n\s*(?=\w+\?? \()", text.strip()):
        match = _LINE.fullmatch(" ".join(line.split()))
        assert match is not None, line
        name, optional, row, value, about = match.groups()
        found.append(Field(name, value or "rows", about, tuple((row or "").split()), bool(optional)))
    return tuple(found)


_KEY = """
kid (text) By which trust roots and logs name the key.
public (text) The public key, 32 bytes in hex.
name (text) What people call it; empty for none.
"""
_VALID = """
valid_from (integer or null) From when it is valid; null: at once.
expires_at (integer or null) Until when; null: for ever.
"""
_MISSING = "rows: tile reason detail"
_REPEATED = "repeated (object) Tiles with the bytes of another one: tiles, pictures, most, examples."
_CACHE = "cache (object or null) What the shared cache was asked and gave; null without one."
_ROOT = """
version (integer) The number of the trust root.
domain (text) The name of the trust domain.
domain_id (text) Its id.
code (text) The code of the trust root, for --expect.
epoch (integer) The epoch.
issued_at (integer) When it was issued.
issued_after (integer or null) Manifests issued before do not count.
default_lifetime (integer or null) Seconds that a mission lives whose file sets no end.
max_lifetime (integer or null) The most seconds that a mission may live.
releases (text) required or optional.
roles (object) By role (root, mission, release, builder): threshold, kids.
revoked (texts) The kids of revoked keys.
names (object) Names of keys by kid.
signers (rows: kid name) The root keys that have signed.
draft? (text) The file of the draft.
signatures? (rows: root have threshold) Of a draft: what the current and the new trust root require.
"""
_EFFECT = """
file? (text or null) The file of the trust root in the store; null where it is not in effect.
ended? (object) What the trust root ends: missions, releases, results, withdrawals (with why), drafts.
dry_run? (true or false) Whether nothing was written.
"""
_RELEASE = """
name (text) The name of the release.
host (text) The host class.
issued_at (integer) When it was issued.
signing_code (text) Its code, for --expect.
entries (rows: name kind id size host) The artifacts that it approves.
kids (texts) The keys that have signed.
"""
_WITHDRAWAL = """
in_effect? (object or null) The withdrawal that holds.
draft? (object or null) The one that lacks signatures.
signing_code? (text) The code of the draft, or else of the one that holds.
signatures? (integer) The good signatures; with --discard, those that were lost.
threshold? (integer) How many are required.
"""
_FIGURE = "name value signed least same_recipe holds queries missed chance zooms"
_PLACES = "file? (text or null) The file that was written."
_AUDIT = """
verdict (text) clean, errors, and what was not read.
level (text) quick, full, sample or budget.
missions (rows: mission state) flyable, not-read, partly-read, withdrawn, unknown or grounded.
plans (rows: steps index unsolved) With --repair: each plan, its steps, and the findings that no source can mend.
corrected (integer) The steps that were carried out.
objects (integer) The objects.
bytes (integer) Their bytes.
read_objects (integer) Those that were read and hashed.
read_bytes (integer) Their bytes.
unread_objects (integer) Those that were not.
errors (true or false) Whether errors are left.
inconclusive (true or false) Whether something could not be checked.
notes (object) Counts of findings that are information, by kind; of each, the first 1000 are listed.
from_medium (true or false) Whether the medium was read, past the page cache.
doubt (text) Why that is not sure.
"""
_PLACED = """
missions (texts) The missions of the bag.
newer_at_target (texts) Those that the other side has newer.
refused (rows: mission why) Those that cannot be carried.
"""

FIELDS: dict[str, tuple[Field, ...]] = {
    name: fields(text)
    for name, text in {
        "init": "store (text) The folder of the store.",
        "example": "folder (text) The folder.\nfiles (texts) The files in it.",
        "new": "mission_file (text) The mission file.\nopen (texts) What to correct in it before a build.",
        "doctor": "checks (rows: name state text remedy) Each thing looked at: ok, note, problem or unknown.",
        "keys new": _KEY,
        "keys rewrap": _KEY,
        "keys show": _KEY,
        "plan": f"""
            mission (text) The id of the mission.
            hosts (texts) The host classes that it is for.
            {_VALID}
            tiles (integer) The tiles of the area.
            missing ({_MISSING}) Each tile that is missing.
            {_REPEATED}
            hints (texts) What is perhaps wrong with the sources.
            artifacts (rows: name key present bytes tiles outside hosts cached) What the mission needs, and has.
            not_measured (texts) Figures that a build would not measure, and why.
            notes (texts) What was passed over in the files of area and takeoff.
            {_CACHE}
        """,
        "build": f"""
            mission (text) The id of the mission.
            outcome (text) built, unchanged, draft or failed.
            why (text) Why nothing was published; empty where something was.
            manifest (text or null) The id of the manifest; null for a draft.
            sequence (integer) Its sequence.
            signing_code (text) The code of manifest or draft.
            {_VALID}
            coverage (object) tiles, described, missing (rows: tile reason detail), by_zoom, repeated, hints.
            artifacts (rows: name id key action bytes seconds figures) What was built or reused.
            figures (rows: name value least queries recipe engine missed chance) The quality, in millionths.
            unproven (rows: name least recipe) Figures that each aircraft has to prove.
            not_measured (texts) Figures that it lacks, and why.
            notes (texts) What was passed over in the files of area and takeoff.
            rows (integer) The rows of all shards.
            embedded (integer) Those that were described now.
            saved_bytes (integer) Bytes that the store had already.
            seconds (number) How long it took.
            {_CACHE}
        """,
        "status": """
            mission (text) The id of the mission.
            state (text) up-to-date, stale or unknown.
            next (text) What comes next.
            command (text) The command for it; empty for none.
            published (object or null) The published manifest.
            draft (object or null) The draft that waits for signatures.
            comparison (object or null) What a build would change.
        """,
        "ls": """
            missions (rows: mission draft? error? flight? aircraft? sequence? valid_from? expires_at? entries? bytes?
             manifest? withdrawn? signing_code? signatures? threshold?) The missions, and with `draft` the drafts. With
             `error` one does not hold.
        """,
        "show": """
            mission (object) The facts that the mission was signed with: id, aircraft, area, takeoff, flight, sector.
            manifest (text) The id of the manifest.
            signing_code (text) Its code, for --expect.
            signers (rows: kid name) Who has signed.
            issue (object) sequence, issued_at, epoch and what else the issue has.
            hosts (texts) The host classes that it is for.
            coverage (object) tiles, missing, zooms, required_ppm, oldest, newest, digest.
            missing (rows: first tiles reason) Runs of missing tiles: the id of the first, and how many.
            quality (lists) Figures: name, value, least, queries, recipe.
            unproven (lists) Figures that each aircraft has to prove: name, least, recipe.
            releases (texts) The ids of releases.
            merkle_root (text) The root of the Merkle tree over the entries.
            table (object) The entry table: id, size.
            identity (text) The identity of the mission.
            entries (rows: name kind id size key meta) Its entries.
            withdrawn (texts) Why it does not fly: withdrawals.
            signatures? (integer) Of a draft: the good signatures.
            threshold? (integer) Of a draft: how many are required.
            overtaken? (text) Of a draft: why it cannot be published any more.
            at? (integer) With --at: the time.
            trust_root_version? (integer) With --at: the trust root of then.
            revoked_since? (rows: kid name) With --at: its keys that were revoked later.
        """,
        "map": f"""
            mission (text) The id of the mission.
            zooms (rows: zoom tiles missing) Tiles of the area, by zoom.
            missing (object) Counts of missing tiles, by reason.
            cells (rows: set zoom cell rows shared) Cells of the map, and the missions that share them.
            not_compared (integer) Other missions that do not verify, or too many to look for cells that they share.
            {_PLACES}
        """,
        "report": """
            file (text) The file of the report.
            bytes (integer) Its size.
            verdicts (object) GO, NO-GO or UNKNOWN by mission, where a verdict was asked for.
        """,
        "sync": """
            copied (integer) The objects copied, to all destinations.
            bytes (integer) Their bytes.
            present (integer) Those that were there already.
            failed (texts) Destinations that failed.
            dry_run (true or false) Whether nothing was written.
            destinations (rows: target error? copied? bytes? present? missions? unchanged? as_seen? newer_at_target?
             refused? trust_roots? files? removed? not_removed? verified?) Each destination.
        """,
        "help": """
            topic (text) What was asked for, "" for the list of topics.
            text (text) What is explained, in lines for a terminal.
        """,
        "remote add": """
            name (text) The name.
            place (text) The place that it stands for.
            kind (text) folder, host or bucket.
        """,
        "remote ls": "remotes (rows: name place kind) The named places.",
        "remote remove": "removed (text) The name that stands for nothing any more.",
        "pack": f"""
            bag (text) The id of the bag.
            objects (integer) The objects in it.
            bytes (integer) Their bytes.
            present (integer) The objects that the other side has.
            differences (integer) The objects packed as a difference.
            {_PLACED}
            files (rows: path bytes) The files that were written.
        """,
        "unpack": """
            bags (rows: path error? bag? part? parts? inserted? bytes? present? lacking? missions? unchanged?
             newer_at_target? refused? trust_roots? files?) Each bag, or part of one.
        """,
        "fsck": _AUDIT,
        "store-fsck": _AUDIT,
        "sign": f"""
            mission (text) The id of the mission.
            manifest (text or null) The id of the published manifest; null for a draft.
            sequence (integer) Its sequence.
            signatures (integer) The good signatures.
            threshold (integer) How many are required.
            signing_code (text) The code of manifest or draft.
            {_VALID}
        """,
        "discard": "discarded (text) The id of the mission.\nsignatures (integer) The signatures that were lost.",
        "remove": """
            mission (text) The id of the mission.
            manifest (text) The id of its manifest.
            epoch (integer) The epoch of that.
            sequence (integer) Its sequence.
            flight (text) Its flight.
            objects (integer or null) The objects that the next collection frees; null where that is not known.
            bytes (integer or null) Their bytes.
            pins (texts) Pins that keep manifests of the mission.
            dry_run (true or false) Whether nothing was written.
        """,
        "withdraw": _WITHDRAWAL,
        "release withdraw": _WITHDRAWAL,
        "verify": """
            store (text) The absolute path of the store; a bucket or another machine as it is.
            missions (rows: mission go could_not_look objects bytes not_judged judged_at from_medium signers?
             imagery_age_days? facts? valid_from? expires_at? hosts? coverage? manifest? code? trust_root_version?) The
             verdict on each mission: `go`, or the findings that name it. What only a signed mission has is absent else.
            at (integer or null) With --at: the time.
        """,
        "prove": """
            mission (text) The id of the mission.
            entry (text) The name of the entry.
            proof (text) The file of the proof.
            bytes (integer) Its size.
        """,
        "check-proof": """
            entry (text) The name of the entry.
            object (text) The id of the object.
            bytes (integer) Its size.
            mission (text) The id of the mission.
            flight (text) The flight.
            sequence (integer) The sequence of the manifest.
            trust_root_version (integer) The trust root that judged.
            signers (rows: kid name) Who has signed.
            not_judged (texts) What a proof does not show.
        """,
        "receipts": """
            verified (rows: receipt whose kid says flight at clock mission manifest current withdrawn epoch sequence
             trust_root_version host objects bytes from_medium proofs) Missions that were verified.
            flown (rows: receipt whose kid says flight at clock) Flights that were flown.
        """,
        "gc": """
            dry_run (true or false) Whether nothing was written.
            collected (integer) The objects moved to the trash.
            collected_bytes (integer) Their bytes.
            objects (texts) Their ids.
            manifests (texts) Manifests that are kept no more.
            kept (integer) The objects that stay.
            kept_bytes (integer) Their bytes.
            young (integer) Those that stay because they are young.
            young_bytes (integer) Their bytes.
            deleted_folders (texts) Folders of trash and quarantine that were deleted.
            deleted_things (integer) What lay in them.
            deleted_bytes (integer) Its bytes.
        """,
        "pin": "pins (rows: name object) The pins: all of them, or the new one.",
        "unpin": "unpinned (text) The name of the pin.",
        "log": "events (rows: at event hash ...) The lines of the log, the newest last, with the facts of each event.",
        "rollback": f"""
            mission (text) The id of the mission.
            unchanged (true or false) Whether it has the entries of that manifest already.
            current (text) The manifest before.
            to (text) The manifest that it goes back to.
            to_code (text) Its code, for --expect.
            manifest (text or null) The new manifest; null for a draft.
            sequence (integer) Its sequence.
            signing_code (text) The code of manifest or draft.
            signatures (integer) The good signatures.
            threshold (integer) How many are required.
            replaced (integer) The signatures of a draft that this replaced.
            dry_run (true or false) Whether nothing was written.
            {_VALID}
        """,
        "diff": """
            a (text) The id of the first mission.
            b (text) The id of the second.
            same (texts) Entries with the same name and object.
            changed (texts) Entries with the same name and another object.
            moved (lists) The same object under two names.
            only_a (texts) Entries that only the first has.
            only_b (texts) Entries that only the second has.
            shared_bytes (integer) Bytes that both need.
            own_a_bytes (integer) Bytes that only the first needs.
            own_b_bytes (integer) Bytes that only the second needs.
        """,
        "stats": """
            objects (integer) The objects of the store.
            bytes (integer) Their bytes.
            missions (object) By mission: objects, bytes, shared_bytes, own_bytes.
            unreferenced_objects (integer) Those that no mission needs.
            unreferenced_bytes (integer) Their bytes.
            closure_bytes (integer) The bytes of all missions, without sharing.
            unique_bytes (integer) The same with sharing.
            dedup_ratio (number) The first divided by the second.
        """,
        "checkout": """
            folder (text) The folder of the checkout.
            files? (integer) The files written.
            bytes? (integer) Their bytes.
            how? (object) How many files were copied, cloned or linked.
        """,
        "explain-key": """
            key (text) The build key.
            fields (object) What it is made of.
            steps (object) The same of each step before.
            against? (text) With --against: the other key.
            differs? (rows: field new old) With --against: the fields that differ.
        """,
        "query": """
            matches (rows: tile score centre corner) The places most like the picture, the best first.
            searched (rows: zoom metres) The zooms that were searched, and the ground that a row of each shows.
            left_out (rows: zoom metres) The zooms that were not.
            assumed (texts) What no option gave.
        """,
        "probe": f"figures (rows: {_FIGURE} recorded) The figures, in millionths.",
        "quality": f"figures (rows: {_FIGURE}) The figures, in millionths.",
        "trust new": _ROOT + _EFFECT,
        **{
            f"trust {verb}": _ROOT
            for verb in (
                *("add-key", "remove-key", "revoke", "set-threshold", "set-releases", "set-lifetime", "new-epoch"),
                *("set-issued-after", "sign", "join", "show"),
            )
        },
        "trust rotate": _ROOT + _EFFECT.replace("?", ""),
        "release new": _RELEASE,
        "release sign": f"""
            {_RELEASE}
            object (text or null) The id of the release in the store; null where signatures are missing.
            signatures (integer) The good signatures.
            threshold (integer) How many are required.
        """,
        "release show": """
            releases (rows: name object? holds? why? host? issued_at? signing_code? entries? kids?) The releases. Of a
             store: whether each holds, else why.
        """,
        "completion": "shell (text) The shell.\nlines (text) The lines for its configuration.",
        "aircraft enrol": """
            id (text) The id of the aircraft.
            host (text) Its host class.
            trust_root_version (integer) The newest trust root that it keeps.
            code (text) Its code.
            kid (text) The kid of the key that signs receipts.
            key (text) The public key.
            forgot (true or false) Whether an earlier state was lost.
            kept (object) What it keeps of an earlier state: missions, accepted, consumed, proofs.
            left_domains (texts) Trust domains that were forgotten.
        """,
        "aircraft consume": "consumed (text) The flight.\nbefore (true or false) Whether it was consumed before.",
        "aircraft lower-floor": """
            id (text) The id of the aircraft.
            before (integer) The floor before.
            floor (integer) The floor now.
        """,
        "aircraft show": """
            id (text) The id of the aircraft.
            host (text) Its host class.
            kid (text or null) The kid of the key that signs receipts.
            key (text or null) The public key.
            trust_root_version (integer) Its trust root.
            code (text) The code of that.
            domain_id (text) The id of the trust domain.
            epoch (integer) The epoch.
            floor (integer) The time that has passed for sure.
            issued (integer) The newest time of issue that it has seen.
            clock (integer) The newest time of a trusted clock.
            missions (object) By mission: epoch, sequence, payload of what it has seen.
            withdrawn_releases (texts) Releases that were withdrawn.
            accepted (texts) Flights that had a GO.
            consumed (texts) Flights that were flown.
            proofs (texts) Engines that were proven aboard.
            changes (integer) How often the state was written.
            one_slot_lost (true or false) Whether one of its two copies is damaged or old.
        """,
        "engines build": f"""
            engines (rows: backbone entry key action bytes seconds card error) Each engine: built, reused or failed.
            {_CACHE}
        """,
        "engines order": "orders (rows: backbone name key need outcome why) Each engine, and whether it is ordered.",
        "engines fulfil": "orders (rows: key backbone need state why figures? kind? remedy?) Each order of the store.",
        "engines accept": "results (rows: key outcome backbone host figures error) Each result.",
        "engines show": "cards (rows: entry schema key ...) The cards. `entry` is null for an engine of no mission.",
        "engines host": """
            host (text) The host class of this machine.
            backends (object) By backend: host and version, or error.
        """,
        "nodes": """
            nodes? (rows: name address cpus gpus why host providers backends versions) The nodes of the cluster.
            resources? (object) With --resources: what this machine is started with.
        """,
    }.items()
}  # fmt: skip


_FINDING = dict.fromkeys(Finding.__match_args__, _TYPES["text"]) | {
    "missions": _TYPES["texts"],
    "unreadable": {"const": True},
    "information": {"const": True},
}
_ENVELOPE = {
    "ok": _TYPES["true or false"],
    "status": _TYPES["integer"],
    "findings": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["kind", "message"],
            "properties": _FINDING,
            "additionalProperties": False,
        },
    },
    "error": {
        "type": "object",
        "required": ["kind", "message", "remedy"],
        "properties": {"kind": _TYPES["text"], "message": _TYPES["text"], "remedy": _TYPES["text"]},
    },
}


def check(name: str, ran: Ran) -> dict[str, Any]:
    """The one document that a command with `--json` printed: of its schema, with its exit status, in ASCII and sorted.
    Where it is not ok, an error or a finding says why."""
    said: dict[str, Any] = json.loads(ran.out)  # fails for a second document
    assert ran.out == json.dumps(said, indent=2, sort_keys=True) + "\n"
    jsonschema.validate(said, schema(name), cls=jsonschema.Draft202012Validator)
    assert said["status"] == ran.status
    why = "error" in said or any("information" not in finding for finding in said["findings"])
    assert said["ok"] != why, said
    return said


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the documents of a command. Its own fields are all there where it is `ok`."""
    own = {field.name: field.schema for field in FIELDS.get(name, ())}
    command = "fsck" if name == "store-fsck" else name
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["schema", "ok", "status", "findings"],
        "properties": {"schema": {"const": f"flightbag/{command}/1"}, **_ENVELOPE, **own},
        "additionalProperties": False,
        "if": {"properties": {"ok": {"const": True}}},
        "then": {
            "required": [field.name for field in FIELDS.get(name, ()) if not field.optional],
            "properties": {"error": False},
        },
    }
