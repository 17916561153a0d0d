"""One real use of every command, on a desk where each of them has something to do.

`USES` is keyed by what is typed: "ls", "keys new", "store-fsck". A test compares its keys with the commands that exist:
a new command needs a use.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from builders.example.terrain import render
from builders.grid.tiles import tile_from_id, tile_ids
from tests.support.commands import BIN, Ran, code_of, flightbag, program
from tests.support.field import RIGHT, Desk
from tools.commands import Commands
from tools.start import app

STORE_FSCK = "store-fsck"
CAMERA = "files/calibration/camera.yaml"
LAB_KEY, SPARE_KEY = Path("lab.key.pub"), Path("spare.key.pub")


@dataclass(frozen=True)
class Use:
    """The arguments of one use, and what it leaves: paths below the desk's folder that it makes and that it removes."""

    args: Callable[[Desk], tuple[object, ...]]
    makes: str = ""
    removes: str = ""

    def is_done(self, desk: Desk) -> bool:
        """Whether the work of a use that writes is done."""
        made = not self.makes or (desk.folder / self.makes).exists()
        return made and not (self.removes and (desk.folder / self.removes).exists())


def equip(desk: Desk) -> None:
    """Give every command something to do, on a desk on which the mission `left` is built.

    The trust root has a release key and is version 2; the store `empty` has no trust root. `left` is built a second
    time, so that it can go back; `right` is a draft. Beside the store lie drafts of a root, unsigned and signed, a
    release, a proof, an aircraft's state and a picture.
    """

    def done(*args: object) -> None:
        ran = flightbag(*args)
        assert ran.status == 0, ran.out + ran.err

    def sign_root(draft: Path) -> None:
        done("trust", "sign", draft, "--key", folder / "owner.key", "--expect", code_of("trust", "show", draft))

    folder = desk.folder
    for key in ("lab.key", "spare.key"):
        done("keys", "new", folder / key, "--no-passphrase")
    done("trust", "add-key", desk.store, folder / "release-key.draft", "release", folder / "lab.key.pub")
    sign_root(folder / "release-key.draft")
    done("trust", "rotate", desk.store, folder / "release-key.draft")
    (folder / "passphrase").write_text("four words or more\n")
    (folder / "camera.yaml").write_text("fx: 800.0\n")
    done("build", desk.write_mission("left"), "--store", desk.store, "--key", desk.key)
    done("build", desk.write_mission("right", bbox=RIGHT), "--store", desk.store)
    for draft in ("root.draft", "signed.draft"):
        done("trust", "new-epoch", desk.store, folder / draft)
    sign_root(folder / "signed.draft")
    done("release", "new", desk.store, folder / "winter.release", "--name", "winter", "--mission", "left")
    done("init", folder / "empty")
    done("prove", desk.store, "left", CAMERA, "-o", folder / "camera.proof")
    shutil.copy(folder / "camera.yaml", folder / "carried.yaml")
    host = f"cpu-{platform.machine()}"
    done("aircraft", "enrol", "--state", folder / "state", "--id", "uav-07", "--host", host, "--trust", desk.root)
    done("verify", desk.store, "left", "--state", folder / "state")
    done("pin", desk.store, "kept", "left")
    done("pack", desk.store, "left", "-o", folder / "left.tar")
    done("checkout", desk.store, "left", folder / "plain", "--trust", desk.root)
    tile = tile_from_id(int(tile_ids(15, np.array([7357]), np.array([11522]))[0]))
    Image.fromarray(render(tile)).save(folder / "frame.png")


def _trust_draft(verb: str, *more: object) -> Use:
    """A use of a command that begins a draft of the next root. A `Path` in `more` is relative to the desk's folder."""

    def args(desk: Desk) -> tuple[object, ...]:
        given = (desk.folder / one if isinstance(one, Path) else one for one in more)
        return "trust", verb, desk.store, desk.folder / "next.draft", *given

    return Use(args, makes="next.draft")


def _of_mission(verb: str) -> Use:
    return Use(lambda desk: (verb, desk.store, "left", "--trust", desk.root))


def _withdraw_release(desk: Desk) -> tuple[object, ...]:
    """Add the release to the store, and withdraw it."""
    assert use("release sign", desk).status == 0
    return "release", "withdraw", desk.store, "winter", "--reason", "it drifts", "--key", desk.folder / "lab.key"


def _remote(desk: Desk) -> tuple[str, Path]:
    """A name that no other test gives, and its place."""
    return f"remote-{desk.folder.parent.name[-40:]}", desk.folder / "aircraft"


def _remove_remote(desk: Desk) -> tuple[object, ...]:
    """Name a place, and forget it."""
    assert flightbag("remote", "add", *_remote(desk)).status == 0
    return "remote", "remove", _remote(desk)[0]


