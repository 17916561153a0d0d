"""The takeoff check: every way to be refused, over evidence in memory and in a directory alike.

Each case damages a whole mission in one way (or in several) and names the step, kind and entry of every finding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.disk.media import Media
from store.errors import Invalid, Untrusted
from store.format import manifest as manifests
from store.format.area import Area
from store.format.cbor import decode, encode
from store.format.code import short_code
from store.format.cose import Envelope, Signature
from store.format.entries import MAX_ENTRIES, EntryTable, sorted_table
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT, Figure, Issue, Takeoff
from store.takeoff.check import takeoff_check
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, Evidence, Opened, Verdict, VerifiedMission
from store.takeoff.verify import open_mission, pinned_root, verify_mission
from store.trust.aircraft_state import AircraftState
from store.trust.root import MAX_STEPS, SignedRoot, TrustRoot
from tests.support.memory import MemoryEvidence
from tests.support.missions import (
    BINDING,
    CONTENTS,
    COVERAGE,
    FACTS,
    ISSUE,
    METAS,
    NOW,
    ROOT,
    Flight,
    entry,
    evidence_of,
    fleet_table,
    flight,
    key,
    manifest_of,
    next_root,
    pinned,
    role,
    root_draft,
    sign_payload,
    sign_root,
    table_of,
    write_store,
)

ENGINE, SHARD, CARD, CAMERA = (
    "engines/net/net.onnx",
    "descriptors/net/16/12-1150-1410.safetensors",
    "cards/net/net.json",
    "files/calibration/camera.yaml",
)
GOOD = flight()
ID = GOOD.id
Found = set[tuple[str, str, str]]

Damage = Callable[[MemoryEvidence, Flight], None]
Present = Callable[[MemoryEvidence], Evidence]


@pytest.fixture(params=["memory", "directory"])
def present(request: pytest.FixtureRequest, tmp_path: Path) -> Present:
    """How evidence is shown to the check: as it is, or as the files of a store."""

    def as_files(evidence: MemoryEvidence) -> Evidence:
        evidence.write_to(tmp_path / "store")
        return StoreEvidence(Media(tmp_path / "store"))

    return as_files if request.param == "directory" else lambda evidence: evidence


def found(verdict: Verdict) -> Found:
    return {(finding.step, finding.kind, finding.entry) for finding in verdict.findings}


NO_PLACE = "place of the descriptor set net: no landmarks"


def check(evidence: Evidence, binding: Binding = BINDING, root: SignedRoot | None = None, mission: str = ID) -> Verdict:
    return verify_mission(evidence, mission, root or pinned(), binding)


def test_a_whole_mission_flies(present: Present) -> None:
    verdict = check(present(evidence_of(GOOD)))
    assert verdict.go
    assert not verdict.unknown
    assert verdict.findings == ()
    assert verdict.not_judged == ("flight", "rollback")
    # The manifest, the table and four artifacts.
    assert verdict.objects == 6
    table = GOOD.table.render()
    assert verdict.bytes == len(GOOD.signed) + len(table) + sum(map(len, CONTENTS.values()))
    mission = verdict.mission
    assert mission is not None
    assert (mission.manifest, mission.table) == (GOOD.manifest, GOOD.table)
    assert (mission.manifest_id, mission.trust_root.version) == (GOOD.manifest_id, 1)
    assert mission.facts == FACTS


def test_a_published_store_flies(tmp_path: Path) -> None:
    write_store(tmp_path / "store", GOOD)
    trust = sign_root(ROOT, "root-a")
    assert takeoff_check(tmp_path / "store", ID, trust=trust, now=NOW).go


def test_what_was_not_asked_is_said() -> None:
    verdict = check(evidence_of(GOOD), Binding(NOW))
    assert verdict.go
    assert verdict.not_judged == ("aircraft", "host class", "flight", "rollback")


def test_the_place_of_a_set_without_landmarks_is_not_judged() -> None:
    assert NO_PLACE not in check(evidence_of(GOOD)).not_judged
    recall = tuple(figure for figure in GOOD.manifest.quality if not figure.name.startswith("landmarks/"))
    landmarks = Figure("landmarks/network", 1_000_000, 1_000_000, 3, bytes(32))
    for figures in (recall, (landmarks, *recall)):
        verdict = check(evidence_of(flight(quality=figures)))
        assert verdict.go
        assert NO_PLACE in verdict.not_judged


def needing(*needs: str, host: str = "cpu-x86_64") -> Flight:
    """A mission with an index for each need, beside what every mission has here."""
    rows = [entry(name, data) for name, data in CONTENTS.items()]
    contents = dict(CONTENTS)
    for number, need in enumerate(needs):
        name, data = f"indexes/net/ivf/{number}.faiss", b"index %d" % number
        contents[name] = data
        rows.append(entry(name, data, meta={**METAS["index"], "host": need}))
    return flight(contents, table=sorted_table(rows), hosts=(host,))


@pytest.mark.parametrize(
    ("need", "host", "kinds", "unjudged"),
    [
        ("cpu+faiss>=1.11", "cpu-x86_64-avx2+faiss-1.15.1", [], []),
        ("cpu+faiss>=1.11", "cpu-x86_64-avx2+faiss-1.9", ["wrong-host"], []),
        ("cpu+faiss>=1.11", "cpu-x86_64-avx2", [], ["at least 1.11, and the host class cpu-x86_64-avx2 names no"]),
        (
            "cpu+faiss>=1.11",
            None,
            [],
            ["FAISS: indexes/net/ivf/0.faiss needs at least 1.11, and the host class cpu-x86_64 "],
        ),
        ("cpu+ort>=1.22", "cpu-x86_64+faiss-1.15.1", [], ["ONNX Runtime"]),
        ("cpu-aarch64+ort>=1.22", "cpu-x86_64", ["wrong-host"], ["ONNX Runtime"]),
    ],
)
def test_a_least_version_is_judged_against_the_aircraft(
    need: str, host: str | None, kinds: list[str], unjudged: list[str]
) -> None:
    verdict = check(evidence_of(needing(need)), replace(BINDING, host=host))
    assert [finding.kind for finding in verdict.findings] == kinds
    texts = [text for text in verdict.not_judged if ": " in text]
    assert len(texts) == len(unjudged)
    assert all(part in text for part, text in zip(unjudged, texts, strict=True))


def test_the_newest_least_version_of_each_library_is_told() -> None:
    needs = ("cpu+faiss>=1.9", "cpu+faiss>=1.11", "cpu+faiss>=1.10", "cpu+ort>=1.22")
    texts = [text for text in check(evidence_of(needing(*needs))).not_judged if ": " in text]
    assert [text.partition(" and ")[0] for text in texts] == [
        "FAISS: indexes/net/ivf/1.faiss needs at least 1.11,",
        "ONNX Runtime: indexes/net/ivf/3.faiss needs at least 1.22,",
    ]


def test_an_aircraft_without_the_class_of_the_mission_has_one_finding() -> None:
    one = needing("cpu-x86_64+ort>=1.22", "cpu-x86_64+ort>=1.23")
    verdict = check(evidence_of(one), replace(BINDING, host="cpu-aarch64+ort-1.20.0"))
    assert [finding.kind for finding in verdict.findings] == ["wrong-host"]
    aboard = check(evidence_of(one), replace(BINDING, host="cpu-x86_64-avx2+ort-1.22.5"))
    assert [(f.kind, f.expected, f.actual) for f in aboard.findings] == [
        ("wrong-host", "cpu-x86_64-avx2+ort-1.22.5", "cpu-x86_64+ort>=1.23")
    ]
    assert "install a newer one on the aircraft" in aboard.findings[0].remedy


FLEET = ("cpu-aarch64-neon+sm87", "cpu-x86_64-avx2")


def fleet(needs: Mapping[str, str], hosts: tuple[str, ...] = FLEET) -> Flight:
    """A mission for several host classes, with an engine for each need."""
    table, contents = fleet_table(needs)
    return flight(contents, table=table, hosts=hosts)


@pytest.mark.parametrize(
    ("needs", "aboard", "texts"),
    [
        ({"a": "cpu-aarch64+sm87", "b": "cpu-x86_64"}, "cpu-x86_64-avx2", []),
        ({"a": "cpu-aarch64+sm87", "b": "cpu-x86_64"}, "cpu-aarch64-neon+sm87-orin-16sm-64gb", []),
        ({"a": "cpu-aarch64+sm87", "b": "cpu-x86_64"}, None, []),
        ({"a": "cpu"}, "cpu-x86_64-avx2", []),
        (
            {"a": "cpu-aarch64+sm87", "b": "cpu-x86_64"},
            "cpu-x86_64-avx512",
            ["need the host class cpu-aarch64-neon+sm87 or cpu-x86_64-avx2, and this aircraft has cpu-x86_64-avx512"],
        ),
        ({"a": "cpu-aarch64+sm87"}, None, ["no engine of net is for the host class cpu-x86_64-avx2: they need cpu-a"]),
        ({"b": "cpu-x86_64"}, "cpu-x86_64-avx2", ["no engine of net is for the host class cpu-aarch64-neon+sm87"]),
        (
            {"a": "cpu", "b": "sm89"},
            "cpu-x86_64-avx2",
            ["b.onnx needs sm89, and the mission promises only cpu-aarch64-neon+sm87 or cpu-x86_64-avx2"],
        ),
        ({"b": "sm89"}, None, ["b.onnx needs sm89"]),
        (
            {"a": "cpu-aarch64+sm87", "b": "cpu+ort>=1.22"},
            "cpu-x86_64-avx2+ort-1.9",
            ["the engine of net needs cpu-aarch64 and sm87 or ort>=1.22, and this aircraft has cpu-x86_64-avx2"],
        ),
    ],
)
def test_every_host_class_has_an_engine_and_every_engine_a_host_class(
    needs: dict[str, str], aboard: str | None, texts: list[str]
) -> None:
    verdict = check(evidence_of(fleet(needs)), replace(BINDING, host=aboard))
    assert [finding.kind for finding in verdict.findings] == ["wrong-host"] * len(texts)
    assert all(text in finding.message for text, finding in zip(texts, verdict.findings, strict=True))
    assert verdict.mission is None or verdict.mission.host == aboard


def test_an_index_is_for_every_host_class() -> None:
    table, contents = fleet_table({"a": "cpu"})
    index = entry("indexes/net/ivf/1.faiss", b"index", meta={**METAS["index"], "host": "cpu-x86_64"})
    both = flight({**contents, index.name: b"index"}, table=sorted_table([*table.entries, index]), hosts=FLEET)
    (finding,) = check(evidence_of(both), replace(BINDING, host="cpu-x86_64-avx2")).findings
    assert (finding.kind, finding.expected) == ("wrong-host", FLEET[0])


def test_of_several_engines_the_one_that_flies_is_judged() -> None:
    """The engine of another class of the fleet leaves nothing open for this aircraft, and refuses nothing."""
    one = fleet({"a": "cpu-aarch64+ort>=1.24", "b": "cpu-x86_64+ort>=1.22", "c": "cpu"})
    for aboard, least in {"cpu-x86_64-avx2": "1.22", "cpu-aarch64-neon+sm87": "1.24", None: "1.24"}.items():
        verdict = check(evidence_of(one), replace(BINDING, host=aboard))
        assert verdict.go
        (text,) = (text for text in verdict.not_judged if text.startswith("ONNX Runtime"))
        assert f"needs at least {least}" in text
    assert check(evidence_of(one), replace(BINDING, host="cpu-x86_64-avx2+ort-1.20")).go  # it loads c


def test_no_class_of_the_aircraft_is_made_up() -> None:
    with pytest.raises(Invalid, match="'banana' is not a component"):
        takeoff_check("nowhere", ID, trust=b"", now=NOW, host="banana")


@pytest.mark.parametrize("queries", [None, 19])
def test_a_recall_that_nobody_measured_is_not_judged(queries: int | None) -> None:
    """Nor one that rests on too few queries."""
    figures = () if queries is None else (Figure("recall@1/net/shift", 990_000, 0, queries, bytes(32)),)
    silent = flight(quality=figures)
    verdict = check(evidence_of(silent))
    assert verdict.go
    assert "recall of the descriptor set net: not measured" in verdict.not_judged


def test_a_refusal_too_says_what_was_not_judged() -> None:
    assert check(MemoryEvidence(), Binding(NOW)).not_judged == ("aircraft", "host class", "flight", "rollback")


# one damage, one finding


@dataclass
class Case:
    """A mission, what is done to it, and every finding that has to come of it."""

    name: str
    expected: Found
    flight: Callable[[], Flight] = lambda: GOOD
    damage: Damage = lambda _evidence, _flight: None
    root: TrustRoot = ROOT
    binding: Binding = BINDING


def ref_of(data: bytes) -> Damage:
    return lambda evidence, _: evidence.refs.update({ID: data})


def manifest_bytes(change: Callable[[bytes], bytes]) -> Damage:
    """Puts other bytes in the manifest's place, under their own id, and lets the ref lead to them."""

    def damage(evidence: MemoryEvidence, one: Flight) -> None:
        evidence.refs[ID] = f"{evidence.put(change(one.signed))}\n".encode()

    return damage


