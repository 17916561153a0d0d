"""The process that reads foreign bytes and runs networks: its bounds, its end, and what it is not given.

Each test runs the real program, or the real function, with the real process.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import build
from builders.crossing import from_json, to_json
from builders.engines import isolation
from builders.report import BuildReport
from store.errors import Corrupt, Refused
from store.format.area import Area
from store.format.manifest import Manifest, Unproven
from store.trust.keys import PrivateKey
from tests.support.commands import BIN, Ran, flightbag
from tests.support.field import LEFT, RIGHT, Desk
from tests.support.traps import write_endless, write_huge

DRILL = "FLIGHTBAG_DRILL" in os.environ
pytestmark = pytest.mark.confined
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
# The time that a program may take to end when it is asked to, on a busy machine: far below the hour of a trap.
PROMPT_S = 60


def small(desk: Desk, more: str = "", **changes: object) -> Path:
    return desk.write_mission("left", zooms=(14,), files=(), more=more, **changes)


def at_start(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run this code in each worker when its interpreter starts."""
    first = folder / "first"
    first.mkdir()
    (first / "sitecustomize.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(first), *sys.path])


def workers(desk: Desk) -> list[int]:
    """The processes that work for the store of this desk, beside the program itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, state = (entry / "cmdline").read_bytes(), (entry / "status").read_bytes()
                request = [one for one in command.split(b"\0") if one.endswith(b"request.json")]
                text = Path(os.fsdecode(request[0])).read_bytes() if request else b""
            except OSError:
                continue
            if b"builders.confined" in command and os.fsencode(desk.folder) in text and b"\nState:\tZ" not in state:
                found.append(int(entry.name))
    return found


def wait_for(condition: Callable[[], object], what: str) -> None:
    for _ in range(PROMPT_S * 20):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(what)


@contextmanager
def started(desk: Desk, mission: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`flightbag build` in a process group of its own, in which a terminal would send SIGINT; killed at the end."""
    command = [BIN / "flightbag", "build", mission, "--store", desk.store, "--key", desk.key, "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    ) as program:
        try:
            yield program
        finally:
            program.kill()  # only what hangs is still there


def is_running_the_network(pid: int) -> bool:
    return b"onnxruntime_pybind11_state" in Path(f"/proc/{pid}/maps").read_bytes()


def is_as_before(desk: Desk) -> None:
    """Nothing goes on, nothing is locked, nothing is published, and the store is whole."""
    wait_for(lambda: not workers(desk), "a worker goes on")
    assert flightbag("ls", desk.store, "--json").json["missions"] == []
    assert flightbag("fsck", desk.store, "--full").status == 0
    from builders.example.backbone import write_backbone

    write_backbone(desk.folder / "embedder.onnx")
    assert desk.built(small(desk))["outcome"] == "built"


# -- time


@LINUX
@pytest.mark.parametrize(
    ("command", "only_on_tiles"),
    [("build", True), ("plan", False), *([("build", False), ("plan", True)] if DRILL else [])],
)
def test_a_model_without_an_end_is_bounded_by_timeout_s(desk: Desk, command: str, only_on_tiles: bool) -> None:
    write_endless(desk.folder / "embedder.onnx", only_on_tiles=only_on_tiles)
    mission = small(desk, more="[compile]\ntimeout_s = 5\n")
    if command == "plan":
        ran = flightbag("plan", mission, "--store", desk.store, "--json")
        if only_on_tiles:
            assert ran.status == 0, "a plan describes nothing"
            return
    else:
        ran = desk.build(mission)
    assert ran.status == 3
    error = ran.json["error"]
    assert error["kind"] == "timed-out"
    assert f"{desk.folder / 'embedder.onnx'}" in error["message"]
    assert "timeout_s" in error["remedy"]
    is_as_before(desk)


@LINUX
def test_a_decoder_that_hangs_is_bounded_and_its_tile_named(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine is there, so that nothing is compiled within the bound.
    assert flightbag("engines", "build", small(desk), "--store", desk.store).status == 0
    at_start(tmp_path, monkeypatch, DECODER.format("time.sleep(3600)"))
    ran = desk.build(small(desk, more="[compile]\ntimeout_s = 3\n"))
    assert (ran.status, ran.json["error"]["kind"]) == (3, "timed-out")
    assert "decoding tile 14/" in ran.json["error"]["message"]


@LINUX
@pytest.mark.parametrize(
    ("code", "doing"),
    [
        ("sqlite3.connect = hang", "opening "),
        ("mbtiles.MBTilesSource.cell = hang", "reading cell 10/"),
    ],
)
def test_a_source_that_hangs_is_bounded_and_named(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, doing: str
) -> None:
    hang = "import sqlite3, time\nimport builders.imagery.mbtiles as mbtiles\ndef hang(*_, **__): time.sleep(3600)\n"
    at_start(tmp_path, monkeypatch, hang + code)
    mission = small(desk, more="[compile]\ntimeout_s = 3\n")
    for ran in (desk.build(mission), flightbag("plan", mission, "--store", desk.store, "--json")):
        assert (ran.status, ran.json["error"]["kind"]) == (3, "timed-out")
        assert f"while it was {doing}" in ran.json["error"]["message"]
        assert ran.json["error"]["message"].endswith(str(desk.folder / "terrain.mbtiles"))


@LINUX
def test_a_model_that_does_not_end_on_calibration_tiles_is_bounded(desk: Desk) -> None:
    write_endless(desk.folder / "embedder.onnx", only_on_tiles=True)
    mission = small(desk, more="[compile]\ntimeout_s = 5\n")
    assert 'precision = "fp32"' in mission.read_text()
    mission.write_text(mission.read_text().replace('precision = "fp32"', 'precision = "int8"'))
    for words in (("build",), ("engines", "build")):
        ran = flightbag(*words, mission, "--store", desk.store, "--json")
        assert ran.status == 3
        error = ran.json["error"] if len(words) == 1 else ran.json["engines"][0]["error"]
        assert (error["kind"], "timeout_s" in error["remedy"]) == ("timed-out", True)
        assert "embedder.onnx" in error["message"]


# -- interrupts


@LINUX
@pytest.mark.parametrize("only_on_tiles", [False, True] if DRILL else [True])
def test_ctrl_c_is_heard_while_a_network_runs(desk: Desk, only_on_tiles: bool) -> None:
    write_endless(desk.folder / "embedder.onnx", only_on_tiles=only_on_tiles)
    with started(desk, small(desk)) as program:
        wait_for(lambda: any(map(is_running_the_network, workers(desk))), "no network runs")
        time.sleep(1)
        begun = time.monotonic()
        os.killpg(program.pid, signal.SIGINT)
        program.wait(PROMPT_S)
        assert time.monotonic() - begun < isolation._GRACE_S + 5
        _, err = program.communicate()
    assert program.returncode == 130, err
    assert "interrupted" in err
    is_as_before(desk)


@LINUX
@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6, 1.0, 1.5, 2.5] if DRILL else [0.3, 1.5])
def test_ctrl_c_at_any_moment_leaves_nothing_behind(desk: Desk, moment: float) -> None:
    with started(desk, small(desk)) as program:
        wait_for(lambda: workers(desk), "no worker begins")
        time.sleep(moment)
        os.killpg(program.pid, signal.SIGINT)
        _, err = program.communicate(timeout=PROMPT_S)
    assert program.returncode in (0, 130), err
    wait_for(lambda: not workers(desk), "a worker goes on")
    assert flightbag("fsck", desk.store, "--full").status == 0
    assert desk.built(small(desk))["outcome"] in ("built", "unchanged")


@LINUX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_is_ended_takes_its_worker_along(desk: Desk, tmp_path: Path, number: signal.Signals) -> None:
    write_endless(desk.folder / "embedder.onnx")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with started(desk, small(desk), env={**os.environ, "TMPDIR": str(scratch)}) as program:
        wait_for(lambda: any(map(is_running_the_network, workers(desk))), "no network runs")
        program.send_signal(number)
        program.communicate(timeout=PROMPT_S)
    assert program.returncode == (143 if number == signal.SIGTERM else -number)
    assert number == signal.SIGKILL or list(scratch.iterdir()) == []
    is_as_before(desk)


# -- memory, and crashes


@LINUX
def test_a_model_that_wants_too_much_memory_is_out_of_memory(desk: Desk) -> None:
    write_huge(desk.folder / "embedder.onnx", 25 * 2**30)  # 100 GiB
    ran = desk.build(small(desk, more="[compile]\nmemory_mib = 4096\n"))
    assert (ran.status, ran.json["error"]["kind"]) == (3, "out-of-memory")
    is_as_before(desk)


DECODER = """
import builders.descriptors.embed as embed
import os, signal, time
def decode(data, side):
    {}
embed.tile_pixels = decode
"""


@LINUX
@pytest.mark.parametrize("wants", ["bytearray(100 * 2**30)", "__import__('numpy').ones(25 * 2**30)"])
def test_a_decoder_that_wants_too_much_memory_is_out_of_memory(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wants: str
) -> None:
    at_start(tmp_path, monkeypatch, DECODER.format(wants))
    ran = desk.build(small(desk))
    assert (ran.status, ran.json["error"]["kind"]) == (3, "out-of-memory")


@LINUX
@pytest.mark.parametrize(
    ("number", "crash"),
    [
        (signal.SIGSEGV, "__import__('ctypes').string_at(0)"),
        (signal.SIGABRT, "os.abort()"),
        (signal.SIGKILL, "os.kill(os.getpid(), signal.SIGKILL) or time.sleep(60)"),
    ],
)
def test_a_crash_in_a_decoder_names_the_tile(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, crash: str
) -> None:
    at_start(tmp_path, monkeypatch, DECODER.format(crash))
    ran = desk.build(small(desk))
    assert (ran.status, ran.json["error"]["kind"]) == (3, "failed")
    assert f"was ended by {number.name}, while it was " in ran.json["error"]["message"]
    assert "decoding tile 14/" in ran.json["error"]["message"]
    assert ran.json["error"]["remedy"]


# -- what it has not


SPY = """
import json, os, resource, sys
import builders.engines.isolation as isolation
from store.errors import FlightbagError

real = isolation.begin

def spy(request, messages):
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink("/proc/self/fd/" + fd))
        except OSError:
            pass
    facts = {"env": dict(os.environ), "fds": names, "core": resource.getrlimit(resource.RLIMIT_CORE)}
    raise FlightbagError(json.dumps(facts))

def begin(memory):
    real(memory)
    sys.modules["__main__"].TASKS["build"] = spy

isolation.begin = begin
"""


@LINUX
def test_it_has_no_secret_and_no_descriptor_of_its_parent(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start(tmp_path, monkeypatch, SPY)
    secrets = ("FLIGHTBAG_PASSPHRASE", "SSH_AUTH_SOCK", "PKCS11_PIN", "MY_PASSWORD", "AWS_SECRET_ACCESS_KEY", "API_KEY")
    secrets += ("RAY_AUTH_TOKEN",)
    for name in secrets:
        monkeypatch.setenv(name, "hunter2")
    with desk.key.open("rb") as held:
        os.set_inheritable(held.fileno(), True)
        ran = desk.build(small(desk))
    seen = json.loads(ran.json["error"]["message"])
    assert not set(secrets) & set(seen["env"])
    assert "hunter2" not in json.dumps(seen["env"])
    assert seen["env"]["PATH"] == os.environ["PATH"]
    assert seen["core"] == [0, 0]
    assert not [name for name in seen["fds"] if str(desk.folder) in name]


@LINUX
def test_a_driver_of_a_cluster_has_its_token_and_no_other_secret(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start(tmp_path, monkeypatch, SPY)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "MY_TOKEN", "FLIGHTBAG_PASSPHRASE"):
        monkeypatch.setenv(name, "hunter2")
    ran = desk.build(small(desk), "--executor", "ray")
    environment = json.loads(ran.json["error"]["message"])["env"]
    assert {name for name, value in environment.items() if value == "hunter2"} == {
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
    }


@LINUX
def test_keys_are_opened_when_the_process_has_ended(desk: Desk, tmp_path: Path) -> None:
    """A signer is asked when no process is left that read anything."""
    log = tmp_path / "log"
    script = tmp_path / "signer.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom store.trust.keys import PrivateKey\n"
        "found = [p.name for p in Path('/proc').iterdir() if p.name.isdigit() and (p / 'cmdline').exists()\n"
        f"    and b'builders.confined' in (p / 'cmdline').read_bytes() and {str(desk.folder)!r} in ''.join(\n"
        "    Path(os.fsdecode(one)).read_text() for one in (p / 'cmdline').read_bytes().split(b'\\0')\n"
        "    if one.endswith(b'request.json') and os.path.isfile(one))]\n"
        f"Path({str(log)!r}).write_text(repr(found))\n"
        f"key = PrivateKey.of_pem(Path({str(desk.key)!r}).read_bytes(), None)\n"
        "sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))\n"
    )
    command = shlex.join([sys.executable, str(script)])
    mission = small(desk)
    public = desk.key.with_name(desk.key.name + ".pub")
    env = {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    ran = flightbag("build", mission, "--store", desk.store, "--key", public, "--signer", command, "--json", env=env)
    assert ran.status == 0, ran.out + ran.err
    assert log.read_text() == "[]"


def test_a_wrong_passphrase_costs_no_work(desk: Desk, tmp_path: Path) -> None:
    """What was built stays, and the next build goes on from there."""
    (tmp_path / "good").write_text("correct horse battery\n")
    (tmp_path / "bad").write_text("something else here\n")
    key = desk.folder / "second.key"
    assert flightbag("keys", "new", key, "--passphrase-file", tmp_path / "good").status == 0
    args = ("build", small(desk), "--store", desk.store, "--json")
    ran = flightbag(*args, "--key", key, "--passphrase-file", tmp_path / "bad")
    assert ran.status != 0, "it is not in the role, by the .pub file beside it"
    assert not (desk.store / "objects").is_dir() or not list((desk.store / "objects").rglob("?" * 62))
    ran = flightbag(*args, "--key", key)
    assert (ran.status, "passphrase" in ran.err) == (2, True)


# -- what comes back


def forged(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, object]], object],
    *more: object,
    mission: Path | None = None,
) -> Ran:
    from builders import confinement

    real = confinement.run_confined

    def run(*args: object, **kwargs: object) -> object:
        result = real(*args, **kwargs)  # type: ignore[arg-type]
        change(result)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(confinement, "run_confined", run)
        return desk.build(mission or small(desk), *more)


