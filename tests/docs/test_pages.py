"""What users read: every fenced block runs, every link leads somewhere, every command line is one of the program."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from builders.engines import onnxruntime as onnxruntime_backend
from builders.engines.onnxruntime import OnnxRuntimeBackend
from tests.support.commands import BIN, Ran, flightbag
from tests.support.documents import check
from tests.support.here import confine_here
from tests.support.pages import LANGUAGES, PAGES, PROGRAMS, Block, Machine, Reader, blocks, steps
from tests.support.release import REPOSITORY
from tests.support.s3 import Server
from tests.support.sshd import needs_sshd, running
from tools import keyfiles
from tools.start import app

README = REPOSITORY / "README.md"
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
CHORES = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def installs(args: list[str]) -> None:
    """What pip is told to install, or to remove, has extras that exist."""
    named = [extra for arg in args for extra in ",".join(re.findall(r"\[([a-z,-]+)\]", arg)).split(",") if extra]
    assert args[0] in ("install", "uninstall")
    assert {*named} <= {*EXTRAS}


def makes(args: list[str]) -> None:
    assert {*args} <= CHORES


def nothing(args: list[str]) -> None:
    """It changes the shell of the reader, or is a program of others that may be absent."""


ELSEWHERE = {
    "pip": installs,
    ".venv/bin/pip": installs,
    "make": makes,
    **dict.fromkeys(("python3", "export", "aws"), nothing),
}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An empty folder, which is the current one; builds run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        confine_here(patch)
        patch.chdir(tmp_path)
        yield patch


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who has done all that README says."""
    with pytest.MonkeyPatch.context() as patch:
        confine_here(patch)
        patch.chdir(tmp_path_factory.mktemp("readme"))
        reader = Reader(elsewhere=ELSEWHERE)
        reader.read(README)
        assert reader.names["engine"], "the last block loads the engine"
        return Path.cwd()


def test_readme_leads_to_a_go_and_is_short(first: Path) -> None:
    assert {"ground", "stick", "pinned.root.cbor"} <= {*os.listdir(first)}
    assert len(README.read_bytes()) <= 7000