def in_place(which: str, change: Callable[[bytes], bytes] | None) -> Damage:
    """Changes the bytes that are stored under an id (None takes them away)."""

    def damage(evidence: MemoryEvidence, one: Flight) -> None:
        id_ = {"manifest": one.manifest_id, "table": one.manifest.table}.get(which) or one.entry(which).id
        if change is None:
            del evidence.objects[id_]
        else:
            evidence.objects[id_] = change(evidence.objects[id_])

    return damage


def flip(data: bytes) -> bytes:
    return data[:5] + bytes([data[5] ^ 1]) + data[6:]


def shorter(data: bytes) -> bytes:
    return data[:-1]


def longer(data: bytes) -> bytes:
    return data + b"\x00"


def chain_of(*files: bytes) -> Damage:
    def damage(evidence: MemoryEvidence, _: Flight) -> None:
        evidence.roots.update(enumerate(files, 2))

    return damage


def with_gap(evidence: MemoryEvidence, _: Flight) -> None:
    evidence.roots[3] = sign_root(next_root(next_root(ROOT)), "root-a")


def too_long_a_chain(evidence: MemoryEvidence, _: Flight) -> None:
    evidence.roots.update(dict.fromkeys(range(2, MAX_STEPS + 3), b""))


def both(*damages: Damage) -> Damage:
    """Several damages at once."""

    def damage(evidence: MemoryEvidence, one: Flight) -> None:
        for each in damages:
            each(evidence, one)

    return damage