@pytest.mark.parametrize(
    "what",
    [
        "manifest",
        "table",
        "both of another mission",
        "no base64",
        "draft",
        "report",
        "no report",
        "report of other figures",
        "report of other artifacts",
        "no payload",
        "no payload, and unchanged",
    ],
)
def test_a_payload_that_is_not_what_may_be_signed_is_not_signed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    kept: list[dict[str, object]] = []
    other = desk.write_mission("right", zooms=(14,), bbox=RIGHT)
    from builders import confinement

    real = confinement.run_confined
    with monkeypatch.context() as patch:
        patch.setattr(confinement, "run_confined", lambda *a, **k: kept.append(real(*a, **k)) or kept[-1])
        assert desk.build(other).status == 0

    def change(result: dict[str, object]) -> None:
        payload = result["payload"]
        assert isinstance(payload, dict)
        forged = kept[0]["payload"]
        assert isinstance(forged, dict)
        if what in ("manifest", "table"):
            payload[what] = forged[what]
        elif what == "both of another mission":
            payload.update(forged)
        elif what == "no base64":
            payload["manifest"] = "*" + payload["manifest"]
        elif what == "draft":
            payload["draft"] = 1
        elif what == "report of other figures":
            result["report"] = result["report"].replace('"described":', '"described":1')  # type: ignore[attr-defined]
        elif what == "report of other artifacts":
            result["report"] = result["report"].replace('"name":"engines/', '"name":"engineers/')  # type: ignore[attr-defined]
        elif what.startswith("no payload"):
            del result["payload"]
            outcome = '"unchanged"' if "unchanged" in what else '"built"'
            result["report"] = result["report"].replace('"built"', outcome, 1)  # type: ignore[attr-defined]
        elif what == "no report":
            del result["report"]
        else:
            result["report"] = result["report"].replace('"built"', '"fine"')  # type: ignore[attr-defined]

    ran = forged(desk, monkeypatch, change)
    assert ran.status not in (0, 2), ran.out
    assert "error" in ran.json
    assert not (desk.store / "missions" / "left").exists()
    assert not (desk.store / "drafts" / "left").exists()


