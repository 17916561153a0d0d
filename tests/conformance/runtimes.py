"""What each minor version of ONNX Runtime loads, what it refuses, and whether the verdict agrees.

    python -m tests.conformance.runtimes [VERSION …]     prints a table, a row for each version

The networks are the tests of every ONNX operator that the package onnx holds, each optimised as a portable engine is;
one that the newest library refuses is no engine, and left out. For each version, `loads` and `refused` count what its
library does with them in an environment of its own. `wrong GO` are engines that the library refuses though a host of
this version meets their need, `wrong NO-GO` those that it loads though it does not: the first must be 0, the second is
the price of not knowing. The last columns are missions with the networks of three opsets: what the takeoff check with
the class of that machine answers, and whether the onboard code opens the engine there, runs the probe and searches.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from builders.engines.model import parse_onnx
from builders.engines.onnxruntime_needs import features, least_version
from builders.engines.session import open_session
from builders.extras import import_onnxruntime
from store.errors import FlightbagError
from store.format.host import fit, with_least
from tests.support import runtimes
from tests.support.field import Desk, make_desk

# Missions with a network of each opset and IR version. The second loads from 1.25 on, though 1.21 takes its opset:
# the kernel of LpNormalization came later.
MISSIONS: Mapping[str, tuple[int, int]] = {"opset-17": (17, 8), "opset-22": (22, 10), "opset-25": (25, 10)}


def needs(networks: Mapping[str, bytes], folder: Path) -> dict[Path, str]:
    """Return the need of each portable engine that the library makes of these networks, by the file of the engine."""
    found = {}
    for name, network in networks.items():
        path = folder / f"{name}.onnx"
        try:
            open_session(network, "extended", save_as=path)
        except FlightbagError:
            path.unlink(missing_ok=True)
            continue
        wanted = features(parse_onnx(path.read_bytes(), name))
        found[path] = with_least("cpu", "ort", least_version(wanted, runtimes.installed()).version)
    return found


def verdict(version: str, need: str) -> bool:
    """Whether the takeoff check lets an aircraft with this version of the library fly an engine with this need."""
    return fit(f"cpu-x86_64+ort-{version}", need).holds


def operators() -> dict[str, bytes]:
    """The test of every operator, by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return {case.name: case.model.SerializeToString() for case in collect_testcases(None)}


def missions(folder: Path) -> Desk:
    """A desk with a built mission for each of MISSIONS."""
    desk = make_desk(folder)
    network = onnx.load(folder / "embedder.onnx")
    for name, (opset, ir) in MISSIONS.items():
        converted = network if opset == 17 else version_converter.convert_version(network, opset)
        converted.ir_version = ir
        onnx.save(converted, folder / f"{name}.onnx")
        desk.built(desk.write_mission(name, model=Path(f"{name}.onnx"), flight=name))
    return desk


def aboard(version: str, desk: Desk, mission: str) -> dict[str, Any]:
    """What `runtime_probe` finds of a mission in the environment of this version."""
    arguments = (str(desk.store), str(desk.root), mission, "embedder")
    found: dict[str, Any] = json.loads(runtimes.python(version, "-m", "tests.support.runtime_probe", *arguments))
    return found


def row(version: str, engines: Mapping[Path, str], desk: Desk) -> tuple[list[object], int]:
    """Return a row of the table, and the number of wrong GOs."""
    errors = runtimes.loads(version, [*engines])
    go = [verdict(version, need) for need in engines.values()]
    wrong_go = sum(ok and bool(error) for ok, error in zip(go, errors, strict=True))
    wrong_no_go = sum(not ok and not error for ok, error in zip(go, errors, strict=True))
    cells: list[object] = [version, sum(not one for one in errors), sum(map(bool, errors)), wrong_go, wrong_no_go]
    for mission in MISSIONS:
        found = aboard(version, desk, mission)
        wrong_go += found["go"] and not found.get("holds", False)
        answer = "GO" if found["go"] else "NO-GO " + ", ".join(found["kinds"])
        cells.append(f"{answer}; {'probe holds' if found.get('holds') else 'refused: ' + found['kind']}")
    return cells, wrong_go


def main(versions: Sequence[str]) -> int:
    import_onnxruntime().set_default_logger_severity(4)
    wrong = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        (folder := Path(name) / "engines").mkdir()
        (desk_folder := Path(name) / "desk").mkdir()
        engines, desk = needs(operators(), folder), missions(desk_folder)
        print(f"{len(engines)} engines of the tests of operators, made by {runtimes.installed()}\n")
        print("| ONNX Runtime | loads | refused | wrong GO | wrong NO-GO |", " | ".join(MISSIONS), "|")
        print("|" + " --- |" * (5 + len(MISSIONS)))
        for version in versions or runtimes.FIRST:
            if why := runtimes.environment(version)[1]:
                print(f"| {version} | {why} |")
                wrong += 1
                continue
            cells, here = row(version, engines, desk)
            wrong += here
            print("|", " | ".join(map(str, cells)), "|", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