@pytest.fixture
def desk(first: Path, tmp_path: Path, here: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which is the current one."""
    shutil.copytree(first, tmp_path / "first")
    for medium in ("stick-1", "stick-2"):
        (tmp_path / "first" / medium).mkdir()
    here.chdir(tmp_path / "first")
    return tmp_path / "first"


HOST = f"cpu-{platform.machine()}"


def places(folder: Path) -> dict[str, str]:
    """The absolute paths of the pages and their host classes, here."""
    named = {"/media/stick": "stick-1", "/media/second": "stick-2", "/var/lib/flightbag": "state"}
    hosts = {"cpu-x86_64-avx2+ort-1.32.0": HOST, "cpu-aarch64+ort-1.32.0": HOST}
    return {**hosts, **{path: str(folder / name) for path, name in named.items()}}


def read(
    page: str,
    desk: Path,
    names: dict[str, object] | None = None,
    *,
    skip: int = 0,
    machine: Machine = nullcontext,
    **more: str,
) -> Reader:
    """Read a page but for its first blocks. Its Python has `names`; `more` are further names that are others here."""
    reader = Reader({**more, **places(desk)}, ELSEWHERE, names or {}, machine)
    for block in blocks(REPOSITORY / "docs" / page)[skip:]:
        reader.run(block)
    return reader


def test_carrying(desk: Path) -> None:
    read("carrying.md", desk)
    assert (desk / "stick-2/store/missions/ridge").is_file()


def test_aircraft(desk: Path) -> None:
    """The first block is run by tests/conformance/test_release.py."""
    assert flightbag("sync", "ground", desk / "stick-1/store").status == 0
    (desk / "fleet.keys").write_text("")
    read("aircraft.md", desk, skip=1)
    assert os.listdir(desk / "ground/receipts")


def test_time(desk: Path) -> None:
    """The drill is lived by tests/tools/test_takeoff_time.py, with a clock that is ahead."""
    root = ("--trust", desk / "pinned.root.cbor")
    assert (
        flightbag("aircraft", "enrol", "--state", desk / "state", "--id", "uav-07", "--host", HOST, *root).status == 0
    )
    read("time.md", desk, **{"2026-11-23T06:00:00Z": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"})


@pytest.fixture(scope="module")
def example(first: Path) -> tuple[Path, ...]:
    """The files that `flightbag example` wrote there."""
    return tuple(path for path in first.iterdir() if path.suffix in (".mbtiles", ".onnx", ".yaml", ".toml", ".jpg"))


def unmeasured(mission: Path) -> None:
    """Leave out the recall, which takes most of the time of a small build."""
    text = re.sub(r"\[quality\].*?\n\n", "[quality]\nsample = 0\n\n", mission.read_text(), flags=re.DOTALL)
    assert "sample = 0" in text
    mission.write_text(text)


def test_a_first_mission(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """README builds with recall; the two builds here do without."""

    @contextmanager
    def machine(_name: str) -> Iterator[None]:
        yield
        for mission in Path.cwd().glob("*.toml"):
            unmeasured(mission)

    read("tutorials/first-mission.md", tmp_path, machine=machine)


def test_three_operators(example: tuple[Path, ...], here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in example:
        shutil.copy(path, tmp_path)
    unmeasured(tmp_path / "ridge.toml")
    (tmp_path / "stick-1").mkdir()
    read("tutorials/three-operators.md", tmp_path)


def test_engines_elsewhere(desk: Path, here: pytest.MonkeyPatch) -> None:
    """The ground takes its CPU for another; so an engine that is tied to a CPU is one for the device, this machine."""
    file = desk / "cpuinfo"
    file.write_text("flags : fpu sse sse2 avx\nFeatures : fp\n")
    unmeasured(desk / "ridge.toml")
    mission = (
        (desk / "ridge.toml").read_text().replace('host = "auto"', f'host = "{OnnxRuntimeBackend().describe_host()}"')
    )
    (desk / "ridge.toml").write_text(mission.replace('"fp32"\n', '"fp32"\nmode = "fast"\n'))

    @contextmanager
    def machine(name: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            if name != "orin":
                patch.setattr(onnxruntime_backend, "CPU_FILE", file)
            yield

    read("tutorials/engines-elsewhere.md", desk, machine=machine)
    assert os.listdir(desk / "ground/results")


def test_engines(desk: Path) -> None:
    read("engines.md", desk)


def test_maps(desk: Path) -> None:
    read("maps.md", desk)


@pytest.fixture
def bucket(storage: Server, here: pytest.MonkeyPatch) -> None:
    """The storage is the one of the tests: its credentials, and a bucket of the name that the pages have."""
    for name, value in storage.environment.items():
        here.setenv(name, value)


def test_buckets(desk: Path, bucket: None) -> None:
    read("buckets.md", desk, **{"s3://fleet/north": "s3://fleet/page"})


def test_a_fleet_and_its_bucket(desk: Path, bucket: None) -> None:
    (desk / "fleet.keys").write_text("")
    unmeasured(desk / "valley.toml")
    read("tutorials/fleet.md", desk, **{"s3://fleet/north": "s3://fleet/tutorial"})
    assert {*os.listdir(desk / "ground/missions")} == {"ridge", "valley"}


def test_packs(desk: Path) -> None:
    """Pipes are run without a machine in between; the mission has two parts in the place of three."""
    (desk / "srv").mkdir()
    others = {"ssh ridge ": "", "/srv/store": "srv/store", "/dev/shm/fifo": "stream", "north-ridge": "ridge"}
    parts = {"700MB": "160kB", "bag.3-of-3.tar": "bag.2-of-2.tar", "bag.1-of-3.tar bag.2-of-3.tar": "bag.1-of-2.tar"}
    read("packs.md", desk, **others, **parts)
    assert (desk / "bag.2-of-2.tar").is_file()


@needs_sshd
def test_ssh(desk: Path, here: pytest.MonkeyPatch) -> None:
    (desk / "srv").mkdir()
    with running(desk / "sshd") as server:
        here.setenv("PATH", server.path)
        read("ssh.md", desk, **{"crew@hangar:": "hangar:", "/srv/store": str(desk / "srv/store")})


def test_onboard(desk: Path) -> None:
    root = ("--trust", "pinned.root.cbor")
    assert (
        flightbag("aircraft", "enrol", "--state", desk / "state", "--id", "uav-07", "--host", HOST, *root).status == 0
    )
    frame = np.asarray(Image.open("frame.jpg").resize((640, 640)))
    named = {"north-ridge": "ridge", "place-embedder": "embedder", "zoom=17": "zoom=16", "/etc/flightbag/": ""}
    folders = {"/data/store": str(desk / "stick"), "/var/cache/flightbag": str(desk / "cache")}
    names = {"frame": frame, "key": keyfiles.key_of(desk / "planner.key", lambda _: b"")}
    reader = read("onboard.md", desk, names, **named, **folders)
    assert reader.names["verdict"].go
    assert reader.names["located"].matches
    assert reader.names["report"].outcome == "unchanged"


def test_json(desk: Path, here: pytest.MonkeyPatch) -> None:
    here.setenv("PATH", str(BIN), prepend=os.pathsep)
    (example,) = (block for block in blocks(REPOSITORY / "docs/json.md") if block.language == "text")
    check("verify", Ran(3, example.text, ""))
    reader = read("json.md", desk)
    assert reader.names["go"] == ["ridge"]


def test_audit(desk: Path) -> None:
    assert flightbag("sync", "ground", desk / "stick-1/store").status == 0
    read("audit.md", desk)


def test_contributing(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reader = Reader(places(tmp_path), ELSEWHERE)
    for page in ("CONTRIBUTING.md", "docs/support.md"):
        reader.read(REPOSITORY / page)


def slug(heading: str) -> str:
    """The anchor that a forge makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    """Within the repository; of other links, that they are https."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if ":" in target:
            assert target.startswith("https://"), target
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.is_relative_to(REPOSITORY), target
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_block_has_a_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, block
        assert block.language != "text" or not re.match(r"(\w*\$ |flightbag )", block.text) or page == README, block


def test_support_lists_each_extra_with_the_packages_that_it_brings() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| .+ \|$", (REPOSITORY / "docs/support.md").read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted({*EXTRAS} - {"dev"})
    shown = {"tensorrt": "TensorRT", "tensorrt-rtx-cu13-bindings": "TensorRT", "tensorrt-rtx-cu13-libs": "TensorRT"}
    for name, brings in rows:
        wanted = {Requirement(one).name for one in EXTRAS[name]} - {"flightbag"}
        # The one that `onboard` brings is wanted in a newer version.
        wanted -= {"onnxruntime"} if name == "build" else set()
        assert [one for one in wanted if shown.get(one, one) not in brings] == [], name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_a_terminal_shows_every_line_of_a_block(page: Path) -> None:
    """A drawing in `mermaid` is not read as text."""
    for block in blocks(page):
        if block.language != "mermaid":
            assert [line for line in block.text.splitlines() if len(line) > 80] == [], block


def test_every_page_is_reached_from_readme() -> None:
    reached, ahead = {README}, [README]
    while ahead:
        page = ahead.pop()
        for target in re.findall(r"\]\(([^)#\s]+\.md)", page.read_text()):
            other = (page.parent / target).resolve()
            if other not in reached and other.is_relative_to(REPOSITORY):
                reached.add(other)
                ahead.append(other)
    assert {*PAGES} - reached == set()


def test_every_decision_is_listed_by_its_title() -> None:
    folder = REPOSITORY / "store/decisions"
    listed = re.findall(r"^\| \[(\d+)\]\(([^)]+)\) \| (.+) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    records = sorted(path for path in folder.glob("[0-9]*.md"))
    assert [(f"# {number} {title}", name) for number, name, title in listed] == [
        (path.read_text().splitlines()[0], path.name) for path in records
    ]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("console", "$ flightbag ls nowhere"),
        ("console", "$ flightbag nonsense"),
        ("console", "$ flightbag example new      # NO-GO"),
        ("console", "$ flightbag ls nowhere       # NO-GO"),
        ("console", "$ false"),
        ("console", "$ pip install '.[nonsense]'"),
        ("console", "$ make nonsense"),
        ("python", "raise AssertionError"),
        ("toml", "[mission]\nnonsense = 1"),
        ("toml", "[[tiles]]\nzooms = [16, 15]"),
        ("", "$ flightbag ls nowhere"),
    ],
)
def test_a_block_that_is_wrong_is_noticed(here: pytest.MonkeyPatch, language: str, text: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        Reader({}, ELSEWHERE).run(Block(README, 1, language, f"{text}\n"))


# Pages whose commands need more than a folder: the tests of their subjects run them, and here the program accepts them.
ONLY_ACCEPTED = ("cache.md", "cluster.md", "descriptors.md", "report.md", "scale.md")


def test_every_page_with_commands_is_read_here() -> None:
    read_here = {*re.findall(r'"([\w/-]+\.md)"', Path(__file__).read_text())}
    for page in PAGES:
        if any(block.language in ("console", "python") for block in blocks(page)):
            name = page.relative_to(REPOSITORY).as_posix()
            assert name.removeprefix("docs/") in read_here or name in read_here, name


def accepted(args: list[str]) -> None:
    """Raises unless the program takes these arguments."""
    command: click.Command = app
    while isinstance(command, click.Group):
        inner = command.get_command(click.Context(command), args[0])
        assert inner is not None, f"there is no command {args[0]}"
        command, args = inner, args[1:]
    command.make_context("flightbag", args)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_command_line_is_one_of_the_program(page: Path) -> None:
    for block in blocks(page):
        for step in steps(block) if block.language == "console" else ():
            for line in re.split(r" && | \| |; do ", step.line.removesuffix("; done")):
                if not any(program in line for program in PROGRAMS):
                    continue
                words = shlex.split(line)
                words = words[2:] if words[0] == "ssh" else words  # ssh HOST COMMAND
                if (name := Path(words[0]).name) in PROGRAMS:
                    accepted([*PROGRAMS[name], *words[1:]])


@pytest.mark.skipif(not os.environ.get("FLIGHTBAG_DRILL"), reason="runs the demo, half a minute: FLIGHTBAG_DRILL=1")
def test_readme_shows_what_the_demo_prints(tmp_path: Path) -> None:
    """But for ids, codes and sizes that differ from run to run."""
    command = [sys.executable, "-m", "tests.support.demo"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=True)

    def shapes(text: str) -> list[str]:
        varying = r"objects/\S+|(?<=  store )\S+(?=/\.demo/)|\b[0-9A-Z]{5}-[0-9A-Z]{5}\b|\b[0-9.]+ kB"
        return [re.sub(varying, "…", line) for line in text.splitlines() if line]

    [shown] = [block for block in blocks(README) if block.text.startswith("$ flightbag verify")]
    printed = iter(shapes(ran.stdout))
    missing = [line for line in shapes(shown.text) if line not in printed]  # in their order
    assert missing == []