def test_what_is_unchanged_is_read_from_the_store(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that a second pilot compares is that of the published manifest, whatever the process says."""
    first = desk.built(small(desk))

    def change(result: dict[str, object]) -> None:
        report = result["report"].replace(first["signing_code"], "00000-00000")  # type: ignore[attr-defined]
        result["report"] = report.replace(first["manifest"], "00" * 32)

    ran = forged(desk, monkeypatch, change, "--expect", first["signing_code"])
    assert (ran.json["outcome"], ran.json["manifest"]) == ("unchanged", first["manifest"])
    assert ran.json["signing_code"] == first["signing_code"]
    assert forged(desk, monkeypatch, change, "--expect", "00000-00000").json["error"]["kind"] == "other-code"


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(one, id=one)
        for one in (
            *("flight", "aircraft", "takeoff", "takeoff_outside", "sector", "area", "area of a file", "validity"),
            *("target.host", "target.proof"),
        )
    ],
)
def test_what_is_signed_is_what_the_mission_file_says(desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A manifest that is right in itself, with another fact than the planner wrote."""
    mission = small(desk)
    if what == "area of a file":
        west, south, east, north = LEFT
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        (desk.folder / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        mission = small(desk, area='geojson = "area.geojson"')

    if what == "target.host":
        mission.write_text(mission.read_text().replace('host = "auto"', 'host = "cpu-x86_64"'))

    def change(result: dict[str, object]) -> None:
        payload = result["payload"]
        assert isinstance(payload, dict)
        manifest = Manifest.parse(b64decode(payload["manifest"]))
        if what == "target.host":
            manifest = replace(manifest, hosts=("cpu-aarch64", "cpu-x86_64"))
        elif what == "target.proof":
            # The engine that flies is said to be one that each aircraft may prove, which the file does not allow.
            of_engine = next(one for one in manifest.quality if one.name.startswith("fidelity/"))
            rest = tuple(one for one in manifest.quality if one != of_engine)
            unproven = (Unproven(of_engine.name, of_engine.least, of_engine.recipe),)
            manifest = replace(manifest, quality=rest, unproven=unproven)
            report = from_json(BuildReport, result["report"])
            figures = tuple(one for one in report.figures if one.figure() != of_engine)
            result["report"] = to_json(BuildReport, replace(report, figures=figures, unproven=unproven))
        facts, issue = manifest.mission, manifest.issue
        west, south, east, north = facts.area.bbox
        others = {
            "flight": {"flight": "2027-01-01-01"},
            "aircraft": {"aircraft": ("uav-66",)},
            "takeoff": {"takeoff": replace(facts.takeoff, alt=facts.takeoff.alt + 1)},
            "takeoff_outside": {"takeoff": replace(facts.takeoff, lat=south - 1), "takeoff_outside": True},
            "sector": {"sector": "active_conflict"},
            "area": {"area": Area((west, south, east, north + 1))},
            "area of a file": {"area": Area((west, south, east, north + 1))},
            "validity": {},
        }
        facts = replace(facts, **others.get(what, {}))
        if what == "validity":
            issue = replace(issue, expires_at=issue.issued_at + 10**6)
        payload["manifest"] = b64encode(replace(manifest, mission=facts, issue=issue).render()).decode()

    ran = forged(desk, monkeypatch, change, mission=mission)
    assert (ran.status, ran.json["error"]["kind"]) == (1, "other-mission")
    assert {"area of a file": "place"}.get(what, what) in ran.json["error"]["message"]
    assert not (desk.store / "missions" / "left").exists()


MESSENGER = """
import builders.engines.isolation as isolation
import json, os, sys
real = isolation.begin
def begin(memory):
    real(memory)
    main = sys.modules["__main__"]
    if hasattr(main, "Messages"):
        main.Messages.{} = {}
isolation.begin = begin
"""


@LINUX
@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("loaded", "lambda self, mission, limits: None"),
        ("loaded", "lambda self, mission, limits: self._send(['loaded', mission, 10**400, 0])"),
        ("loaded", "lambda self, mission, limits: self._send(['loaded', 'another', 5, 0]) or self._go()"),
    ],
)
def test_without_the_lock_of_the_mission_nothing_is_signed(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, code: str
) -> None:
    at_start(tmp_path, monkeypatch, MESSENGER.format(method, code))
    ran = desk.build(small(desk))
    assert (ran.status, ran.json["error"]["kind"]) == (1, "failed")
    assert not (desk.store / "missions" / "left").exists()


