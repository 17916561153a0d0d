"""The commands: statuses, messages, JSON, and what works without the extras."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders.engines.onnxruntime import cpu_host
from store.format.missing import ENTRY, MissingList, Run
from tests.support.commands import BIN, flightbag, program, too_wide
from tests.support.every_command import STORE_FSCK, USES, commands, every_command, use
from tests.support.field import Desk
from tests.support.missions import CONTENTS, COVERAGE, flight, write_store
from tools.start import app


def test_every_command_has_a_use() -> None:
    assert set(USES) == every_command()


@pytest.mark.parametrize("name", USES)
def test_every_command_does_its_work(equipped: Desk, name: str) -> None:
    ran = use(name, equipped)
    assert (ran.status, ran.err) == (0, ""), ran.out
    assert ran.out
    assert USES[name].is_done(equipped)
    if name != "completion":  # for a shell
        assert too_wide(ran) == []


@pytest.mark.parametrize("name", sorted(set(USES) - {STORE_FSCK}))
def test_every_command_has_help_with_an_example(name: str) -> None:
    command: Any = dict(commands(app))[name]
    assert f"Example: flightbag {name}" in command.help
    for parameter in command.params:
        assert parameter.help, f"{name}: {parameter.name} has no help"
    ran = flightbag(*name.split(), "--help", env={"COLUMNS": "80"})
    assert ran.status == 0
    assert "--json" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_program_says_its_version() -> None:
    ran = flightbag("--version")
    assert (ran.status, ran.out.split()[0]) == (0, "flightbag")


def test_init_makes_a_store_once(tmp_path: Path) -> None:
    assert flightbag("init", tmp_path / "store").status == 0
    assert flightbag("init", tmp_path / "store").status == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    assert flightbag("init", tmp_path / "full").status == 2
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_statuses_of_what_is_not_there(desk: Desk) -> None:
    assert flightbag("show", desk.store, "nobody").status == 1
    assert desk.verify(None, "nobody").status == 1
    assert flightbag("verify", desk.store, "--trust", desk.root).status == 1, "no mission is no GO"
    assert flightbag("verify", desk.store).status == 2
    assert flightbag("nonsense").status == 2
    assert flightbag("fsck", desk.folder / "nowhere").status == 8
    assert flightbag("fsck", desk.store, "--quick", "--full").status == 16
    for program_ in (("store-fsck",), ("flightbag", "fsck")):
        assert program(*program_, "--nonsense").status == 16, "also where click ends the program"


def test_a_store_that_cannot_be_opened_is_no_answer(equipped: Desk) -> None:
    """For every command that takes a store: 3, could not look, and never 1, which is NO-GO."""
    store = str(equipped.store)
    uses = {name: [str(arg) for arg in one.args(equipped)] for name, one in USES.items()}
    uses = {name: args for name, args in uses.items() if store in args and name not in ("init", STORE_FSCK)}
    assert len(uses) > 20
    for name, args in uses.items():
        for wrong in (equipped.folder, equipped.folder / "nowhere", equipped.key):
            if name == "trust show" and wrong != equipped.folder:
                continue  # it also takes a file
            ran = flightbag(*(str(wrong) if arg == store else arg for arg in args))
            assert (ran.status, "\n  -> " in ran.err) == (8 if name == "fsck" else 3, True), (name, wrong, ran)
    ran = flightbag("ls", equipped.folder, "--json")
    assert (ran.status, ran.json["error"]["kind"]) == (3, "no-store")
    assert store in ran.json["error"]["remedy"]


def test_the_environment_may_name_the_store(built: Desk) -> None:
    env = {"FLIGHTBAG_STORE": str(built.store)}
    assert flightbag("ls", "--json", env=env).json["missions"][0]["mission"] == "left"
    assert flightbag("show", "left", "--json", env=env).json["mission"]["id"] == "left"
    assert flightbag("verify", "--trust", built.root, env=env).status == 0
    assert flightbag("verify", "left", "--trust", built.root, env=env).status == 0
    assert flightbag("fsck", env=env).status == 0
    assert flightbag("plan", built.folder / "left.toml", env=env).status == 0


def test_show_and_ls_tell_the_mission(built: Desk) -> None:
    shown = flightbag("show", built.store, "left", "--json").json
    assert shown["mission"]["takeoff"] == [470201000, -991602000, 480000]
    assert {e["kind"] for e in shown["entries"]} == {"engine", "card", "descriptors", "file", "probe"}
    people = flightbag("show", built.store, "left").out
    assert "47.0201, -99.1602, 480 m" in people
    assert all(entry["name"] in people for entry in shown["entries"])
    assert "left" in flightbag("ls", built.store).out


def test_errors_are_json_too(desk: Desk) -> None:
    ran = flightbag("show", desk.store, "nobody", "--json")
    assert ran.json["error"]["message"]
    mission = desk.write_mission("left", takeoff=(10.0, 10.0))
    ran = desk.build(mission)
    assert ran.status == 2
    assert "takeoff" in ran.json["error"]["message"]
    assert "left.toml" in ran.json["error"]["message"]


def test_a_backend_that_is_not_installed_is_said_with_status_3(desk: Desk) -> None:
    mission = desk.write_mission("left")
    mission.write_text(mission.read_text().replace('"onnxruntime"', '"tensorrt"'))
    ran = desk.build(mission)
    assert ran.status == 3
    assert "TensorRT is not installed" in ran.json["error"]["message"]


ABSENT = ("numpy", "onnx", "onnxruntime", "PIL", "faiss", "tensorrt", "pydantic")


def without_extras(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process in which none of the extras can be imported."""
    block = f"import sys\nfor name in {ABSENT!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + code, *map(str, args)], capture_output=True, text=True, timeout=120
    )