def second_envelope(data: bytes) -> Envelope:
    return Envelope.parse(data, manifests.CONTENT_TYPE, manifests.PAYLOAD_LIMIT)


def forged_second(data: bytes) -> bytes:
    return second_envelope(data).with_signature(Signature(key("navigator").public.kid, bytes(64))).render()


def signed_value(**changes: Any) -> Callable[[], Flight]:
    """A flight whose signed payload breaks a rule that `render` would not let pass."""

    def make() -> Flight:
        value = decode(GOOD.manifest.render(), limit=manifests.PAYLOAD_LIMIT, what="the manifest") | changes
        aad = ROOT.aad(manifests.AAD_LABEL)
        return replace(GOOD, signed=sign_payload(encode(value), manifests.CONTENT_TYPE, aad, ["pilot"]))

    return make


def signed_payload(payload: bytes) -> Callable[[], Flight]:
    aad = ROOT.aad(manifests.AAD_LABEL)
    return lambda: replace(GOOD, signed=sign_payload(payload, manifests.CONTENT_TYPE, aad, ["pilot"]))


def signed_table(data: bytes) -> tuple[Callable[[], Flight], Damage]:
    """A mission that was signed over bytes which are no table."""
    id_ = ObjectId.of(data)
    make = signed_value(table=[bytes(id_), len(data)])
    return make, lambda evidence, _: evidence.objects.update({id_: data})


def facts(**changes: Any) -> Callable[[], Flight]:
    return lambda: flight(mission=replace(FACTS, **changes))


def issue(**changes: Any) -> Callable[[], Flight]:
    return lambda: flight(issue=replace(ISSUE, **changes))


def crew_flight(*names: str) -> Callable[[], Flight]:
    return lambda: flight(root=CREW, by=names)


AGING = replace(COVERAGE, oldest=ISSUE.issued_at - 86400, newest=ISSUE.issued_at, max_age_days=1)
CREW = replace(ROOT, mission=role("pilot", "co-pilot", "navigator", threshold=2))
NOT_A_TABLE, NOT_CANONICAL = signed_table(encode([])), signed_table(b"\x9f\x01\xff")
UNSORTED = signed_table(encode([one.value() for one in reversed(GOOD.table.entries)]))
UNKNOWN_KIND = signed_table(encode([[CAMERA, "lens", bytes(32), 1, b"", {}]]))
A_FOLDER = signed_table(encode([entry(name, b"").value() for name in ("files/a", "files/a/b")]))
UNKNOWN_META = signed_table(encode([["files/a", "file", bytes(32), 1, b"", {"more": 1}]]))
MIXED_ROOT = replace(ROOT, releases="required")


def lacking(*names: str) -> Flight:
    """A mission with a list of one missing tile under each of these names."""
    coverage = replace(COVERAGE, missing=len(names), required_ppm=0)
    return flight({**CONTENTS, **dict.fromkeys(names, b"a list")}, coverage=coverage)


def other_manifest_in_place(evidence: MemoryEvidence, _: Flight) -> None:
    evidence.refs[ID] = f"{OTHER.manifest_id}\n".encode()
    OTHER.place(evidence)


OTHER = flight(mission=replace(FACTS, id="south-ridge"))


def swapped(evidence: MemoryEvidence, one: Flight) -> None:
    """The bytes of two artifacts of the same mission, each under the other's id (made of one length)."""
    first, second = one.entry(ENGINE).id, one.entry(SHARD).id
    evidence.objects[first], evidence.objects[second] = evidence.objects[second], evidence.objects[first]


SAME_LENGTH = {**CONTENTS, ENGINE: b"e" * 80}


def lie(name: str, by: int) -> Callable[[], Flight]:
    """A mission whose signed table gives an artifact a size that it has not."""

    def make() -> Flight:
        honest = table_of(CONTENTS)
        entries = tuple(replace(e, size=e.size + by) if e.name == name else e for e in honest.entries)
        return flight(table=EntryTable(entries))

    return make


def two_sizes() -> Flight:
    """Two entries for one object, of which the second gives it another size."""
    more = replace(entry("files/copy", CONTENTS[CAMERA]), size=9)
    return flight(table=EntryTable((*GOOD.table.entries, more)))


def unreadable(*things: str) -> Damage:
    def damage(evidence: MemoryEvidence, one: Flight) -> None:
        known = {"manifest": one.manifest_id, "table": one.manifest.table}
        for thing in things:
            found = one.table.find(thing)
            evidence.unreadable.add(known.get(thing) or (found.id if found else thing))

    return damage


def no_ref(evidence: MemoryEvidence, _: Flight) -> None:
    del evidence.refs[ID]


