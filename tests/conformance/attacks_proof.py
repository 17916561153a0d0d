"""Attacks on the proof aboard: an engine that nobody has run flies only where this aircraft has held it to its map.

The groups are those of `attacks`. What somebody gains by them is a flight with an engine, or over a map, that no probe
has seen: by another engine under the name or the key of the proven one, by the memory of another aircraft, or by a
mission that does not say what nobody measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import cbor2

from store.disk.media import Media
from store.errors import FlightbagError
from store.format import manifest as manifests
from store.format.cose import Envelope
from store.format.entries import Entry, sorted_table
from store.format.ids import ObjectId
from store.format.manifest import PAYLOAD_LIMIT, Figure, Unproven
from store.takeoff.aircraft import check, enrol, prove, read_state
from store.takeoff.evidence import StoreEvidence
from store.takeoff.fidelity import fidelity_recipe
from store.takeoff.verify import pinned_root
from store.trust.aircraft_state import AircraftState
from tests.conformance.attacks import ENGINE, GO, Groups, Row, Scene, scene, takeoff, value_of
from tests.support.missions import (
    BINDING,
    ENGINE_META,
    FACTS,
    ISSUE,
    NOW,
    PROBED,
    ROOT,
    UNPROVEN,
    Flight,
    build_key,
    entry,
    fleet_table,
    flight,
    next_root,
    pinned,
    role,
    sign_payload,
    sign_root,
)

PROBE, WEIGHTS = "probes/net.safetensors", "engines/net/net.weights"
ID, HOST = "uav-07", "cpu-x86_64-avx2"


def unproven(contents: dict[str, bytes] | None = None, *more: Entry, **changes: Any) -> Flight:
    """A mission of which nobody measured whether its engine equals its map; `more` are entries beside its own."""
    contents = PROBED if contents is None else contents
    table = sorted_table([*(entry(name, data) for name, data in contents.items()), *more])
    every = {**contents, **{one.name: one.name.encode() for one in more}}
    return flight(every, table=table, **{"unproven": (UNPROVEN,), **changes})


def beside(name: str, part: str, **meta: str) -> Entry:
    """An entry under the key of the engine."""
    return entry(name, name.encode(), key=build_key(ENGINE), meta={**ENGINE_META, "part": part, **meta})


MISSION = unproven()
NEXT = replace(ISSUE, sequence=ISSUE.sequence + 1)


# one check, by a pinned root alone


def claims() -> Iterator[Row]:
    """What a mission says that nobody measured. Without the state of an aircraft nothing of it is proven."""

    def payload(**changes: Any) -> Scene:
        """The original with other fields, or without those that are None, signed by a rightful key."""
        value = {**value_of(MISSION.manifest.render()), **changes}
        data = cbor2.dumps({name: one for name, one in value.items() if one is not None}, canonical=True)
        return led_to(sign_payload(data, manifests.CONTENT_TYPE, ROOT.aad(manifests.AAD_LABEL), ["pilot"]))

    measured = Figure(UNPROVEN.name, 10**6, UNPROVEN.least, 8, UNPROVEN.recipe)
    name, least, recipe = UNPROVEN.name, UNPROVEN.least, UNPROVEN.recipe
    yield "the-original", GO, scene(flight(PROBED, quality=(measured,)))
    yield "nobody-measured-it", "E unproven", scene(MISSION)
    yield "asked-by-its-aircraft", "E unproven", replace(scene(MISSION), binding=BINDING)
    yield "asked-by-nobody", "E unproven", replace(scene(MISSION), binding=replace(BINDING, aircraft=None, host=None))
    yield "with-a-least-of-0", "E unproven", scene(unproven(unproven=(replace(UNPROVEN, least=0),)))
    yield "of-no-engine", "E unproven", scene(unproven(unproven=(replace(UNPROVEN, recipe=bytes(32)),)))
    yield "of-another-set", "E unproven", scene(unproven(unproven=(replace(UNPROVEN, name="fidelity/far"),)))
    yield "measured-and-not", "D bad-field", payload(quality=[measured.as_value()])
    yield "of-another-figure", "D bad-field", payload(unproven=[["self@1/net", least, recipe]])
    yield "of-no-set", "D bad-field", payload(unproven=[["fidelity/", least, recipe]])
    yield "of-a-path", "D bad-field", payload(unproven=[["fidelity/../net", least, recipe]])
    yield "with-a-value", "D bad-field", payload(unproven=[[name, 10**6, least, 8, recipe]])
    yield "of-a-short-recipe", "D bad-field", payload(unproven=[[name, least, recipe[1:]]])
    yield "of-more-than-all", "D bad-field", payload(unproven=[[name, 10**6 + 1, recipe]])
    yield "empty", "D bad-field", payload(unproven=[])
    yield "null", "D not-canonical", payload(unproven=cbor2.CBORSimpleValue(22))  # null
    yield "twice", "D bad-order", payload(unproven=[[name, least, recipe]] * 2)
    yield "two-hundred-and-fifty-seven", "D bad-field", payload(
        unproven=[[f"fidelity/n{number:03}", 0, bytes(32)] for number in range(257)])  # fmt: skip
    yield "left-out-of-the-identity", "D bad-identity", payload(unproven=None)
    yield "with-another-least", "D bad-identity", payload(unproven=[[name, 0, recipe]])
    cut = value_of(MISSION.manifest.render())
    del cut["unproven"]
    sealed = Envelope.parse(MISSION.signed, manifests.CONTENT_TYPE, PAYLOAD_LIMIT)
    forged = replace(sealed, payload=cbor2.dumps(cut, canonical=True)).render()
    yield "cut-out-by-who-has-no-key", "C bad-signature", led_to(forged)


def led_to(data: bytes) -> Scene:
    """The mission, whose ref leads to this manifest."""
    made = scene(MISSION)
    made.evidence.refs[FACTS.id] = f"{made.evidence.put(data)}\n".encode()
    return made


# an aircraft through its probes


@dataclass(frozen=True)
class Shown:
    """A mission that the aircraft is shown."""

    scene: Scene


@dataclass(frozen=True)
class Probed:
    """A mission that is probed aboard, with what the engine showed. No engine is run of a mission that does not pass
    every other step."""

    scene: Scene
    value: int | None = UNPROVEN.least
    name: str = UNPROVEN.name
    recipe: bytes = UNPROVEN.recipe
    breaks: bool = False


@dataclass(frozen=True)
class Enrolled:
    """The aircraft is enrolled again, with this class and trust root."""

    host: str = HOST
    root: Any = ROOT


# What somebody does to the folder of the state, with a folder for what is kept.
Done: TypeAlias = Callable[[Path, Path], object]
Step: TypeAlias = Shown | Probed | Enrolled | Done


def aboard(steps: Sequence[Step], folder: Path) -> str:
    """What the last step comes to. No probe accepts a mission."""
    state, outcome = folder / "state", GO
    enrol(state, AircraftState.initial(ID, HOST, pinned()))
    for number, step in enumerate(steps):
        outcome = GO
        store = folder / f"store-{number}"
        try:
            if isinstance(step, Shown):
                step.scene.evidence.write_to(store)
                with Media(store) as media:
                    verdict = check(state, StoreEvidence(media), step.scene.mission, now=NOW)
                outcome = ", ".join(sorted({f"{one.step} {one.kind}" for one in verdict.findings})) or GO
            elif isinstance(step, Probed):
                outcome = _probe(state, store, step)
            elif isinstance(step, Enrolled):
                root = pinned_root(sign_root(step.root, "root-a"))
                enrol(state, AircraftState.initial(ID, step.host, root), again=True)
            else:
                step(state, folder)
        except FlightbagError as error:
            outcome = f"state {error.kind or 'invalid'}"
    return outcome


def _probe(state: Path, store: Path, step: Probed) -> str:
    ran: list[str] = []

    def measure(_mission: object) -> Sequence[Probed]:
        ran.append("ran")
        if step.breaks:
            raise FlightbagError("the engine does not run", kind="wrong-host")
        return [step]

    step.scene.evidence.write_to(store)
    before = read_state(state).state
    with Media(store) as media:
        proving = prove(state, StoreEvidence(media), step.scene.mission, measure, now=NOW)
    assert read_state(state).state.missions == before.missions, "a probe accepts nothing"
    if proving.refused is not None:
        assert not ran, "an engine was run of a mission that does not pass"
        return ", ".join(sorted({f"{one.step} {one.kind}" for one in proving.refused.findings}))
    return GO if proving.held else "probe failed" if proving.failed else "probe showed nothing"


def kept(name: str) -> Done:
    """Keep a copy of the state under a name."""
    return lambda state, folder: shutil.copytree(state, folder / name)


def put_back(name: str, *slots: str) -> Done:
    """Put slots of a kept state in the place of the present ones."""
    return lambda state, folder: [shutil.copy(folder / name / slot, state / slot) for slot in slots]


def planted(state: Path, _folder: Path) -> None:
    """Write into a slot, without its checksum, that everything is proven."""
    for slot in ("a", "b"):
        data = bytearray((state / slot).read_bytes())
        at = data.index(b"proofs") + len(b"proofs")
        (state / slot).write_bytes(data[:at] + b"\x81\x58\x20" + bytes(32) + data[at + 1 :])


def swaps() -> Iterator[Row]:
    """A proof is of the very bytes that were compared."""
    held, weights = Probed(scene(MISSION)), beside(WEIGHTS, "weights")

    def then(*more: Any, **changes: Any) -> list[Step]:
        """The original is proven, and this one is shown."""
        return [held, Shown(scene(unproven(*more, **changes)))]

    with_weights = unproven(None, weights)
    yield "the-original", GO, [held, Shown(scene(MISSION))]
    yield "never-probed", "E unproven", [Shown(scene(MISSION))]
    yield "another-engine-of-the-same-key", "E unproven", then({**PROBED, ENGINE: b"another engine"})
    yield "another-probe-of-the-same-key", "E unproven", then({**PROBED, PROBE: b"another probe"})
    yield "weights-added", "E unproven", then(None, weights)
    yield "weights-proven", GO, [Probed(scene(with_weights)), Shown(scene(with_weights))]
    yield "weights-taken-away", "E unproven", [Probed(scene(with_weights)), Shown(scene(MISSION))]
    other = replace(weights, id=ObjectId.of(b"other weights"), size=13)
    swapped = flight({**PROBED, WEIGHTS: b"other weights"}, unproven=(UNPROVEN,), table=sorted_table(
        [*MISSION.table.entries, other]))  # fmt: skip
    yield "weights-swapped", "E unproven", [Probed(scene(with_weights)), Shown(scene(swapped))]
    two = unproven(None, beside("engines/net/other.onnx", "model"))
    yield "two-models-of-one-key", "E unproven", [Shown(scene(two))]
    yield "two-models-of-one-key-probed", "probe showed nothing", [Probed(scene(two))]
    eye = unproven(None, beside("engines/eye/net.onnx", "model", backbone="eye"))
    yield "another-model-under-another-backbone", "probe showed nothing", [Probed(scene(eye))]
    yield "with-a-lower-least", "E unproven", then(unproven=(replace(UNPROVEN, least=1),))
    yield "with-a-higher-least", "E unproven", then(unproven=(replace(UNPROVEN, least=10**6),))
    yield "without-its-probe", "E unproven", then({name: data for name, data in PROBED.items() if name != PROBE})
    yield "without-its-engine", "E unproven", then({name: data for name, data in PROBED.items() if name != ENGINE})
    far = Unproven("fidelity/far", 1, fidelity_recipe(build_key("probes/far.safetensors"), build_key(ENGINE)))
    yield "with-another-set", "E unproven", then(
        {**PROBED, "probes/far.safetensors": PROBED[PROBE]}, unproven=(far, UNPROVEN))  # fmt: skip
    yield "of-another-mission", GO, then(mission=replace(FACTS, flight="next"), issue=NEXT)
    yield "with-another-camera", GO, then({**PROBED, "files/calibration/camera.yaml": b"fx: 2.0\n"}, issue=NEXT)


def probes() -> Iterator[Row]:
    """What a probe has to show, and of which mission."""
    mission = scene(MISSION)
    held, shown = Probed(mission), Shown(mission)

    def of(*chain: bytes, **changes: Any) -> Probed:
        return Probed(scene(unproven(**changes), chain=chain))

    revoked = next_root(ROOT, mission=role("co-pilot"), revoked=role("pilot").keys)
    yield "the-original", GO, [held]
    yield "just-below", "probe failed", [replace(held, value=UNPROVEN.least - 1)]
    yield "just-below-and-shown", "E unproven", [replace(held, value=UNPROVEN.least - 1), shown]
    yield "nothing-measured", "E unproven", [replace(held, value=None), shown]
    yield "of-another-recipe", "E unproven", [replace(held, recipe=bytes(32)), shown]
    yield "of-another-set", "E unproven", [replace(held, name="fidelity/far"), shown]
    yield "of-self-retrieval", "E unproven", [replace(held, name="self@1/net"), shown]
    yield "an-engine-that-does-not-run", "state wrong-host", [replace(held, breaks=True)]
    yield "an-engine-that-does-not-run-and-shown", "E unproven", [replace(held, breaks=True), shown]
    yield "refuted-later", "E unproven", [held, replace(held, value=0), shown]
    yield "refuted-and-held-again", GO, [held, replace(held, value=0), held, shown]
    yield "broken-later", GO, [held, replace(held, breaks=True), shown]
    yield "for-another-aircraft", "E wrong-aircraft", [of(mission=replace(FACTS, aircraft=("uav-08",)))]
    yield "for-another-class", "E wrong-host", [of(hosts=("cpu-aarch64",))]
    yield "of-another-epoch", "E wrong-epoch", [of(issue=replace(ISSUE, epoch=2))]
    yield "expired", "E expired", [of(issue=replace(ISSUE, expires_at=NOW - 1))]
    yield "from-the-future", "E issued-in-future", [
        of(issue=replace(ISSUE, issued_at=NOW + 10**7, expires_at=None))]  # fmt: skip
    yield "by-a-stranger", "C unknown-signer", [of(by=["stranger"])]
    yield "by-a-revoked-key", "C revoked-key", [of(sign_root(revoked, "root-a"))]
    yield "a-revocation-by-a-probe-stays", "C revoked-key", [held, of(sign_root(revoked, "root-a")), shown]
    other = replace(ROOT, salt=bytes(16))
    yield "of-another-domain", "C bad-signature", [Probed(scene(unproven(root=other), root=other))]


def memories() -> Iterator[Row]:
    """What the aircraft remembers, and what becomes of it."""
    mission = scene(MISSION)
    held, shown, low = Probed(mission), Shown(mission), Probed(mission, value=0)
    second = next_root(ROOT, epoch=2)
    later = scene(
        unproven(root=second, issue=replace(ISSUE, epoch=2, min_root_version=2)), chain=[sign_root(second, "root-a")]
    )
    domain = replace(ROOT, salt=bytes(16))
    yield "the-original", GO, [held, shown]
    yield "enrolled-again", GO, [held, Enrolled(), shown]
    yield "enrolled-as-another-class", "E unproven", [held, Enrolled("cpu-x86_64-avx512"), shown]
    yield "enrolled-as-a-class-with-a-library", "E unproven", [held, Enrolled(f"{HOST}+ort-1.22.0"), shown]
    yield "enrolled-as-another-class-and-back", "E unproven", [held, Enrolled("cpu-x86_64"), Enrolled(), shown]
    yield "under-a-new-epoch", GO, [held, Shown(later)]
    yield "under-another-domain", GO, [
        held, Enrolled(root=domain), Shown(scene(unproven(root=domain), root=domain))]  # fmt: skip
    yield "one-slot-of-before-it-was-refuted", "E unproven", [held, kept("held"), low, put_back("held", "a"), shown]
    yield "that-slot-after-another-change", "E bad-state", [
        held, kept("held"), low, held, low, put_back("held", "a"), shown]  # fmt: skip
    yield "written-into-the-slots", "E bad-state", [planted, shown]
    yield "one-slot-of-before-and-enrolled", "E unproven", [
        held, kept("held"), low, put_back("held", "a"), Enrolled(), shown]  # fmt: skip


def fleets() -> Iterator[Row]:
    """A mission for several classes, whose aircraft load an engine each."""
    needs = {"portable": "cpu", "fast": HOST}
    table, contents = fleet_table(needs)
    table = sorted_table([*table.entries, entry(PROBE, PROBED[PROBE])])
    contents = {**contents, PROBE: PROBED[PROBE]}
    figures = {
        name: replace(UNPROVEN, recipe=fidelity_recipe(build_key(PROBE), build_key(f"engines/net/{name}.onnx")))
        for name in needs
    }

    def of(*names: str) -> Scene:
        unmeasured = tuple(sorted((figures[name] for name in names), key=lambda one: one.recipe))
        hosts = ("cpu-aarch64", HOST)
        return scene(flight(contents, table=table, hosts=hosts, unproven=unmeasured))

    def probed(made: Scene, name: str) -> Probed:
        return Probed(made, recipe=figures[name].recipe)

    yield "the-original", GO, [Shown(of("portable"))]
    yield "its-own-engine", "E unproven", [Shown(of("fast"))]
    yield "its-own-engine-proven", GO, [probed(of("fast"), "fast"), Shown(of("fast"))]
    yield "both", "E unproven", [Shown(of("fast", "portable"))]
    yield "both-and-its-own-proven", GO, [probed(of("fast", "portable"), "fast"), Shown(of("fast", "portable"))]
    yield "proven-by-the-engine-of-others", "E unproven", [
        probed(of("fast", "portable"), "portable"), Shown(of("fast", "portable"))]  # fmt: skip
    yield "of-no-engine-of-the-mission", "E unproven", [
        Shown(scene(flight(contents, table=table, hosts=("cpu-aarch64", HOST), unproven=(UNPROVEN,))))]  # fmt: skip


GROUPS: Groups = {
    "unproven": (takeoff, claims),
    "proof-swaps": (aboard, swaps),
    "proof-probes": (aboard, probes),
    "proof-memories": (aboard, memories),
    "proof-fleets": (aboard, fleets),
}