@LINUX
def test_a_message_with_an_absurd_number_is_none(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flood = (
        "lambda self, a, d, t: [self._send(['progress', a + str(i), s * 10**400, 1]) for s in (-1, 1) for i in (1, 2)]"
    )
    at_start(tmp_path, monkeypatch, MESSENGER.format("progress", flood))
    assert desk.built(small(desk))["outcome"] == "built"


# -- where it runs


def test_the_api_builds_in_a_thread(desk: Desk, tmp_path: Path) -> None:
    mission, outcomes = small(desk), []
    key = PrivateKey.of_pem(desk.key.read_bytes(), None)
    thread = threading.Thread(
        target=lambda: outcomes.append(build(mission, desk.store, [key], cache=tmp_path / "cache").outcome)
    )
    thread.start()
    thread.join()
    assert outcomes == ["built"]


def test_the_api_builds_in_a_program_that_comes_by_standard_input(desk: Desk, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from typing import Any
from builders import build
from store.trust.keys import PrivateKey
key = PrivateKey.of_pem(Path({str(desk.key)!r}).read_bytes(), None)
print(build({str(small(desk))!r}, {str(desk.store)!r}, [key], cache={str(tmp_path / "cache")!r}).outcome)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    ran = subprocess.run([sys.executable, "-"], input=code, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout == "built\n", ran.stderr


def test_errors_cross_as_they_are(desk: Desk) -> None:
    mission = small(desk)
    mission.write_text(mission.read_text().replace('sector = "stable_rear"', 'sector = "nowhere"\nmore = 1'))
    ran = desk.build(mission)
    assert ran.status == 2
    assert len(ran.json["error"]["problems"]) == 2
    assert all(str(mission) in line for line in ran.json["error"]["problems"])
    for error in (Corrupt("a", remedy="b", kind="bad-table", object="00"), Refused("x")):
        from builders.crossing import error_from_json, error_to_json

        other = error_from_json(json.loads(json.dumps(error_to_json(error))))
        assert (type(other), other.message, other.remedy, other.kind, other.object_id) == (
            type(error),
            error.message,
            error.remedy,
            error.kind,
            error.object_id,
        )