HEX = str(GOOD.manifest_id).encode()
CASES = [
    # A: the ref, the manifest object, its envelope
    Case("ref_missing", {("A", "missing", "")}, damage=no_ref),
    Case("ref_empty", {("A", "bad-ref", "")}, damage=ref_of(b"")),
    Case("ref_short", {("A", "bad-ref", "")}, damage=ref_of(HEX[:40])),
    Case("ref_without_newline", {("A", "bad-ref", "")}, damage=ref_of(HEX)),
    Case("ref_in_capitals", {("A", "bad-ref", "")}, damage=ref_of(HEX.upper() + b"\n")),
    Case("ref_with_dos_newline", {("A", "too-large", "")}, damage=ref_of(HEX + b"\r\n")),
    Case("ref_of_no_hex", {("A", "bad-ref", "")}, damage=ref_of(b"g" * 64 + b"\n")),
    Case("ref_of_no_ascii", {("A", "bad-ref", "")}, damage=ref_of(b"\xff" * 65)),
    Case("ref_of_zeroes", {("A", "bad-ref", "")}, damage=ref_of(bytes(65))),
    Case("ref_too_long", {("A", "too-large", "")}, damage=ref_of(HEX + b"\n" * 9)),
    Case("ref_to_nothing", {("A", "missing", "manifest")}, damage=ref_of(b"0" * 64 + b"\n")),
    Case("manifest_missing", {("A", "missing", "manifest")}, damage=in_place("manifest", None)),
    Case("manifest_flipped", {("A", "bit-flip", "manifest")}, damage=in_place("manifest", flip)),
    Case("manifest_cut", {("A", "bit-flip", "manifest")}, damage=in_place("manifest", shorter)),
    Case("manifest_empty", {("A", "bit-flip", "manifest")}, damage=in_place("manifest", lambda _: b"")),
    Case("manifest_huge", {("A", "oversized", "manifest")}, damage=manifest_bytes(lambda _: bytes(ENVELOPE_LIMIT + 1))),
    Case("manifest_is_the_table", {("A", "bad-envelope", "manifest")}, damage=manifest_bytes(lambda _: b"\x80")),
    Case("manifest_is_a_root", {("A", "bad-envelope", "manifest")},
         damage=manifest_bytes(lambda _: sign_root(ROOT, "root-a", "pilot"))),
    Case("manifest_with_a_trailing_byte", {("A", "not-canonical", "manifest")}, damage=manifest_bytes(longer)),
    Case("manifest_signed_twice_by_one", {("A", "bad-order", "manifest")}, damage=manifest_bytes(
        lambda data: replace(second_envelope(data), signatures=second_envelope(data).signatures * 2).render())),
    # B: the trust chain
    Case("chain_with_a_gap", {("B", "bad-trust-chain", "")}, damage=with_gap),
    Case("chain_too_long", {("B", "bad-trust-chain", "")}, damage=too_long_a_chain),
    Case("chain_of_garbage", {("B", "bad-envelope", "")}, damage=chain_of(b"garbage")),
    Case("chain_of_nothing", {("B", "bad-envelope", "")}, damage=chain_of(b"")),
    Case("chain_of_a_branch", {("B", "bad-trust-chain", "")}, damage=chain_of(
        sign_root(next_root(ROOT, previous=bytes(32)), "root-a"))),
    Case("chain_self_signed", {("B", "threshold", "")}, damage=chain_of(
        sign_root(next_root(ROOT, root=role("thief"), mission=role("thief")), "thief"))),
    Case("chain_with_a_stranger", {("B", "unknown-signer", "")}, damage=chain_of(
        sign_root(next_root(ROOT), "root-a", "stranger"))),
    Case("chain_with_another_signature", {("B", "bad-signature", "")}, damage=chain_of(
        sign_payload(next_root(ROOT).render(), "application/vnd.flightbag.root+cbor", b"", ["root-a"]))),
    Case("chain_of_a_bad_root", {("B", "bad-field", "")}, damage=chain_of(
        sign_payload(encode({"format": 2}), "application/vnd.flightbag.root+cbor", b"", ["root-a"]))),
    # C: signatures
    Case("unsigned", {("C", "threshold", "manifest")}, lambda: flight(by=())),
    Case("signed_by_a_stranger", {("C", "unknown-signer", "manifest")}, lambda: flight(by=("stranger",))),
    Case("a_stranger_signs_too", {("C", "unknown-signer", "manifest")}, lambda: flight(by=("pilot", "stranger"))),
    Case("signed_in_another_role", {("C", "wrong-role", "manifest")}, lambda: flight(by=("lab",))),
    Case("signed_with_the_root_key", {("C", "wrong-role", "manifest")}, lambda: flight(by=("root-a",))),
    Case("signed_in_another_domain", {("C", "bad-signature", "manifest")},
         lambda: flight(root=replace(ROOT, domain="valley fleet"))),
    Case("below_the_threshold", {("C", "threshold", "manifest")}, crew_flight("pilot"), root=CREW),
    Case("one_good_one_forged", {("C", "bad-signature", "manifest")}, crew_flight("pilot", "co-pilot"),
         manifest_bytes(forged_second), root=CREW),
    Case("signed_by_a_revoked_key", {("C", "revoked-key", "manifest")}, damage=chain_of(
        sign_root(next_root(ROOT, mission=role("co-pilot"), revoked=role("pilot").keys), "root-a"))),
    Case("signed_by_a_retired_key", {("C", "unknown-signer", "manifest")}, damage=chain_of(
        sign_root(next_root(ROOT, mission=role("co-pilot")), "root-a"))),
    Case("payload_of_another_manifest", {("C", "bad-signature", "manifest")}, damage=manifest_bytes(
        lambda data: replace(second_envelope(data), payload=OTHER.manifest.render()).render())),
    # D: payload, table, root, identity
    Case("payload_not_canonical", {("D", "not-canonical", "manifest")}, signed_payload(b"\xbf\xff")),
    Case("payload_of_a_later_version", {("D", "bad-field", "manifest")}, signed_value(version=2)),
    Case("payload_with_an_unknown_key", {("D", "bad-field", "manifest")}, signed_value(more=1)),
    Case("releases_in_another_order", {("D", "bad-order", "manifest")},
         signed_value(releases=[b"\x01" * 32, bytes(32)])),
    Case("table_missing", {("D", "missing", "table")}, damage=in_place("table", None)),
    Case("table_flipped", {("D", "bit-flip", "table")}, damage=in_place("table", flip)),
    Case("table_cut", {("D", "truncated", "table")}, damage=in_place("table", shorter)),
    Case("table_longer", {("D", "oversized", "table")}, damage=in_place("table", longer)),
    Case("table_of_an_unknown_id", {("D", "missing", "table")}, signed_value(table=[bytes(32), 540])),
    Case("table_one_byte_less_than_signed", {("D", "truncated", "table")},
         lambda: flight(table_size=GOOD.manifest.table_size + 1)),
    Case("table_one_byte_more_than_signed", {("D", "oversized", "table")},
         lambda: flight(table_size=GOOD.manifest.table_size - 1)),
    Case("table_is_none", {("D", "bad-table", "table")}, *NOT_A_TABLE),
    Case("table_not_canonical", {("D", "not-canonical", "table")}, *NOT_CANONICAL),
    Case("table_in_another_order", {("D", "bad-order", ENGINE)}, *UNSORTED),
    Case("table_with_an_unknown_kind", {("D", "bad-entry", CAMERA)}, *UNKNOWN_KIND),
    Case("table_with_an_entry_in_an_entry", {("D", "bad-entry", "files/a/b")}, *A_FOLDER),
    Case("table_with_unknown_meta", {("D", "bad-field", "table")}, *UNKNOWN_META),
    Case("a_list_of_missing_tiles_of_another_name", {("D", "bad-coverage", "table")},
         lambda: lacking("coverage/other.cbor")),
    Case("two_lists_of_missing_tiles", {("D", "bad-coverage", "table")},
         lambda: lacking("coverage/missing.cbor", "coverage/other.cbor")),
    Case("another_count", {("D", "bad-count", "table")}, lambda: flight(count=5)),
    Case("another_count_by_far", {("D", "bad-count", "table")}, lambda: flight(count=MAX_ENTRIES)),
    Case("another_root", {("D", "bad-merkle-root", "table")}, lambda: replace_root(bytes(32))),
    Case("another_identity", {("D", "bad-identity", "table")}, lambda: flight(identity=bytes(32))),
    # E: binding
    Case("ref_to_another_missions_manifest", {("E", "wrong-mission", "manifest")}, damage=other_manifest_in_place),
    Case("another_aircraft", {("E", "wrong-aircraft", "manifest")}, binding=replace(BINDING, aircraft="uav-09")),
    Case("an_aircraft_of_no_name", {("E", "wrong-aircraft", "manifest")}, binding=replace(BINDING, aircraft="")),
    Case("another_host", {("E", "wrong-host", "manifest")}, binding=replace(BINDING, host="cpu-aarch64")),
    Case("a_less_able_host", {("E", "wrong-host", "manifest")}, binding=replace(BINDING, host="cpu")),
    Case("an_engine_for_another_host", {("E", "wrong-host", "manifest")}, lambda: flight(hosts=("cpu-aarch64",)),
         binding=replace(BINDING, host="cpu-aarch64")),
    Case("takeoff_outside", {("E", "takeoff-outside-area", "manifest")}, facts(takeoff=Takeoff(0, 0, 0))),
    Case("takeoff_in_the_box_and_outside_the_polygon", {("E", "takeoff-outside-area", "manifest")}, facts(
        area=Area(FACTS.area.bbox, (((-991750000, 470080000, -991740000, 470080000, -991750000, 470090000),),)))),
    Case("expired_by_a_second", {("E", "expired", "manifest")}, issue(expires_at=NOW - 1)),
    Case("not_yet_valid_by_a_second", {("E", "not-yet-valid", "manifest")}, issue(valid_from=NOW + 1)),
    Case("issued_more_than_a_day_ahead", {("E", "issued-in-future", "manifest")},
         issue(issued_at=NOW + 86401, expires_at=None)),
    Case("a_root_more_than_a_day_ahead", {("E", "issued-in-future", "trust root")}, damage=chain_of(
        sign_root(next_root(ROOT, issued_at=NOW + 86401), "root-a"))),
    Case("longer_than_the_root_allows", {("E", "lifetime", "manifest")}, damage=chain_of(
        sign_root(next_root(ROOT, max_lifetime=1099), "root-a"))),
    Case("never_expires_where_a_root_sets_a_maximum", {("E", "lifetime", "manifest")}, issue(expires_at=None),
         damage=chain_of(sign_root(next_root(ROOT, max_lifetime=10**9), "root-a"))),
    Case("imagery_that_aged_since_the_issue", {("E", "stale-imagery", "manifest")}, lambda: flight(coverage=AGING)),
    Case("another_epoch", {("E", "wrong-epoch", "manifest")}, issue(epoch=2)),
    Case("an_epoch_ended", {("E", "wrong-epoch", "manifest")}, damage=chain_of(
        sign_root(next_root(ROOT, epoch=2), "root-a"))),
    Case("an_older_root_than_needed", {("E", "old-root", "manifest")}, issue(min_root_version=2)),
    Case("issued_before_the_root_counts", {("E", "issued-too-early", "manifest")}, damage=chain_of(
        sign_root(next_root(ROOT, issued_after=ISSUE.issued_at + 1), "root-a"))),
    Case("no_release_where_one_is_required", {("E", "unreleased", ENGINE)},
         lambda: flight(root=MIXED_ROOT), root=MIXED_ROOT),
    Case("a_required_release_is_missing", {("E", "unreleased", ENGINE), ("F", "missing", "release")},
         lambda: flight(root=MIXED_ROOT, releases=(ObjectId(bytes(32)),)), root=MIXED_ROOT),
    # F: every object
    Case("engine_missing", {("F", "missing", ENGINE)}, damage=in_place(ENGINE, None)),
    Case("engine_flipped", {("F", "bit-flip", ENGINE)}, damage=in_place(ENGINE, flip)),
    Case("engine_cut", {("F", "truncated", ENGINE)}, damage=in_place(ENGINE, shorter)),
    Case("engine_longer", {("F", "oversized", ENGINE)}, damage=in_place(ENGINE, longer)),
    Case("engine_empty", {("F", "truncated", ENGINE)}, damage=in_place(ENGINE, lambda _: b"")),
    Case("two_swapped", {("F", "swapped", ENGINE), ("F", "swapped", SHARD)}, lambda: flight(SAME_LENGTH), swapped),
    Case("release_swapped", {("F", "swapped", "release")}, lambda: flight(releases=(ObjectId.of(b"a release"),)),
         lambda evidence, one: evidence.objects.update({one.manifest.releases[0]: one.contents[ENGINE]})),
    Case("release_flipped", {("F", "bit-flip", "release")}, lambda: flight(releases=(ObjectId.of(b"a release"),)),
         lambda evidence, one: evidence.objects.update({one.manifest.releases[0]: b"another"})),
    Case("size_lies_by_one_more", {("F", "truncated", ENGINE)}, lie(ENGINE, 1)),
    Case("size_lies_by_one_less", {("F", "oversized", ENGINE)}, lie(ENGINE, -1)),
    Case("one_object_two_sizes", {("F", "bad-entry", CAMERA), ("F", "truncated", f"{CAMERA}, files/copy")}, two_sizes),
    Case("release_missing", {("F", "missing", "release")}, lambda: flight(releases=(ObjectId(bytes(32)),))),
    # several at once
    Case("ref_and_chain", {("A", "bad-ref", ""), ("B", "bad-envelope", "")},
         damage=both(ref_of(b""), chain_of(b"x"))),
    Case("manifest_and_chain", {("A", "missing", "manifest"), ("B", "bad-envelope", "")},
         damage=both(in_place("manifest", None), chain_of(b"x"))),
    Case("three_damages", {("F", "bit-flip", ENGINE), ("F", "missing", SHARD), ("F", "truncated", CAMERA)},
         damage=both(in_place(ENGINE, flip), in_place(SHARD, None), in_place(CAMERA, shorter))),
    Case("wrong_in_every_way", {
        ("E", "wrong-aircraft", "manifest"), ("E", "wrong-host", "manifest"), ("E", "expired", "manifest"),
        ("E", "takeoff-outside-area", "manifest"), ("E", "wrong-epoch", "manifest"), ("E", "old-root", "manifest"),
        ("F", "missing", CARD),
    }, lambda: flight(mission=replace(FACTS, takeoff=Takeoff(0, 0, 0)), issue=Issue(2, 1, 1, 2, expires_at=2)),
        in_place(CARD, None), binding=Binding(NOW, "uav-09", "cpu-aarch64")),
]  # fmt: skip