def test_store_imports_neither_lmdb_nor_numpy() -> None:
    done = without_extras("import store; print([m for m in ('lmdb', 'filelock', 'click') if m in sys.modules])")
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_verify_and_fsck_work_without_the_extras(built: Desk) -> None:
    done = without_extras("from tools.start import main; main()", "verify", built.store, "--trust", built.root)
    assert done.returncode == 0, done.stderr
    assert "\nGO  left" in done.stdout
    done = without_extras("from tools.fsck import main; main()", built.store, "--full")
    assert done.returncode == 0, done.stderr
    done = without_extras("from tools.start import main; main()", "sync", built.store, built.folder / "aircraft")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", ["build", "plan"])
def test_building_without_the_extra_says_which(built: Desk, what: str) -> None:
    key = ("--key", built.key) if what == "build" else ()
    done = without_extras(
        "from tools.start import main; main()", what, built.folder / "left.toml", "--store", built.store, *key
    )
    assert done.returncode == 3
    assert "[build]" in done.stderr


def test_probing_needs_less_than_building(built: Desk) -> None:
    done = without_extras("from tools.start import main; main()", "probe", built.store, "left", "--trust", built.root)
    assert done.returncode == 3
    assert "[onboard]" in done.stderr


def test_an_aircraft_with_the_base_install_names_its_class() -> None:
    done = without_extras("from tools.start import main; main()", "engines", "host", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["host"] == cpu_host()
    assert all("not installed" in one["error"] for one in answer["backends"].values())


def test_an_aircraft_with_the_base_install_is_looked_at() -> None:
    """The libraries are looked at by processes of their own, in which nothing is blocked."""
    done = without_extras("import builders.doctor, builders.libraries as one\nprint(one.answer('onnxruntime'))")
    assert done.returncode == 0, done.stderr
    assert "needs onnxruntime, which is not installed" in done.stdout
    assert "'absent': True" in done.stdout


def test_cards_are_read_with_the_base_install(built: Desk) -> None:
    show = ("engines", "show", built.store)
    done = without_extras("from tools.start import main; main()", *show, "left", "--json")
    assert done.returncode == 0, done.stderr
    [card] = json.loads(done.stdout)["cards"]
    done = without_extras("from tools.start import main; main()", *show, card["key"], "--json")
    assert json.loads(done.stdout)["cards"] == [{**card, "entry": None}]


def test_the_embedders_api(built: Desk) -> None:
    """What docs/onboard.md shows: verify, then load what was verified, with nothing but the base install."""
    code = """
import store, json
from pathlib import Path
verdict = store.takeoff_check(sys.argv[1], "left", trust=Path(sys.argv[2]).read_bytes(), now=1_800_000_000)
mission = verdict.mission
name = next(e.name for e in mission.table.entries if e.kind == "engine")
engine = store.load(mission, name, kind="engine")
print(json.dumps([mission.facts.flight, len(engine)]))
"""
    done = without_extras(code, built.store, built.root)
    assert done.returncode == 0, done.stderr
    flight, size = json.loads(done.stdout)
    assert flight == "2026-11-23-01"
    assert size > 1000


PAINT = "\x1b[2J\x1b[HGO  left\x07"


def test_a_hostile_store_paints_nothing_on_the_terminal(built: Desk) -> None:
    """No byte from a store reaches the terminal as a control character, in whatever message it is told."""
    toml = (built.store / "flightbag.toml").read_text()
    escaped = PAINT.encode("unicode_escape").decode().replace("\\x", "\\u00")
    (built.store / "flightbag.toml").write_text(toml.replace("format = 1", f'format = "{escaped}"'))
    (built.store / PAINT.replace("/", "")).write_text("")
    ran = [flightbag("verify", built.store, "--trust", built.root), flightbag("ls", built.store)]
    (built.store / "flightbag.toml").write_text(toml)
    ran += [flightbag("fsck", built.store), flightbag("show", built.store, PAINT)]
    for one in ran:
        assert one.status != 0
        assert "\x1b" not in one.out + one.err
        assert "\x07" not in one.out + one.err


def test_show_refuses_a_list_of_missing_tiles_with_another_total_than_the_signed_one(tmp_path: Path) -> None:
    listed = MissingList((Run(5000, 2, "absent"),)).render()
    coverage = replace(COVERAGE, missing=1, required_ppm=900_000)
    write_store(tmp_path / "store", flight({**CONTENTS, ENTRY: listed}, coverage=coverage))
    for options in ((), ("--json",)):
        ran = flightbag("show", tmp_path / "store", "north-ridge", *options)
        assert (ran.status, "lists 2 missing tiles, the manifest signs 1" in ran.err) == (1, True)


def test_what_does_not_fit_the_model_is_told_before_anything_is_built(desk: Desk) -> None:
    mission = desk.write_mission("left")
    text = mission.read_text()
    for change, key in (
        (text.replace('output = "descriptor"', 'output = "desc"'), "descriptors[0]"),
        (text.replace("resize = [64, 64]", "resize = [32, 32]"), "descriptors[0]"),
        (text.replace('host = "auto"', 'host = "gpu-sm87"'), "target.host"),
    ):
        mission.write_text(change)
        for ran in (flightbag("plan", mission, "--store", desk.store, "--json"), desk.build(mission)):
            assert ran.status == 2
            assert f"{mission}: {key}" in ran.json["error"]["message"]
    assert not list((desk.store / "objects").iterdir())


def test_two_sets_alike_are_embedded_once(desk: Desk) -> None:
    mission = desk.write_mission("left")
    text = mission.read_text()
    start = text.index("[[descriptors]]")
    block = text[start : text.index("[[files]]")]
    mission.write_text(text.replace(block, block + block.replace('name = "embedder"', 'name = "second"')))
    report = desk.built(mission)
    for name in [a["name"] for a in report["artifacts"] if a["name"].startswith("descriptors/embedder/")]:
        pair = [a for a in report["artifacts"] if a["name"] in (name, name.replace("/embedder/", "/second/"))]
        assert sorted(a["action"] for a in pair) == ["built", "reused"]
        assert len({a["id"] for a in pair}) == 1
    assert desk.verify().status == 0


def at_a_terminal(*args: object) -> tuple[int, str, str]:
    """(status, standard output, standard error) of a program whose standard error is a terminal and whose output is
    a pipe, as in `flightbag ... --json | jq` at a desk."""
    master, slave = pty.openpty()
    process = subprocess.Popen([BIN / str(args[0]), *map(str, args[1:])], stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # how a terminal says that nobody writes to it any more
        pass
    out, _ = process.communicate(timeout=60)
    os.close(master)
    return process.returncode, out.decode(), shown.decode()


def test_progress_is_shown_at_a_terminal_and_leaves_the_output_alone(built: Desk) -> None:
    mission = built.folder / "left.toml"
    aircraft = built.folder / "aircraft"
    for what, args in {
        "reading tiles": ("flightbag", "build", mission, "--store", built.store, "--key", built.key, "--json"),
        "copying": ("flightbag", "sync", built.store, aircraft, "--json"),
        "verifying": ("flightbag", "verify", built.store, "--trust", built.root, "--json"),
        "reading": ("store-fsck", built.store, "--full", "--json"),
    }.items():
        status, out, shown = at_a_terminal(*args)
        assert status == 0, shown
        assert json.loads(out)["ok"]
        assert what in shown
        assert "{" not in shown
