"""`make demo`: the main job on data that it makes itself, with the commands a planner and a crew would type.

`flightbag example` writes terrain, a small backbone and two missions that overlap. Both are built and signed; one is
carried to an "aircraft" and verified there: GO by the aircraft's state, and after one flipped byte NO-GO. Everything
lies in `.demo/` and may be looked at afterwards. Ends with status 0 exactly if each step ended as it should.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = ROOT / ".demo"
FLIGHTBAG = Path(sys.executable).parent / "flightbag"
PASSPHRASE = ("--passphrase-file", "passphrase")


def flightbag(*args: str | Path, expect: int = 0, quiet: bool = False) -> str:
    """Runs one command as a user would, shows it, and gives its output; ends the demo on an unexpected status."""
    shown = [str(arg).removeprefix(f"{HERE}/") for arg in args]
    print(f"\n$ flightbag {' '.join(shown)}", flush=True)
    done = subprocess.run([FLIGHTBAG, *map(str, args)], capture_output=True, text=True, cwd=HERE)
    if not quiet:
        print("".join(f"  {line}\n" for line in (done.stdout + done.stderr).splitlines()), end="", flush=True)
    if done.returncode != expect:
        sys.exit(f"demo: that ended with status {done.returncode}, {expect} was expected\n{done.stderr}")
    return done.stdout


def build(mission: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        flightbag(
            "build", f"{mission}.toml", "--store", "ground", "--key", "planner.key", *PASSPHRASE, "--json", quiet=True
        )
    )
    for artifact in report["artifacts"]:
        took = "" if artifact["seconds"] is None else f"  {artifact['seconds']:.2f} s"
        print(f"  {artifact['action']:<7}{artifact['bytes']:>8} B  {artifact['name']}{took}")
    counts = {action: [a for a in report["artifacts"] if a["action"] == action] for action in ("built", "reused")}
    print(
        f"  {report['outcome']}: {len(counts['built'])} built, {len(counts['reused'])} reused, "
        f"{report['saved_bytes']} bytes saved by dedup; "
        f"{report['coverage']['described']} of {report['coverage']['tiles']} tiles described"
    )
    for figure in report["figures"]:
        value, least, queries = figure["value"] / 10**6, figure["least"] / 10**6, figure["queries"]
        bound = f", at least {least:g}" if least else ""
        print(f"  {figure['name']} {value:.4f} of {queries} queries{bound}")
    for finding in report["findings"]:
        print(f"  warning: {finding['message']}")
    return report


def flip_one_byte() -> None:
    """Damages the largest object of the aircraft's store: one bit in the middle."""
    objects = [path for path in (HERE / "aircraft/store/objects").rglob("*") if path.is_file()]
    victim = max(objects, key=lambda path: path.stat().st_size)
    victim.chmod(0o644)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    print("\none bit of the largest object of aircraft/store is flipped")


def main() -> None:
    start = time.monotonic()
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    flightbag("example", ".")
    (HERE / "passphrase").write_text("only for the demo\n")
    flightbag("init", "ground")
    for key in ("owner.key", "planner.key"):
        flightbag("keys", "new", key, *PASSPHRASE)
    owner = ("--root-key", "owner.key", "--mission-key", "planner.key.pub")
    flightbag("trust", "new", "ground", "--domain", "demo", *owner, *PASSPHRASE)
    (HERE / "aircraft").mkdir()
    shutil.copy(HERE / "ground/trust/1.root.cbor", HERE / "aircraft/pinned.root.cbor")
    print("\nthe trust root is handed to the aircraft, apart from the store")
    host = f"cpu-{platform.machine()}"
    pinned = ("--trust", "aircraft/pinned.root.cbor")
    flightbag("aircraft", "enrol", "--state", "aircraft/state", "--id", "uav-07", "--host", host, *pinned)

    flightbag("plan", "ridge.toml", "--store", "ground")
    ridge = build("ridge")
    assert ridge["outcome"] == "built"
    flightbag("sync", "ground", "aircraft/store")
    check = ("verify", "aircraft/store", "--state", "aircraft/state")
    flightbag(*check)
    aboard = ("aircraft/store", "ridge", "--trust", "aircraft/pinned.root.cbor")
    flightbag("probe", *aboard)
    flightbag("query", aboard[0], aboard[1], "frame.jpg", *aboard[2:], "--zoom", "16", "--top", "3")

    valley = build("valley")
    assert any(a["action"] == "reused" and a["name"].startswith("engines/") for a in valley["artifacts"])
    assert any(a["action"] == "reused" and a["name"].startswith("descriptors/") for a in valley["artifacts"])
    assert build("valley")["outcome"] == "unchanged"
    flightbag("sync", "ground", "aircraft/store")
    flightbag(*check)
    flightbag("fsck", "aircraft/store", "--full")

    flip_one_byte()
    flightbag(*check, expect=1)
    flightbag("fsck", "aircraft/store", "--full", expect=4)
    print(f"\nthe demo did what it should, in {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