# Only memory can pretend that a medium does not give something.
UNREADABLE = [
    Case("ref_unreadable", {("A", "unreadable", "")}, damage=unreadable(f"ref/{ID}")),
    Case("manifest_unreadable", {("A", "unreadable", "manifest")}, damage=unreadable("manifest")),
    Case("chain_unreadable", {("B", "unreadable", "")}, damage=both(chain_of(b"x"), unreadable("root/2"))),
    Case("table_unreadable", {("D", "unreadable", "table")}, damage=unreadable("table")),
    Case("engine_unreadable", {("F", "unreadable", ENGINE)}, damage=unreadable(ENGINE)),
]  # fmt: skip


def replace_root(root: bytes) -> Flight:
    """A mission that was signed over another Merkle root."""
    manifest = replace(manifest_of(GOOD.table), merkle_root=root)
    aad = ROOT.aad(manifests.AAD_LABEL)
    return replace(GOOD, signed=sign_payload(manifest.render(), manifests.CONTENT_TYPE, aad, ["pilot"]))


@pytest.mark.parametrize("case", UNREADABLE, ids=lambda case: case.name)
def test_could_not_tell(case: Case) -> None:
    refuses(case, lambda evidence: evidence)


def test_a_takeoff_outside_that_the_mission_allows_is_go(present: Present) -> None:
    away = facts(takeoff=Takeoff(0, 0, 0), takeoff_outside=True)()
    verdict = check(present(evidence_of(away)), BINDING, pinned())
    assert verdict.go
    assert verdict.mission is not None
    assert verdict.mission.facts.takeoff_outside


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(case: Case, present: Present) -> None:
    refuses(case, present)


