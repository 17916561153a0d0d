"""Fidelity: whether an engine equals the map that it flies over (FORMAT.md 6.7), and its proof aboard (10.5). Pure.

A manifest signs the figure, or says that nobody measured it: then each aircraft has to prove it. A proof names the
figure, its bound and recipe, and the very objects that are compared: another engine or another probe needs another.

Law: the digests of two claims are equal only if all of that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from store.findings import Finding
from store.format.cbor import encode
from store.format.entries import Entry, EntryTable
from store.format.ids import BuildKey, ObjectId, derive
from store.format.manifest import FIDELITY, PPM, Manifest, Unproven
from store.takeoff.engines import Engine, engine_for, engines_of
from store.takeoff.mission import Binding, Opened
from store.values import dataclass

FIGURE_CONTEXT = "flightbag 2026 quality recipe v1"
PROOF_CONTEXT = "flightbag 2026 proof aboard v1"
SCHEMA = "flightbag/fidelity/1"
_PROBE_IT = "run `flightbag probe STORE MISSION --state DIR` on the aircraft, whose state keeps the proof; verify again"
_BUILD_AGAIN = "build and sign the mission again: its table has no such engine and probe"


@dataclass(frozen=True, slots=True)
class Claim:
    """An unproven figure of a mission. `engine` is the name of its engine, "" where the table has none; `proof` is the
    digest of its proof, 32 bytes, None where nothing can prove it."""

    figure: Unproven
    engine: str
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


class Contents(Protocol):
    """A manifest with its table."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def table(self) -> EntryTable: ...


def claims(mission: Contents, host: str | None) -> Iterator[Claim]:
    """Yield the unproven figures of a mission, with what proves them: of engines that a host of this class loads, or of
    all for None, and those that no engine of the mission has."""
    if not mission.manifest.unproven:
        return
    backbones = engines_of(mission.table.of_kind("engine")).values()
    every = [engine for engines in backbones for engine in engines]
    loaded = every if host is None else [engine_for(engines, host) for engines in backbones]
    for figure in mission.manifest.unproven:
        probe = mission.table.find(f"probes/{figure.set}.safetensors")
        of_figure = [] if probe is None or probe.key is None else _of_recipe(figure.recipe, probe.key, every)
        if not of_figure or any(engine in loaded for engine in of_figure):
            yield _claim(figure, probe, of_figure)


def unmeasured(mission: Contents, host: str) -> Iterator[str]:
    """Yield the descriptor sets, ascending, of which no figure of fidelity speaks for a host of this class: no engine
    that it loads has one, measured or unproven."""
    manifest, table = mission.manifest, mission.table
    figures = {(one.name, one.recipe) for one in manifest.quality} | {
        (one.name, one.recipe) for one in manifest.unproven
    }
    loaded = [engine_for(engines, host) for engines in engines_of(table.of_kind("engine")).values()]
    for set_ in sorted({entry.name.split("/")[1] for entry in table.of_kind("descriptors")}):
        probe = table.find(f"probes/{set_}.safetensors")
        keys = [] if probe is None or probe.key is None else [probe.key]
        recipes = [fidelity_recipe(key, engine.key) for key in keys for engine in loaded if engine is not None]
        if not any((f"{FIDELITY}{set_}", recipe) in figures for recipe in recipes):
            yield set_


def _of_recipe(recipe: bytes, probe: BuildKey, engines: Iterable[Engine]) -> list[Engine]:
    return [engine for engine in engines if recipe == fidelity_recipe(probe, engine.key)]


def _claim(figure: Unproven, probe: Entry | None, engines: Sequence[Engine]) -> Claim:
    """Return the claim of a figure by its probe and its engines: one, but where two backbones have the same."""
    parts: dict[str, dict[ObjectId, None]] = {"model": {}, "weights": {}}
    for engine in engines:
        for entry in engine.entries:
            parts[entry.meta["part"]][entry.id] = None
    proof = None
    # With two objects for one part, what was run might not be what is proven.
    if probe is not None and len(parts["model"]) == 1 and len(parts["weights"]) <= 1:
        proof = proof_digest(figure, probe.id, (*parts["model"], *parts["weights"]))
    return Claim(figure, engines[0].name if engines else "", proof)


def check_proofs(opened: Opened, binding: Binding) -> Iterator[Finding]:
    """Yield the findings of step E about figures that this aircraft has not proven."""
    proofs = () if binding.state is None else binding.state.proofs
    for claim in claims(opened, binding.host) if binding.proof else ():
        if claim.proof is not None and claim.proof in proofs:
            continue
        where = "the proof is in the state of an aircraft, and none was given"
        if binding.state is not None:
            where = f"the state of {binding.state.id} has no proof of it"
        yield Finding(
            "unproven",
            f"nobody has measured whether {claim.engine or 'an engine'} equals the map of {claim.figure.set}; {where}",
            step="E",
            entry=claim.engine or "manifest",
            expected=f"at least {claim.figure.least / PPM:g}",
            remedy=_BUILD_AGAIN if claim.proof is None else _PROBE_IT,
        )
