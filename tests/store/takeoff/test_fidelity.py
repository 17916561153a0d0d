"""What nobody measured of an engine flies only where this aircraft has proven it, for exactly these bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.findings import Finding
from store.format.cbor import encode
from store.format.entries import Entry, EntryTable, sorted_table
from store.format.ids import BuildKey, ObjectId, derive
from store.format.manifest import Unproven
from store.takeoff.fidelity import Claim, check_proofs, claims, fidelity_recipe, proof_digest, unmeasured
from store.takeoff.mission import Binding, Opened
from store.trust.aircraft_state import AircraftState
from tests.support.missions import PROBED, ROOT, UNPROVEN, build_key, entry, fleet_table, manifest_of, pinned, table_of

ENGINE, PROBE = "engines/net/net.onnx", "probes/net.safetensors"
STATE = AircraftState.initial("uav-07", "cpu-x86_64-avx2", pinned())
TABLE = table_of(PROBED)


def of_engine(name: str, data: bytes = b"an engine", **changes: Any) -> Entry:
    """An entry under the key of the engine of PROBED."""
    meta = {**entry(ENGINE, b"").meta, **changes.pop("meta", {})}
    return entry(name, data, meta=meta, **{"key": build_key(ENGINE), **changes})


WEIGHTS = of_engine("engines/net/net.weights", b"weights", meta={"part": "weights"})


def with_entries(*more: Entry, without: str = "") -> EntryTable:
    return sorted_table([*(one for one in TABLE.entries if one.name != without), *more])


def opened(table: EntryTable = TABLE, *unproven: Unproven) -> Opened:
    manifest = manifest_of(table, unproven=unproven or (UNPROVEN,))
    return Opened(manifest, ObjectId.of(b"manifest"), 8, table, ROOT)


def claim(table: EntryTable = TABLE) -> Claim:
    (one,) = claims(opened(table), None)
    return one


def found(table: EntryTable = TABLE, *unproven: Unproven, **binding: Any) -> list[Finding]:
    return list(check_proofs(opened(table, *unproven), Binding(**binding)))


def test_a_recipe_is_of_both_keys() -> None:
    value = {"schema": "flightbag/fidelity/1", "probe": b"p" * 32, "engine": b"e" * 32}
    expected = derive("flightbag 2026 quality recipe v1", encode(value))
    assert fidelity_recipe(BuildKey(b"p" * 32), BuildKey(b"e" * 32)) == expected
    assert fidelity_recipe(BuildKey(b"e" * 32), BuildKey(b"p" * 32)) != expected


def test_a_proof_is_of_the_figure_and_of_the_bytes() -> None:
    objects = [bytes(ObjectId.of(PROBED[PROBE])), [bytes(ObjectId.of(PROBED[ENGINE]))]]
    value = ["fidelity/net", UNPROVEN.least, UNPROVEN.recipe, *objects]
    assert claim().proof == derive("flightbag 2026 proof aboard v1", encode(value))
    assert claim().engine == ENGINE
    with_weights = [*value[:4], [*objects[1], bytes(WEIGHTS.id)]]
    assert claim(with_entries(WEIGHTS)).proof == derive("flightbag 2026 proof aboard v1", encode(with_weights))


IDS = st.binary(min_size=32, max_size=32).map(ObjectId)
CLAIMS = st.tuples(
    st.builds(Unproven, st.sampled_from(["fidelity/a", "fidelity/b"]), st.integers(0, 2), st.sampled_from([b"r" * 32])),
    IDS,
    st.lists(IDS, min_size=1, max_size=2).map(tuple),
)


@given(CLAIMS, CLAIMS)
def test_equal_proofs_are_of_equal_things(one: Any, other: Any) -> None:
    assert (proof_digest(*one) == proof_digest(*other)) == (one == other)
    assert proof_digest(*one) != proof_digest(one[0], one[1], one[2][::-1]) or one[2] == one[2][::-1]


@pytest.mark.parametrize(
    "table",
    [
        with_entries(without=PROBE),
        with_entries(without=ENGINE),
        with_entries(WEIGHTS, without=ENGINE),
        with_entries(replace(TABLE.find(PROBE), key=build_key("other")), without=PROBE),  # type: ignore[type-var]
        with_entries(of_engine(ENGINE, key=build_key("other")), without=ENGINE),
        with_entries(of_engine("engines/other/net.onnx", b"another engine")),
        with_entries(WEIGHTS, of_engine("engines/other/net.weights", b"others", meta={"part": "weights"})),
    ],
    ids=["probe-gone", "engine-gone", "weights-alone", "another-probe", "another-engine", "two-engines", "two-weights"],
)
def test_what_no_probe_can_show_is_never_proven(table: EntryTable) -> None:
    assert claim(table).proof is None
    everything = replace(STATE, proofs=(claim().proof or b"",))
    for binding in ({}, {"state": STATE}, {"state": everything}):
        (one,) = found(table, **binding)
        assert (one.step, one.kind, "build and sign" in one.remedy) == ("E", "unproven", True)


def test_one_engine_under_two_names_is_one() -> None:
    assert claim(with_entries(of_engine("engines/other/net.onnx", PROBED[ENGINE]))).proof == claim().proof


def test_it_takes_the_state_of_this_aircraft() -> None:
    assert claim().proof is not None
    proven = replace(STATE, proofs=(claim().proof or b"",))
    assert found(state=proven) == []
    for binding in (dict[str, Any](), {"host": STATE.host, "aircraft": STATE.id}, {"state": STATE}):
        (one,) = found(**binding)
        assert (one.step, one.kind, one.entry) == ("E", "unproven", ENGINE)
        assert "flightbag probe STORE MISSION --state" in one.remedy


def test_every_figure_needs_its_own() -> None:
    figures = tuple(
        replace(UNPROVEN, least=UNPROVEN.least, recipe=recipe) for recipe in (UNPROVEN.recipe, b"\xff" * 32)
    )
    proven = replace(STATE, proofs=(claim().proof or b"",))
    assert len(found(TABLE, *sorted(figures, key=lambda one: one.recipe), state=proven)) == 1
    assert len(found(TABLE, replace(UNPROVEN, least=UNPROVEN.least + 1), state=proven)) == 1, "another bound"


@pytest.mark.parametrize("binding", [{"proof": False}, {"proof": False, "state": STATE}], ids=["ground", "probe"])
def test_where_it_is_not_judged(binding: Mapping[str, Any]) -> None:
    assert found(**binding) == []
    assert "proof aboard" in Binding(**binding).not_judged
    assert "proof aboard" not in Binding().not_judged


class TestFleet:
    """A mission for two classes: of each aircraft only its own engine is asked."""

    NEEDS: ClassVar = {"portable": "cpu", "fast": "cpu-x86_64-avx2"}
    ENGINES, CONTENTS = fleet_table(NEEDS)
    TABLE = sorted_table([*ENGINES.entries, entry(PROBE, PROBED[PROBE])])
    FIGURES: ClassVar = {
        name: Unproven(
            "fidelity/net", 990_000, fidelity_recipe(build_key(PROBE), build_key(f"engines/net/{name}.onnx"))
        )
        for name in NEEDS
    }

    @pytest.mark.parametrize(
        ("unproven", "host", "asked"),
        [
            (["fast"], "cpu-x86_64-avx2", ["fast"]),
            (["fast"], "cpu-aarch64", []),
            (["portable"], "cpu-x86_64-avx2", []),
            (["portable"], "cpu-aarch64", ["portable"]),
            (["fast"], None, ["fast"]),
            (["fast", "portable"], None, ["fast", "portable"]),
            (["fast", "portable"], "cpu-aarch64", ["portable"]),
        ],
    )
    def test_of_each_aircraft_its_own_engine_is_asked(self, unproven: list[str], host: str, asked: list[str]) -> None:
        figures = sorted((self.FIGURES[name] for name in unproven), key=lambda one: one.recipe)
        binding = {"host": host} if host is not None else {}
        engines = [one.entry for one in found(self.TABLE, *figures, **binding)]
        assert sorted(engines) == [f"engines/net/{name}.onnx" for name in asked]

    def test_what_no_engine_has_is_asked_of_all(self) -> None:
        assert len(found(self.TABLE, UNPROVEN, host="cpu-aarch64")) == 1


def test_a_figure_speaks_for_the_hosts_that_load_its_engine() -> None:
    """`sm87` loads an engine of its own, of which nobody says anything."""
    own = entry("engines/net/own.onnx", b"own", meta={**entry(ENGINE, b"").meta, "host": "cpu-x86_64+sm87"})
    mission = opened(with_entries(own))
    assert list(unmeasured(mission, "cpu-x86_64")) == []
    assert list(unmeasured(mission, "cpu-x86_64+sm87")) == ["net"]
    assert list(unmeasured(mission, "sm87")) == ["net"]
    assert list(unmeasured(opened(with_entries(without=PROBE)), "cpu-x86_64")) == ["net"]
