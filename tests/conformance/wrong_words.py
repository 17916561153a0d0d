"""Words that lead a crew astray: a verdict on what was not read, a remedy that is not theirs, a name that paints.

Each case makes a store as a build does, changes what it is about, and runs the program as a crew would. The verdict is
the exit status and what the output comes down to.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.conformance.wrong import wrong
from tests.support.commands import BIN, Ran, flightbag
from tests.support.missions import ROOT, sign_root
from tests.support.stores import CAMERA, NORTH, REPOSITORY_ROOT, ROOT_FILE, file_of, flip, make_store

# A window title, a cleared screen, a forged line, a reversed order, something invisible.
EVIL = "x\x1b]0;GO\x07\x1b[2J\nGO  north-ridge\u202eOG\u2066\u200b\u3164\x9b31m"


def store_on_a_stick(folder: Path) -> Path:
    (folder / "stick").mkdir()
    (folder / "pinned.root.cbor").write_bytes(ROOT_FILE)
    return make_store(folder / "stick" / "store", NORTH)


def audited(store: Path, *more: str) -> str:
    """The status of an audit, what it calls mission and store, and whether it says how to read what it did not."""
    flip(file_of(store, NORTH.entry(CAMERA).id))
    ran = flightbag("fsck", store, *more)
    lines = ran.out.splitlines()
    (mission,) = (re.split(r" {2,}", line)[1] for line in lines if line.startswith(f"{NORTH.id}  "))
    state = next(line.split(":")[0] for line in lines if "read in full" in line)
    return f"{ran.status}: mission {mission}, store {state}" + (", read with --full" if "--full" in lines[-1] else "")


@wrong(
    "words",
    "a flipped bit, and an audit that reads no object",
    before="0: mission flyable, store clean",
    now="0: mission complete, not read, store complete, not read, read with --full",
)
def flipped_bit_and_a_quick_audit(folder: Path) -> str:
    return audited(store_on_a_stick(folder))


@wrong(
    "words",
    "a flipped bit, and a repair that reads no object",
    before="0: mission flyable, store clean",
    now="0: mission complete, not read, store complete, not read, read with --full",
)
def flipped_bit_and_a_quick_repair(folder: Path) -> str:
    return audited(store_on_a_stick(folder), "--repair")


@wrong(
    "words",
    "a flipped bit, and an audit of one object (it reads another one)",
    before="0: mission flyable, store clean",
    now="0: mission complete, not read, store complete, partly read, read with --full",
)
def flipped_bit_and_a_sample(folder: Path) -> str:
    store = store_on_a_stick(folder)
    for number in range(100):  # a sample is random: until it is one that does not have the flipped object
        shutil.copytree(store, copy := folder / f"copy-{number}")
        verdict = audited(copy, "--sample", "1%")
        if not verdict.startswith("4"):
            return verdict
    raise AssertionError("a hundred samples of one in six objects were all the same one")


@wrong(
    "words",
    "a flipped bit, and an audit of every byte",
    before="4: mission GROUNDED, store errors",
    now="4: mission GROUNDED, store errors",
)
def flipped_bit_and_a_full_audit(folder: Path) -> str:
    return audited(store_on_a_stick(folder), "--full")


def led_to(ran: Ran, *words: str) -> str:
    """The status, the kind of a finding, and the first of the words that the message or the remedy has."""
    kind = next(iter(re.findall(r"^  [A-G], [a-z ]+: (\S+)", ran.out, re.MULTILINE)), "")
    text = ran.out + ran.err
    return ": ".join(part for part in (str(ran.status), kind, next((w for w in words if w in text), text)) if part)


def verified(folder: Path, store: str, *, root: str = "pinned.root.cbor") -> Ran:
    return flightbag("verify", folder / store, "--trust", folder / root)


@wrong(
    "words",
    "the pinned root of another trust domain, of the same name and keys",
    before="1: bad-signature: build and sign the mission again",
    now="1: bad-signature: the store is of the trust domain",
)
def root_of_another_domain(folder: Path) -> str:
    store_on_a_stick(folder)
    (folder / "other.root.cbor").write_bytes(sign_root(replace(ROOT, salt=bytes(16)), "root-a"))
    ran = verified(folder, "stick/store", root="other.root.cbor")
    assert ran.out.count(f'"{ROOT.domain}" (code ') == 2, "two domains of one name: their codes tell them apart"
    return led_to(ran, "the store is of the trust domain", "build and sign the mission again")


@wrong("words", "the folder above a store", before="1: flightbag init", now="3: give STICK/store")
def folder_above_a_store(folder: Path) -> str:
    store = store_on_a_stick(folder)
    return led_to(verified(folder, "stick"), f"give {store}", "flightbag init").replace(str(store.parent), "STICK")


@wrong("words", "a medium that is not mounted", before="1: does not exist", now="3: mount it")
def medium_that_is_not_mounted(folder: Path) -> str:
    store_on_a_stick(folder)
    (folder / "mount-point").mkdir()
    return led_to(verified(folder, "mount-point/store"), "mount it", "does not exist")


@wrong("words", "a checkout where a store belongs", before="1: flightbag init", now="3: flightbag checkout --check")
def checkout_instead_of_a_store(folder: Path) -> str:
    (folder / "plain" / ".flightbag").mkdir(parents=True)
    (folder / "pinned.root.cbor").write_bytes(ROOT_FILE)
    return led_to(verified(folder, "plain"), "flightbag checkout --check", "flightbag init")


@wrong(
    "words",
    "a mission id with a slip of the pen",
    before="1: missing: check the mission id",
    now="1: missing: give north-ridge",
)
def mission_with_a_slip_of_the_pen(folder: Path) -> str:
    store = store_on_a_stick(folder)
    return led_to(
        flightbag("verify", store, "nort-ridge", "--trust", folder / "pinned.root.cbor"),
        "give north-ridge",
        "check the mission id",
    )


@wrong(
    "words",
    "stores that cannot be opened: absent, a file, torn, of another format",
    before="1 1 1 2, store-fsck 8 8 8 8",
    now="3 3 3 3, store-fsck 8 8 8 8",
)
def stores_that_cannot_be_opened(folder: Path) -> str:
    store = store_on_a_stick(folder)
    (folder / "file").write_bytes(b"")
    for name, change in (("torn", lambda text: text[:9]), ("newer", lambda text: text.replace("= 1", "= 2"))):
        shutil.copytree(store, folder / name)
        toml = folder / name / "flightbag.toml"
        toml.write_text(change(toml.read_text()))
    stores = ("absent", "file", "torn", "newer")
    statuses = [str(verified(folder, name).status) for name in stores]
    audits = [str(flightbag("fsck", folder / name).status) for name in stores]
    return f"{' '.join(statuses)}, store-fsck {' '.join(audits)}"


def shown(*command: object, **environment: str) -> str:
    """What the output of a program holds that a terminal would act on, or a line that the program did not begin."""
    ran = subprocess.run(
        [*map(os.fsencode, map(str, command))], capture_output=True, timeout=60, env={**os.environ, **environment}
    )
    text = (ran.stdout + ran.stderr).decode("utf-8", "surrogateescape")
    acted_on = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") or c == "\u3164"} - {"\n"}
    forged = [line for line in text.splitlines() if line.startswith("GO")]
    names = {"\x1b": "escape", "\x07": "bell", "\u202e": "bidi", "\u2066": "bidi", "\u200b": "invisible"}
    names |= {"\u3164": "invisible", "\x9b": "C1"}
    found = sorted({names.get(c, "control") for c in acted_on}) + (["a forged line"] if forged else [])
    return ", ".join(found) or "only what shows"


@wrong("words", "an argument that a shell made of a file name", before="bidi, invisible", now="only what shows")
def argument_of_a_file_name(folder: Path) -> str:
    return shown(BIN / "flightbag", "ls", folder, EVIL)


@wrong("words", "file names on a medium: escapes, bidi marks, newlines", before="invisible", now="only what shows")
def file_names_on_a_medium(folder: Path) -> str:
    store = store_on_a_stick(folder)
    for place in ("", "objects", "missions", "trust", "tmp"):
        (store / place).mkdir(exist_ok=True)
        (store / place / EVIL).write_bytes(b"")
    return shown(BIN / "store-fsck", store)


@wrong(
    "words", "a warning and a log line of a library", before="C1, bell, bidi, escape, invisible", now="only what shows"
)
def words_of_a_library(folder: Path) -> str:
    code = (
        "import logging, sys, warnings; from tools.streams import open_streams, flush_streams; open_streams(); "
        f"evil = {EVIL!r}.replace(chr(10), ''); warnings.warn(evil); "
        "logging.getLogger('rasterio._env').error(evil); flush_streams()"
    )
    return shown(sys.executable, "-c", code, PYTHONPATH=str(REPOSITORY_ROOT))


@wrong(
    "words",
    "a network whose names paint, opened as it is aboard",
    before="bidi, escape",
    now="only what shows",
)
def names_in_a_network(folder: Path) -> str:
    name = "\x1b[2J\x1b[32mGO\u202e"
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    unused = numpy_helper.from_array(np.zeros(1, np.float32), name)  # ONNX Runtime warns of it
    node = helper.make_node("Relu", ["x"], ["y"], name=name)
    graph = helper.make_graph(
        [node], "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], [unused]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    code = (
        "import sys; from pathlib import Path; from tools.streams import open_streams; open_streams(); "
        "from builders.engines.session import open_session; open_session(Path(sys.argv[1]).read_bytes(), 'all')"
    )
    return shown(sys.executable, "-c", code, folder / "net.onnx", PYTHONPATH=str(REPOSITORY_ROOT))
