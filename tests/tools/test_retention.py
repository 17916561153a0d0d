"""What a store keeps, from the command line: collection and pins."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.commands import flightbag
from tests.support.field import RIGHT, Desk


def test_gc_and_pins(twice: Desk) -> None:
    old = flightbag("log", twice.store, "left", "--json").json["events"][0]["manifest"]
    assert flightbag("pin", twice.store, "first", old).status == 0
    assert flightbag("pin", twice.store, "--json").json["pins"] == [{"name": "first", "object": old}]
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
    rows = flightbag("log", twice.store, "left", "--json").json["events"]
    assert [(row["there"], row["current"]) for row in rows] == [(False, False), (True, True)]
    assert flightbag("gc", twice.store, "--grace", "0s").status == 0
    assert not list((twice.store / "trash").iterdir())
    assert flightbag("gc", twice.store, "--grace", "soon").status == 2


def test_a_build_after_a_collection_finds_or_makes_what_it_needs(twice: Desk) -> None:
    """Build records that name what was collected are no promise: the file is looked for."""
    (twice.store / "missions" / "right").unlink()
    os.truncate(twice.store / "log", 0)
    # Makes the index of this copy anew: what is entered after a collection began is young for it.
    assert flightbag("gc", twice.store).status == 0
    done = flightbag("gc", twice.store, "--grace", "0s", "--keep-last", "1", "--json").json
    assert done["collected"] > 3
    assert twice.built(twice.write_mission("right", bbox=RIGHT))["outcome"] == "built"
    assert twice.verify().status == 0


def test_a_store_without_pins_and_events_says_so(tmp_path: Path) -> None:
    assert flightbag("init", tmp_path / "new").status == 0
    assert flightbag("pin", tmp_path / "new").out == "no pins\n"
    assert flightbag("log", tmp_path / "new").out == "no events\n"