def refuses(case: Case, present: Present) -> None:
    one = case.flight()
    evidence = evidence_of(one, root=case.root)
    case.damage(evidence, one)
    verdict = check(present(evidence), case.binding, pinned(case.root))
    assert found(verdict) == case.expected
    assert not verdict.go
    assert verdict.mission is None
    # "Could not tell" is said only where nothing is known to be wrong.
    assert verdict.unknown is all(kind == "unreadable" for _, kind, _ in case.expected)
    for finding in verdict.findings:
        assert finding.message
        assert finding.unreadable is (finding.kind == "unreadable")
        assert not finding.information
        if finding.step == "F":
            ObjectId.parse(finding.object)


def test_names_of_cases_are_unique() -> None:
    every = [*CASES, *UNREADABLE]
    assert len({case.name for case in every}) == len(every)


def test_wrong_beats_unreadable() -> None:
    evidence = evidence_of(GOOD)
    evidence.unreadable.add(GOOD.entry(ENGINE).id)
    in_place(SHARD, None)(evidence, GOOD)
    verdict = check(evidence)
    assert found(verdict) == {("F", "unreadable", ENGINE), ("F", "missing", SHARD)}
    assert not verdict.unknown


def test_the_last_second_counts() -> None:
    assert check(evidence_of(flight(issue=replace(ISSUE, expires_at=NOW)))).go
    assert check(evidence_of(flight(issue=replace(ISSUE, expires_at=None)))).go
    assert check(evidence_of(flight(issue=replace(ISSUE, valid_from=NOW)))).go
    assert check(evidence_of(flight(issue=replace(ISSUE, issued_at=NOW + 86400, expires_at=NOW + 86400)))).go
    assert check(evidence_of(GOOD), root=pinned(replace(ROOT, issued_after=None))).go


def test_the_longest_lifetime_counts_from_the_issue() -> None:
    evidence = evidence_of(GOOD)
    chain_of(sign_root(next_root(ROOT, max_lifetime=1100, default_lifetime=5), "root-a"))(evidence, GOOD)
    assert check(evidence).go


def test_a_mission_that_never_expires_says_so() -> None:
    endless = check(evidence_of(flight(issue=replace(ISSUE, expires_at=None))))
    assert "expiry: the mission never expires" in endless.not_judged
    assert not any("expire" in text for text in check(evidence_of(GOOD)).not_judged)


def test_a_mission_that_names_its_object_twice(present: Present) -> None:
    twice = {**CONTENTS, "files/copy": CONTENTS[CAMERA]}
    evidence = evidence_of(flight(twice))
    assert check(evidence).objects == 6
    in_place(CAMERA, flip)(evidence, GOOD)
    assert found(check(present(evidence))) == {("F", "bit-flip", f"{CAMERA}, files/copy")}


def test_a_link_in_the_place_of_an_object_is_no_object(tmp_path: Path) -> None:
    evidence_of(GOOD).write_to(tmp_path / "store")
    name = str(GOOD.entry(ENGINE).id)
    path = tmp_path / "store" / "objects" / name[:2] / name[2:]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert found(check(StoreEvidence(Media(tmp_path / "store")))) == {("F", "wrong-type", ENGINE)}


def test_releases_are_part_of_the_closure(present: Present) -> None:
    statement = b"a release statement"
    one = flight(releases=(ObjectId.of(statement),))
    evidence = evidence_of(one)
    evidence.put(statement)
    assert check(present(evidence)).go


def test_a_newer_root_of_the_chain_judges(present: Present) -> None:
    second = next_root(ROOT, mission=role("co-pilot"), epoch=2)
    one = flight(root=second, by=("co-pilot",), issue=replace(ISSUE, epoch=2, min_root_version=2))
    evidence = evidence_of(one)
    evidence.roots[2] = sign_root(second, "root-a")
    verdict = check(present(evidence))
    assert verdict.go
    assert verdict.mission is not None
    assert verdict.mission.trust_root.version == 2


