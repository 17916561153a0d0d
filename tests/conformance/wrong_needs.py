"""Well signed and wrong: engines and indexes that the aircraft's libraries cannot load, and classes that cannot be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from store.errors import Corrupt, Invalid
from store.format.entries import sorted_table
from store.format.release import Approval
from store.ground.releases import drafted
from store.takeoff.mission import Binding
from store.takeoff.verify import verify_mission
from tests.conformance.wrong import wrong
from tests.support.commands import Ran, flightbag
from tests.support.field import Desk, make_desk
from tests.support.missions import CONTENTS, METAS, NOW, entry, evidence_of, flight, pinned

MISSION = "flown"


def _desk(folder: Path, opset: int, ir: int, **mission: Any) -> tuple[Desk, Path]:
    """A desk with a backbone of this opset and IR version, and its mission file."""
    desk = make_desk(folder)
    network = onnx.load(folder / "embedder.onnx")
    network = network if opset == 17 else version_converter.convert_version(network, opset)
    network.ir_version = ir
    onnx.save(network, folder / "embedder.onnx")
    return desk, desk.write_mission(MISSION, **mission)


def _verdict(ran: Ran) -> str:
    """What `verify` answers: GO with what of the libraries is not judged, NO-GO with the kinds, or the refusal."""
    if "missions" not in ran.json:
        return f"refused: {ran.json['error']['message']}"
    (one,) = ran.json["missions"]
    kinds = ", ".join(sorted({finding["kind"] for finding in ran.json["findings"]}))
    unjudged = [re.sub(r"engines/\S+", "its engine", text) for text in one["not_judged"] if "names no version" in text]
    return (f"GO, not judged: {'; '.join(unjudged)}" if unjudged else "GO") if one["go"] else f"NO-GO {kinds}"


def _flown(folder: Path, aboard: str | None, opset: int, ir: int, **mission: Any) -> str:
    """The answer to a mission built here, for an aircraft of this class; why it is not built, where it is not."""
    desk, file = _desk(folder, opset, ir, **mission)
    built = desk.build(file)
    if built.status:
        report = json.loads(built.out) if built.out else {}
        return f"build refused: {report.get('error', {}).get('message', built.err)}"
    return _verdict(desk.verify(None, *(("--host", aboard) if aboard else ())))


@wrong("host", "an opset-25 model for an aircraft with ONNX Runtime 1.22", before="GO", now="NO-GO wrong-host")
def newer_opset_than_the_aircraft_loads(folder: Path) -> str:
    return _flown(folder, "cpu-x86_64-avx2+ort-1.22.0", 25, 10)


@wrong("host", "the same, and an aircraft with 1.32", before="GO", now="GO")
def an_aircraft_that_loads_it(folder: Path) -> str:
    return _flown(folder, "cpu-x86_64-avx2+ort-1.32.0", 25, 10)


@wrong(
    "host",
    "an opset-22 model for 1.24, which takes the opset and has no kernel for it",
    before="GO",
    now="NO-GO wrong-host",
)
def opset_without_a_kernel(folder: Path) -> str:
    return _flown(folder, "cpu-x86_64-avx2+ort-1.24.1", 22, 10)


@wrong("host", "a model of IR version 11 for an aircraft with 1.22", before="GO", now="NO-GO wrong-host")
def newer_ir_than_the_aircraft_loads(folder: Path) -> str:
    return _flown(folder, "cpu-x86_64-avx2+ort-1.22.0", 17, 11)


@wrong("host", "an engine for 1.10 and later on an aircraft with 1.9", before="GO", now="NO-GO wrong-host")
def versions_are_numbers(folder: Path) -> str:
    return _read("cpu-x86_64-avx2+ort-1.9.0", {"engines/net/net.onnx": "cpu+ort>=1.10"})


@wrong(
    "host",
    "an opset-25 model, and a class that names no ONNX Runtime",
    before="GO",
    now="GO, not judged: ONNX Runtime: its engine needs at least 1.25, and the host class cpu-x86_64 names no version",
)
def a_class_that_names_no_library(folder: Path) -> str:
    return _flown(folder, "cpu-x86_64", 25, 10)


@wrong(
    "host",
    "an opset-25 model and a target with 1.22",
    before="built and GO",
    now="build refused: the engine of embedder needs ort>=1.24; 1.24 came with ai.onnx/25",
)
def a_target_that_cannot_load_what_is_built(folder: Path) -> str:
    answer = _flown(folder, None, 25, 10, host="cpu-x86_64+ort-1.22.0")
    subject, _, rest = answer.partition(", the target is cpu-x86_64+ort-1.22.0; ")
    before, _, said = subject.partition(": ")
    return f"{before}: {said[said.index('the engine') :]}; {rest.partition(';')[0].strip()}"


@wrong("host", "an index for an aircraft with FAISS 1.9", before="GO", now="NO-GO wrong-host")
def an_index_for_an_older_faiss(folder: Path) -> str:
    more = '[[indexes]]\nname = "graph"\nset = "embedder"\nmethod = "hnsw"\n'
    return _flown(folder, "cpu-x86_64-avx2+faiss-1.9.0+ort-1.32.0", 17, 8, more=more)


@wrong(
    "host",
    "a version-compatible TensorRT engine of a newer library than the aircraft's",
    before="GO",
    now="NO-GO wrong-host",
)
def a_newer_plan_than_the_library(folder: Path) -> str:
    need = "linux-aarch64+sm87+trt10+trt>=10.16.1.11"
    have = "linux-aarch64+sm87-orin-16sm-64gb+trt10-10.3.0.30"
    return _read(have, {"engines/net/net.onnx": need}, host="linux-aarch64+sm87+trt10")


@wrong("host", "an aircraft whose class has two versions of one library", before="enrolled", now="refused")
def two_versions_of_one_library(folder: Path) -> str:
    return _enrolled(folder, "cpu-x86_64+ort-1.22.0+ort-1.32.0")


@wrong("host", "a release for 1.22 that approves an engine for 1.24", before="drafted", now="refused")
def a_release_for_a_host_that_cannot_load_it(folder: Path) -> str:
    one = entry("engines/net/net.onnx", b"engine", meta={**METAS["engine"], "host": "cpu+ort>=1.24"})
    try:
        drafted("winter", "cpu-x86_64+ort-1.22.0", [Approval.of(one)], now=NOW)
    except Invalid:
        return "refused"
    return "drafted"


@wrong(
    "host",
    '`host = "cpu-arm"` in the mission file',
    before="built and published",
    now="refused: the nearest is cpu-aarch64",
)
def an_architecture_that_is_none(folder: Path) -> str:
    desk, file = _desk(folder, 17, 8, host="cpu-arm")
    ran = desk.build(file)
    text = ran.out + ran.err
    return "built" if not ran.status else f"refused: {text[text.index('the nearest is') :][:26]}"


@wrong("host", "`enrol --host banana`", before="enrolled", now="refused")
def a_fruit(folder: Path) -> str:
    return _enrolled(folder, "banana")


@wrong(
    "host",
    "`verify --host cpu-x86-64`",
    before="NO-GO wrong-host",
    now="refused: 'cpu-x86-64' is not a component of a host class; the nearest is cpu-x86_64",
)
def a_hyphen_for_an_underscore(folder: Path) -> str:
    desk, file = _desk(folder, 17, 8)
    desk.built(file)
    return _verdict(desk.verify(None, "--host", "cpu-x86-64"))


@wrong("host", "a mission to be signed for the class `gpu-orin`", before="GO", now="refused: bad-field")
def a_signed_mission_for_no_class(folder: Path) -> str:
    try:
        return _read("gpu-orin", {}, host="gpu-orin")
    except Corrupt as error:  # it cannot even be written
        return f"refused: {error.kind}"


def _enrolled(folder: Path, host: str) -> str:
    desk = make_desk(folder)
    ran = flightbag(
        "aircraft", "enrol", "--state", folder / "state", "--id", "uav-07", "--host", host, "--trust", desk.root
    )  # fmt: skip
    return "refused" if ran.status else "enrolled"


def _read(have: str, needs: Mapping[str, str], host: str = "cpu-x86_64") -> str:
    """The takeoff check of a signed mission with these needs, for an aircraft of this class."""
    rows = [entry(name, data) for name, data in CONTENTS.items()]
    rows = [
        replace(row, meta={**row.meta, "host": needs.get(row.name, host)}) if "host" in row.meta else row
        for row in rows
    ]
    one = flight(table=sorted_table(rows), hosts=(host,))
    verdict = verify_mission(evidence_of(one), one.id, pinned(), Binding(NOW, "uav-07", have))
    return "GO" if verdict.go else "NO-GO " + ", ".join(sorted({finding.kind for finding in verdict.findings}))