USES: dict[str, Use] = {
    "init": Use(lambda desk: ("init", desk.folder / "new"), makes="new/flightbag.toml"),
    "example": Use(lambda desk: ("example", desk.folder / "first"), makes="first/ridge.toml"),
    "keys new": Use(lambda desk: ("keys", "new", desk.folder / "new.key", "--no-passphrase"), makes="new.key.pub"),
    "keys rewrap": Use(
        lambda desk: (
            *("keys", "rewrap", desk.folder / "spare.key"),
            *("--new-passphrase-file", desk.folder / "passphrase"),
        )
    ),
    "keys show": Use(lambda desk: ("keys", "show", desk.folder / "lab.key.pub")),
    "plan": Use(lambda desk: ("plan", desk.folder / "left.toml", "--store", desk.store)),
    "status": Use(lambda desk: ("status", desk.folder / "left.toml", "--store", desk.store)),
    "build": Use(
        lambda desk: ("build", desk.folder / "right.toml", "--store", desk.store, "--key", desk.key),
        makes="ground/missions/right",
    ),
    "ls": Use(lambda desk: ("ls", desk.store)),
    "show": Use(lambda desk: ("show", desk.store, "left")),
    "sync": Use(lambda desk: ("sync", desk.store, desk.folder / "aircraft"), makes="aircraft/missions/left"),
    "pack": Use(lambda desk: ("pack", desk.store, "left", "-o", desk.folder / "bag.tar"), makes="bag.tar"),
    "unpack": Use(
        lambda desk: ("unpack", desk.folder / "aircraft", desk.folder / "left.tar"), makes="aircraft/missions/left"
    ),
    "fsck": Use(lambda desk: ("fsck", desk.store, "--full")),
    STORE_FSCK: Use(lambda desk: (desk.store,)),
    "sign": Use(
        lambda desk: (
            *("sign", desk.store, "right", "--key", desk.key),
            *("--expect", code_of("show", desk.store, "right", "--draft")),
        ),
        makes="ground/missions/right",
    ),
    "discard": Use(lambda desk: ("discard", desk.store, "right"), removes="ground/drafts/right"),
    "withdraw": Use(
        lambda desk: ("withdraw", desk.store, "left", "--reason", "old imagery", "--key", desk.key),
        makes="ground/withdrawn/left.mission",
    ),
    "help": Use(lambda desk: ("help", "unproven")),
    "remove": Use(lambda desk: ("remove", desk.store, "left"), removes="ground/missions/left"),
    "remote add": Use(lambda desk: ("remote", "add", *_remote(desk))),
    "remote ls": Use(lambda desk: ("remote", "ls")),
    "remote remove": Use(_remove_remote),
    "verify": _of_mission("verify"),
    "prove": Use(
        lambda desk: ("prove", desk.store, "left", CAMERA, "-o", desk.folder / "new.proof"), makes="new.proof"
    ),
    "check-proof": Use(
        lambda desk: (
            *("check-proof", desk.folder / "camera.proof", desk.folder / "carried.yaml"),
            *("--trust", desk.root),
        )
    ),
    "gc": Use(lambda desk: ("gc", desk.store, "--grace", "0s", "--keep-last", "1")),
    "pin": Use(lambda desk: ("pin", desk.store, "fresh", "left"), makes="ground/pins/fresh"),
    "unpin": Use(lambda desk: ("unpin", desk.store, "kept"), removes="ground/pins/kept"),
    "log": Use(lambda desk: ("log", desk.store)),
    "rollback": Use(
        lambda desk: (
            *("rollback", desk.store, "left", "--key", desk.key),
            *("--to", flightbag("rollback", desk.store, "left", "--key", desk.key, "--dry-run", "--json").json["to"]),
        )
    ),
    "diff": Use(lambda desk: ("diff", desk.store, "left", "left")),
    "map": Use(lambda desk: ("map", desk.store, "left")),
    "report": Use(
        lambda desk: ("report", desk.store, "left", "--trust", desk.root, "-o", desk.folder / "left.html"),
        makes="left.html",
    ),
    "stats": Use(lambda desk: ("stats", desk.store)),
    "checkout": Use(
        lambda desk: ("checkout", desk.store, "left", desk.folder / "out", "--trust", desk.root), makes="out/.flightbag"
    ),
    "explain-key": Use(lambda desk: ("explain-key", desk.folder / "left.toml", "embedder")),
    "query": Use(lambda desk: ("query", desk.store, "left", desk.folder / "frame.png", "--trust", desk.root)),
    "probe": _of_mission("probe"),
    "quality": Use(
        lambda desk: (
            *("quality", desk.store, "left", "--trust", desk.root),
            *("--tiles", desk.folder / "terrain.mbtiles"),
        )
    ),
    "trust new": Use(
        lambda desk: (
            *("trust", "new", desk.folder / "empty", "--domain", "new"),
            *("--root-key", desk.folder / "owner.key", "--mission-key", desk.folder / "planner.key.pub"),
        ),
        makes="empty/trust/1.root.cbor",
    ),
    "trust add-key": _trust_draft("add-key", "mission", SPARE_KEY),
    "trust remove-key": _trust_draft("remove-key", "release", LAB_KEY),
    "trust revoke": _trust_draft("revoke", LAB_KEY),
    "trust set-threshold": _trust_draft("set-threshold", "mission=1"),
    "trust set-releases": _trust_draft("set-releases", "required"),
    "trust set-lifetime": _trust_draft("set-lifetime", "max=72h"),
    "trust new-epoch": _trust_draft("new-epoch"),
    "trust set-issued-after": _trust_draft("set-issued-after", "2026-11-01T00:00:00Z"),
    "trust sign": Use(
        lambda desk: (
            *("trust", "sign", desk.folder / "root.draft", "--key", desk.folder / "owner.key"),
            *("--expect", code_of("trust", "show", desk.folder / "root.draft")),
        )
    ),
    "trust join": Use(lambda desk: ("trust", "join", desk.folder / "signed.draft", desk.folder / "signed.draft")),
    "trust rotate": Use(
        lambda desk: ("trust", "rotate", desk.store, desk.folder / "signed.draft"), makes="ground/trust/3.root.cbor"
    ),
    "trust show": Use(lambda desk: ("trust", "show", desk.store)),
    "release new": Use(
        lambda desk: (
            *("release", "new", desk.store, desk.folder / "new.release"),
            *("--name", "new", "--mission", "left"),
        ),
        makes="new.release",
    ),
    "release sign": Use(
        lambda desk: (
            *("release", "sign", desk.store, desk.folder / "winter.release"),
            *("--key", desk.folder / "lab.key"),
            *("--expect", code_of("release", "show", desk.folder / "winter.release")),
        ),
        makes="ground/trust/releases/winter",
    ),
    "release withdraw": Use(_withdraw_release, makes="ground/withdrawn"),
    "release show": Use(lambda desk: ("release", "show", desk.folder / "winter.release")),
    "completion": Use(lambda desk: ("completion", "bash")),
    "receipts": Use(lambda desk: ("receipts", desk.store)),
    "aircraft enrol": Use(
        lambda desk: (
            *("aircraft", "enrol", "--state", desk.folder / "new-state", "--id", "uav-08", "--host", "cpu"),
            *("--trust", desk.root),
        ),
        makes="new-state",
    ),
    "aircraft consume": Use(lambda desk: ("aircraft", "consume", "2026-11-23-01", "--state", desk.folder / "state")),
    "aircraft lower-floor": Use(
        lambda desk: ("aircraft", "lower-floor", str(int(time.time())), "--state", desk.folder / "state", "--yes")
    ),
    "aircraft show": Use(lambda desk: ("aircraft", "show", "--state", desk.folder / "state")),
    "engines build": Use(lambda desk: ("engines", "build", desk.folder / "left.toml", "--store", desk.store)),
    "engines order": Use(lambda desk: ("engines", "order", desk.folder / "left.toml", "--store", desk.store)),
    "engines fulfil": Use(lambda desk: ("engines", "fulfil", desk.store)),
    "engines accept": Use(lambda desk: ("engines", "accept", desk.store, "--from", desk.folder / "empty")),
    "engines show": Use(lambda desk: ("engines", "show", desk.store, "left")),
    "new": Use(
        lambda desk: (
            *("new", desk.folder / "north.toml", "--imagery", desk.folder / "terrain.mbtiles"),
            *("--model", desk.folder / "embedder.onnx"),
        ),
        makes="north.toml",
    ),
    "doctor": Use(lambda desk: ("doctor", desk.store)),
    "engines host": Use(lambda desk: ("engines", "host")),
    "nodes": Use(lambda desk: ("nodes", "--resources")),
}


def command_line(name: str, desk: Desk) -> list[str]:
    """The installed program and the arguments of the use of a command."""
    args = [str(arg) for arg in USES[name].args(desk)]
    return [str(BIN / STORE_FSCK), *args] if name == STORE_FSCK else [str(BIN / "flightbag"), *args]


def use(name: str, desk: Desk) -> Ran:
    """Run the use of a command, in this process where that can be."""
    args = USES[name].args(desk)
    return program(STORE_FSCK, *args) if name == STORE_FSCK else flightbag(*args, columns=80)


def every_command() -> set[str]:
    """What the two programs offer: the full name of each command of `flightbag`, and `store-fsck`."""
    return {*(name for name, _ in commands(app)), STORE_FSCK}


def commands(group: Commands = app, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield the full name of each command of a group, and the command."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, Commands):
            yield from commands(command, f"{above}{name} ")
        else:
            yield above + name, command