def test_a_pinned_root_ahead_of_the_store_judges(present: Present) -> None:
    second = next_root(ROOT, mission=role("co-pilot"), revoked=role("pilot").keys)
    verdict = check(present(evidence_of(GOOD)), root=pinned(second))
    assert found(verdict) == {("C", "revoked-key", "manifest")}


def test_the_stores_own_first_root_vouches_for_nothing(present: Present) -> None:
    evil = replace(ROOT, domain="evil", root=role("thief"), mission=role("thief"))
    one = flight(root=evil, by=("thief",))
    evidence = evidence_of(one)
    evidence.roots = {1: sign_root(evil, "thief")}
    assert found(check(present(evidence))) == {("C", "unknown-signer", "manifest")}


def test_a_chain_is_needed_only_beyond_the_pinned_root(present: Present) -> None:
    evidence = evidence_of(GOOD)
    del evidence.roots[1]
    assert check(present(evidence)).go


@pytest.mark.parametrize("mission", ["", "..", "../objects", "no-such-mission", "NORTH", "a/b", "a\x00b", "x" * 300])
def test_no_such_mission(mission: str, present: Present) -> None:
    assert found(check(present(evidence_of(GOOD)), mission=mission)) == {("A", "missing", "")}


def test_nothing_of_the_manifest_is_parsed_before_its_signatures_hold() -> None:
    # The payload would be refused in step D; the signature has to be what is told.
    garbage = Envelope(manifests.CONTENT_TYPE, b"garbage").render()
    evidence = evidence_of(GOOD)
    evidence.refs[ID] = f"{evidence.put(garbage)}\n".encode()
    assert found(check(evidence)) == {("C", "threshold", "manifest")}


# one changed byte, wherever it is


def pointed_at(data: bytes) -> MemoryEvidence:
    """Evidence in which these bytes are the manifest, under their own id: what an attacker would do."""
    evidence = evidence_of(GOOD)
    evidence.refs[ID] = f"{evidence.put(data)}\n".encode()
    return evidence


def test_one_flipped_bit_at_any_byte_of_a_signed_manifest() -> None:
    good, root = GOOD.signed, pinned()
    for at in range(len(good)):
        bad = good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :]
        opened = open_mission(pointed_at(bad), ID, root)
        assert isinstance(opened, tuple), at
        assert {finding.step for finding in opened} <= {"A", "C"}


class Believing(MemoryEvidence):
    """A medium that hands out whatever lies under an id. The signed size and Merkle root have to catch it alone."""

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        return bytearray(self.objects[id_])


def with_table(data: bytes) -> MemoryEvidence:
    believing = Believing(**vars(evidence_of(GOOD)))
    believing.objects[GOOD.manifest.table] = data
    return believing


def test_one_flipped_bit_at_any_byte_of_the_table_of_a_signed_manifest() -> None:
    good, root = GOOD.table.render(), pinned()
    assert isinstance(open_mission(with_table(good), ID, root), Opened)
    for at in range(len(good)):
        bad = good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :]
        opened = open_mission(with_table(bad), ID, root)
        assert isinstance(opened, tuple), at
        assert {finding.step for finding in opened} == {"D"}


@st.composite
def edits(draw: st.DrawFn, good: bytes) -> bytes:
    """`good` with some bytes put in, taken out, put elsewhere or replaced."""
    start = draw(st.integers(0, len(good)))
    end = draw(st.integers(start, min(len(good), start + 40)))
    to = draw(st.integers(0, len(good)))
    cut = good[:start] + draw(st.binary(max_size=8)) + good[end:]
    return draw(st.sampled_from([cut, cut[:to] + good[start:end] + cut[to:]]).filter(lambda bad: bad != good))


@given(edits(GOOD.signed))
@settings(max_examples=200)
def test_no_edit_of_a_signed_manifest_passes(bad: bytes) -> None:
    assert isinstance(open_mission(pointed_at(bad), ID, PINNED), tuple)


@given(edits(GOOD.table.render()))
@settings(max_examples=200)
def test_no_edit_of_a_table_passes(bad: bytes) -> None:
    assert isinstance(open_mission(with_table(bad), ID, PINNED), tuple)


PINNED = pinned()


# a verified mission


def test_a_verified_mission_cannot_be_made_by_hand() -> None:
    mission = check(evidence_of(GOOD)).mission
    assert mission is not None
    with pytest.raises(TypeError):
        VerifiedMission(GOOD.manifest, GOOD.manifest_id, GOOD.table, 1, (), MemoryEvidence(), None, object())
    with pytest.raises(TypeError):
        VerifiedMission(GOOD.manifest, GOOD.manifest_id, GOOD.table, 1, (), MemoryEvidence(), None)  # type: ignore[call-arg]
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(mission, manifest=OTHER.manifest)  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        mission.manifest = OTHER.manifest  # type: ignore[misc]


def test_pinned_roots_that_cannot_be_used() -> None:
    assert pinned_root(sign_root(ROOT, "root-a")).root == ROOT
    for data in (b"", b"garbage", ROOT.render(), sign_root(ROOT), sign_root(ROOT, "stranger"), GOOD.signed):
        with pytest.raises(Untrusted) as caught:
            pinned_root(data)
        assert caught.value.fields["kind"] == "bad-pinned-root"
        assert caught.value.remedy


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (key("pilot").public.pem(), "the file of a key"),
        (root_draft(sign_root(ROOT, "root-a")).render(), "the draft of a trust root"),
        (GOOD.signed, "the manifest of a mission"),
    ],
    ids=["key", "draft", "manifest"],
)
def test_a_file_that_is_easily_given_as_a_root_is_named(data: bytes, what: str) -> None:
    with pytest.raises(Untrusted, match=what):
        pinned_root(data)


