"""Fidelity: whether an engine equals the map that it flies over (FORMAT.md 6.7), and its proof aboard (10.5). Pure.

A manifest signs the figure, or says that nobody measured it: then each aircraft has to prove it. A proof names the
figure, its bound and recipe, and the very objects that are compared: another engine or another probe needs another.

Law: the digests of two claims are equal only if all of that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from store.findings import Finding
from store.format.cbor import encode
from store.format.entries import Entry, EntryTable
from store.format.ids import BuildKey, ObjectId, derive
from store.format.manifest import PPM, Unproven
from store.takeoff.mission import Binding, Opened, VerifiedMission

FIGURE_CONTEXT = "flightbag 2026 quality recipe v1"
PROOF_CONTEXT = "flightbag 2026 proof aboard v1"
SCHEMA = "flightbag/fidelity/1"
_PROBE_IT = "run `flightbag probe STORE MISSION --state DIR` on the aircraft, whose state keeps the proof; verify again"
_BUILD_AGAIN = "build and sign the mission again: its table has no such engine and probe"


@dataclass(frozen=True, slots=True)
class Claim:
    """An unproven figure of a mission. `engine` is the entry of the engine, None where the table has none; `proof` is
    the digest of its proof, 32 bytes, None where nothing can prove it."""

    figure: Unproven
    engine: Entry | None
    proof: bytes | None


def fidelity_recipe(probe: BuildKey, engine: BuildKey) -> bytes:
    """Return the digest of what a figure of fidelity rests on, 32 bytes: the keys of the probe, and of the engine that
    describes camera frames for its descriptor set."""
    return derive(FIGURE_CONTEXT, encode({"schema": SCHEMA, "probe": bytes(probe), "engine": bytes(engine)}))


def proof_digest(figure: Unproven, probe: ObjectId, engine: tuple[ObjectId, ...]) -> bytes:
    """Return the digest of the proof of a figure, 32 bytes, by the objects that are compared: the probe, and the
    engine's model and weights, if it has such."""
    objects = [bytes(one) for one in engine]
    return derive(PROOF_CONTEXT, encode([figure.name, figure.least, figure.recipe, bytes(probe), objects]))


def claims(mission: Opened | VerifiedMission) -> Iterator[Claim]:
    """Yield the unproven figures of a mission, with what proves them."""
    for figure in mission.manifest.unproven:
        yield _claim(figure, mission.table)


def _claim(figure: Unproven, table: EntryTable) -> Claim:
    probe = table.find(f"probes/{figure.set}.safetensors")
    if probe is None or probe.key is None:
        return Claim(figure, None, None)
    parts: dict[str, dict[ObjectId, Entry]] = {"model": {}, "weights": {}}
    for entry in table.entries:
        if entry.kind == "engine" and entry.key and figure.recipe == fidelity_recipe(probe.key, entry.key):
            parts[entry.meta["part"]].setdefault(entry.id, entry)
    engine = next(iter(parts["model"].values()), None)
    # Two objects for one part: what was run would not be what is proven.
    if len(parts["model"]) != 1 or len(parts["weights"]) > 1:
        return Claim(figure, engine, None)
    return Claim(figure, engine, proof_digest(figure, probe.id, (*parts["model"], *parts["weights"])))


def check_proofs(opened: Opened, binding: Binding) -> Iterator[Finding]:
    """Yield the findings of step E about figures that this aircraft has not proven."""
    proofs = () if binding.state is None else binding.state.proofs
    for claim in claims(opened) if binding.proof else ():
        if claim.proof is not None and claim.proof in proofs:
            continue
        engine = claim.engine.name if claim.engine is not None else "no engine of the mission"
        where = "its proof is kept by the state of an aircraft, and none was given"
        if binding.state is not None:
            where = f"the aircraft {binding.state.id} has not proven it"
        yield Finding(
            "unproven",
            f"nobody measured whether {engine} equals the map of {claim.figure.set}, and {where}",
            step="E",
            entry=claim.engine.name if claim.engine is not None else "manifest",
            expected=f"at least {claim.figure.least / PPM:g}",
            remedy=_BUILD_AGAIN if claim.proof is None else _PROBE_IT,
        )