# Another trust domain: of another name, of the same name, and of the same name and second.
DOMAINS = {
    "name": replace(ROOT, domain="valley fleet"),
    "salt": replace(ROOT, salt=bytes(16)),
    "second": replace(ROOT, issued_at=ROOT.issued_at + 1),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_the_root_of_another_domain_is_said_to_be_one(present: Present, name: str) -> None:
    """The kinds stay what they were (FORMAT.md 7); the words name both domains, and nobody is sent to sign."""
    root = DOMAINS[name]
    evidence = present(evidence_of(flight(root=root), root=root))
    findings = check(evidence, BINDING, PINNED).findings
    assert [(finding.step, finding.kind) for finding in findings] == [("C", "bad-signature")]
    for one in (root, ROOT):
        assert f'"{one.domain}" (code {short_code(one.digest)})' in findings[0].message
    assert "the root that its owner handed out" in findings[0].remedy
    assert "sign" not in findings[0].remedy


def test_a_chain_of_another_domain_is_said_to_be_one() -> None:
    """In step B, with a longer chain than the pinned root's, also where the mission has no ref."""
    root = DOMAINS["name"]
    evidence = evidence_of(flight(root=root), root=root)
    evidence.roots[2] = sign_root(next_root(root), "root-a")
    for refs in (evidence.refs, {}):
        evidence.refs = refs
        (finding,) = (one for one in check(evidence, BINDING, PINNED).findings if one.step == "B")
        assert finding.kind == "bad-trust-chain"
        assert '"valley fleet"' in finding.message


def test_a_bad_signature_of_the_right_domain_names_no_other() -> None:
    """Whatever lies in the place of trust root 1: a chain that leads on from the pinned root is of its domain."""
    second = next_root(ROOT)
    evidence = evidence_of(flight(by=("stranger",)))
    evidence.roots[2] = sign_root(second, "root-a")
    for first in (sign_root(ROOT, "root-a"), sign_root(DOMAINS["name"], "root-a"), b"garbage"):
        evidence.roots[1] = first
        (finding,) = check(evidence, BINDING, PINNED).findings
        assert (finding.step, finding.kind, "domain" in finding.message) == ("C", "unknown-signer", False)


# The kinds of step E (FORMAT.md 7), but those of the aircraft's state itself, `no-state` and `bad-state`.
STEP_E = {
    "wrong-mission", "wrong-aircraft", "wrong-host", "takeoff-outside-area", "expired", "stale-imagery", "wrong-epoch",
    "old-root", "issued-too-early", "unreleased", "wrong-flight", "rolled-back", "same-sequence", "consumed-flight",
    "not-yet-valid", "lifetime", "issued-in-future", "floor-ahead",
}  # fmt: skip


def test_where_the_trust_root_is_behind_one_remedy_is_given() -> None:
    """The mission is of a newer epoch than the root at hand: the store is synced again, and nothing is built."""
    newer = flight(issue=replace(ISSUE, epoch=ISSUE.epoch + 1, min_root_version=ROOT.version + 1))
    findings = check(evidence_of(newer), BINDING, pinned()).findings
    assert {finding.kind for finding in findings} == {"wrong-epoch", "old-root"}
    assert len({finding.remedy for finding in findings}) == 1


def test_every_finding_says_what_to_do() -> None:
    """Of any step, and of step E every kind."""
    state = AircraftState.initial("uav-07", "cpu-x86_64-avx2", pinned())
    newer = replace(GOOD.manifest, issue=replace(ISSUE, sequence=ISSUE.sequence + 1))
    another = replace(GOOD.manifest, hosts=("cpu",))
    bindings = [
        replace(BINDING, flight="another"),
        replace(BINDING, state=state.accepting(newer, now=0)),
        replace(BINDING, state=state.accepting(another, now=0)),
        replace(BINDING, state=state.accepting(GOOD.manifest, now=0).consuming(FACTS.flight)),
        replace(BINDING, state=replace(state, issued=NOW + 86401)),
    ]
    of_state = [Case("by the state", set(), binding=binding) for binding in bindings]
    unsigned = flight(root=MIXED_ROOT, releases=(ObjectId.of(GOOD.signed),))
    of_release = Case(
        "a release that is none",
        set(),
        lambda: unsigned,
        lambda evidence, _: bool(evidence.put(GOOD.signed)),
        MIXED_ROOT,
    )
    seen = set()
    for case in [*CASES, *of_state, of_release]:
        one = case.flight()
        evidence = evidence_of(one, root=case.root)
        case.damage(evidence, one)
        for finding in check(evidence, case.binding, pinned(case.root)).findings:
            assert finding.remedy, (case.name, finding)
            if finding.step == "E":
                seen.add(finding.kind)
    assert seen >= STEP_E
    assert seen - STEP_E == {"bad-envelope"}  # of the release


BOX = str(FACTS.area.bbox)
FACTS_FOUND = {
    "another_count": (5, 4),
    "another_identity": (bytes(32).hex(), GOOD.manifest.identity.hex()),
    "ref_to_another_missions_manifest": (ID, OTHER.id),
    "another_aircraft": ("uav-09", "uav-07, uav-08"),
    "another_host": ("cpu-aarch64", "cpu-x86_64"),
    "an_engine_for_another_host": ("cpu-aarch64", "cpu-x86_64"),
    "takeoff_outside": (BOX, "0, 0"),
    "longer_than_the_root_allows": (1099, 1100),
    "never_expires_where_a_root_sets_a_maximum": (10**9, ""),
    "another_epoch": (1, 2),
    "an_epoch_ended": (2, 1),
    "an_older_root_than_needed": (2, 1),
    "issued_before_the_root_counts": (ISSUE.issued_at + 1, ISSUE.issued_at),
    "no_release_where_one_is_required": ("a release", ""),
    "one_object_two_sizes": (9, 8),
}


@pytest.mark.parametrize("name", FACTS_FOUND)
def test_findings_say_what_was_expected_and_what_was_found(name: str) -> None:
    (case,) = [case for case in CASES if case.name == name]
    one = case.flight()
    evidence = evidence_of(one, root=case.root)
    case.damage(evidence, one)
    finding = check(evidence, case.binding, pinned(case.root)).findings[0]
    assert (finding.expected, finding.actual) == tuple(map(str, FACTS_FOUND[name]))


def test_findings_say_what_is_known_as_json() -> None:
    evidence = evidence_of(GOOD)
    in_place(ENGINE, flip)(evidence, GOOD)
    (finding,) = check(evidence).findings
    id_ = str(GOOD.entry(ENGINE).id)
    value = finding.as_json()
    assert (value["kind"], value["step"], value["entry"]) == ("bit-flip", "F", ENGINE)
    assert value["object"] == value["expected"] == id_ != value["actual"]
    assert "unreadable" not in value
    assert "path" not in value


def test_the_builders_make_the_same_bytes_each_time() -> None:
    assert flight().signed == GOOD.signed


def test_bytes_as_signed_are_not_to_be_copied_again() -> None:
    """Another copy has them too: who built the mission has to look."""
    good = GOOD.table.render()
    lying = flight(identity=bytes(32))
    assert "build and sign" in check(evidence_of(lying)).findings[0].remedy
    evidence = evidence_of(GOOD)
    evidence.refs[ID] = f"{GOOD.manifest.table}\n".encode()
    assert "sync the mission" in check(evidence).findings[0].remedy
    evidence = evidence_of(GOOD)
    evidence.objects[GOOD.manifest.table] = good[:-1] + bytes([good[-1] ^ 1])
    assert "copy the store again" in check(evidence).findings[0].remedy
