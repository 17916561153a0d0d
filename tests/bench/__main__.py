"""The bench: `make bench`, or

    python -m tests.bench [side] [--rounds N] [--small] [--json FILE]    beside the peers, in one run, warm
    python -m tests.bench memory                                         peak memory over 4 GB and 1,000,000 objects
    python -m tests.bench million                                        the index of 1,000,000 objects
    python -m tests.bench takeoff                                        a cold process, and 100,000 entries
    python -m tests.bench sync                                           nothing to do, one object changed, first copy
    python -m tests.bench bucket                                         a bucket, beside a plain S3 client
    python -m tests.bench cluster                                        a Ray cluster: losses, scaling, the driver
    python -m tests.bench cache                                          100,000 keys looked up in a shared cache
    python -m tests.bench engines                                        a cache hit, and cold loads in each mode
    python -m tests.bench throughput                                     embedding, beside the bare session and decoding
    python -m tests.bench country                                        10,000 to 1,000,000 tiles
    python -m tests.bench scale                                          10^8 tiles on 1 to 1,000 workers, simulated
    python -m tests.bench orthophotos                                    200 adjacent GeoTIFFs beside one merged one
    python -m tests.bench recall                                         what a search finds: exact, IVF, HNSW
    python -m tests.bench report                                         the report of 100,000 tiles: made, opened
    python -m tests.bench delta                                          what a delta inside large objects would save
    python -m tests.bench search                                         exact search over 1,000,000 x 512
    python -m tests.bench write                                          docs/benchmarks.md, of what was measured

Medians of interleaved rounds. A peer that is not installed is said to be absent. The reach is that of the design. Each
bench leaves its figures in `.bench/`, without --small (see `records`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.bench import maps, page, records
from tests.bench.bucket import bucket
from tests.bench.cluster import cluster
from tests.bench.delta import delta
from tests.bench.engines import engines
from tests.bench.orthophotos import orthophotos
from tests.bench.programs import BIN, COMMANDS, interleaved, run, work
from tests.bench.report import report
from tests.bench.scale import scale
from tests.bench.shared_cache import shared_cache
from tests.bench.sync import sync
from tests.support.missions import NOW
from tests.support.stores import ROOT_FILE


def make_data(folder: Path, large: int, small: int) -> None:
    """8 files of `large` bytes and `small` files of 16 KiB, of random bytes."""
    random = Random(1)
    for number in range(8):
        with (folder / f"large-{number}").open("wb") as file:
            for _ in range(large // 2**20):
                file.write(random.randbytes(2**20))
    for number in range(small):
        inner = folder / f"{number % 200:03d}"
        inner.mkdir(exist_ok=True)
        (inner / f"small-{number}").write_bytes(random.randbytes(16 * 2**10))


def side_by_side(folder: Path, rounds: int, *, small: bool) -> dict[str, dict[str, float]]:
    """Insert and verify, ours and the peers', taking turns."""
    data = folder / "data"
    data.mkdir()
    make_data(data, 2**20 if small else 128 * 2**20, 50 if small else 20_000)
    os.sync()
    for path in data.rglob("*"):
        if path.is_file():
            path.read_bytes()  # warm

    count = 0

    def fresh(name: str) -> Path:
        """A new place each time: to make files right after others were deleted is slow on some file systems."""
        nonlocal count
        count += 1
        latest[name] = folder / f"{name}-{count}"
        os.sync()
        return latest[name]

    latest: dict[str, Path] = {}

    def copied() -> float:
        target = fresh("copy")
        return run("sh", "-c", f"cp -r '{data}' '{target}' && sync '{folder}' && sync -f '{folder}'")

    def ours() -> float:
        return run(sys.executable, "-m", "tests.bench.work", "insert", data, fresh("store"))

    def restic() -> float:
        run("restic", "init", "-q", "-r", fresh("restic"))
        return run("restic", "backup", "-q", "-r", latest["restic"], "--no-cache", data) + run("sync", "-f", folder)

    def borg() -> float:
        run("borg", "init", "-e", "none", fresh("borg"))
        return run("borg", "create", "-C", "none", f"{latest['borg']}::x", data) + run("sync", "-f", folder)

    def ostree() -> float:
        run("ostree", "init", f"--repo={fresh('ostree')}", "--mode=bare-user-only")
        return run("ostree", "commit", f"--repo={latest['ostree']}", "-b", "x", "--canonical-permissions", data) + run(
            "sync", "-f", folder
        )

    inserts: dict[str, Callable[[], float]] = {
        "cp -r and sync": copied,
        "flightbag": ours,
        "restic": restic,
        "borg": borg,
        "ostree": ostree,
    }
    result = {"insert": interleaved(inserts, rounds)}
    work("publish", latest["store"])
    (folder / "root").write_bytes(ROOT_FILE)
    sums = folder / "sums"
    if shutil.which("b3sum"):
        with sums.open("wb") as file:
            names = [str(path) for path in sorted(data.rglob("*")) if path.is_file()]
            subprocess.run(["xargs", "b3sum"], input="\n".join(names).encode(), stdout=file, check=True)
    store = latest["store"]
    verifies: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: run(sys.executable, "-c", "pass"),
        "b3sum --check": lambda: run("b3sum", "--check", "--quiet", sums),
        "flightbag verify": lambda: run(BIN / "flightbag", "verify", store, "--trust", folder / "root"),
        "store-fsck --full": lambda: run(BIN / "store-fsck", store, "--full"),
        "restic check --read-data": lambda: run(
            "restic", "check", "-q", "--read-data", "-r", latest["restic"], "--no-cache"
        ),
        "borg check --verify-data": lambda: run("borg", "check", "--verify-data", latest["borg"]),
        "ostree fsck": lambda: run("ostree", "fsck", f"--repo={latest['ostree']}", "-q"),
        "model_signing verify": lambda: run(
            *("model_signing", "verify", "key", "--public_key", folder / "ec.pub", "--signature", folder / "sig", data)
        ),
    }
    if shutil.which("model_signing"):
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "ec.key")
        run("openssl", "ec", "-in", folder / "ec.key", "-pubout", "-out", folder / "ec.pub")
        keyed = ("--private_key", folder / "ec.key", "--signature", folder / "sig")
        run("model_signing", "sign", "key", *keyed, data)
    result["verify"] = interleaved(verifies, rounds)

    shutil.rmtree(store / "index")  # a view, which a first copy of a folder would bring

    def copied_store() -> float:
        target = fresh("store-copy")
        return run("sh", "-c", f"cp -r '{store}' '{target}' && sync '{folder}' && sync -f '{folder}'")

    syncs: dict[str, Callable[[], float]] = {
        "cp -r and sync": copied_store,
        "flightbag sync": lambda: run(BIN / "flightbag", "sync", store, fresh("synced")),
    }
    result["first sync"] = interleaved(syncs, rounds)
    return result


def show(result: dict[str, dict[str, float]]) -> None:
    """The table, with the ratio to each yardstick."""
    for what, yardstick in (
        ("insert", "cp -r and sync"),
        ("verify", "b3sum --check"),
        ("first sync", "cp -r and sync"),
    ):
        times = result[what]
        base = times.get(yardstick)
        print(f"\n{what:28}{'seconds':>10}{'ratio':>8}")
        for name, seconds in times.items():
            ratio = f"{seconds / base:.2f}" if base else ""
            print(f"  {name:26}{seconds:>10.2f}{ratio:>8}")


def memory(folder: Path, *, small: bool) -> dict[str, Any]:
    """Peak memory of verify and of fsck --full, each in a fresh process."""
    result: dict[str, Any] = {}
    large = folder / "large"
    work("make-large", large, 16 * 2**20 if small else 4 * 2**30)
    work("publish", large)
    many = folder / "many"
    work("make-objects", many, 1000 if small else 1_000_000)
    work("publish", many, 100 if small else 100_000)
    for name, store in (("one object of 4 GB", large), ("1,000,000 objects", many)):
        for verb in ("verify", "audit"):
            result[f"{verb} of {name}"] = said = work(verb, store)
            print(f"{verb:8} {name:20} {said['seconds']:8.1f} s  peak {said['peak_mb']:6.0f} MB", flush=True)
    return result


def million(folder: Path, *, small: bool) -> dict[str, Any]:
    """The index of many objects: how long it takes to build, and to look one up."""
    count = 1000 if small else 1_000_000
    store = folder / "many"
    work("make-objects", store, count)
    result = {"rebuild": work("rebuild", store), "lookup": work("lookup", store, count)}
    built, found = result["rebuild"], result["lookup"]
    print(f"index of {count} objects built in {built['seconds']:.1f} s, peak {built['peak_mb']:.0f} MB")
    for what in ("index", "stat"):
        print(f"{what:6} p50 {found[what]['p50_us']:.2f} us, p99 {found[what]['p99_us']:.2f} us")
    size = (store / "index" / "data.mdb").stat()
    print(f"data.mdb takes {size.st_blocks * 512 / 1e6:.0f} MB")
    return result


def takeoff(folder: Path, *, small: bool) -> dict[str, Any]:
    """The takeoff check in a process of its own, of few objects and of as many as may be; one engine's proof."""
    (folder / "root").write_bytes(ROOT_FILE)
    result: dict[str, Any] = {}
    few, many = folder / "few", folder / "many"
    work("make-objects", few, 6)
    work("publish", few)
    work("make-objects", many, 1000 if small else 100_000)
    work("publish", many)
    code = "import store, sys\nv = store.takeoff_check(sys.argv[1], 'bench-0', trust=open(sys.argv[2], 'rb').read(), "
    code += f"now={NOW})\nassert v.go"
    # The program as it is installed, but for its clock: the missions of the bench are of one day.
    program = f"import time\ntime.time = lambda: {NOW}.0\nfrom tools.start import main\nmain()"
    for name, started in {
        "python -c pass": ("pass",),
        "flightbag --version": (program, "--version"),
        "import takeoff_check": ("import store\nstore.takeoff_check",),
        "takeoff_check, 6 objects": (code, few, folder / "root"),
        "flightbag verify of these": (program, "verify", few, "bench-0", "--trust", folder / "root"),
        "verify 100,000 entries": (code, many, folder / "root"),
    }.items():
        seconds = statistics.median(run(sys.executable, "-c", *started) for _ in range(9))
        result[name] = seconds
        print(f"{name:26} {seconds * 1000:8.0f} ms, a cold process and all", flush=True)
    result["verify of 100,000 entries"] = said = work("verify", many)
    print(f"{'  peak memory of that':26} {said['peak_mb']:8.0f} MB", flush=True)
    engine = folder / "engine"
    work("make-large", engine, 2**20 if small else 128 * 2**20)
    work("publish", engine)
    result["proof"] = said = work("proof", engine)
    ratio = said["proof_seconds"] / said["hash_seconds"]
    print(f"one engine of 128 MB by its proof {said['proof_seconds'] * 1000:.1f} ms, {ratio:.2f} x hashing the file")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {
        "memory": memory,
        "million": million,
        "takeoff": takeoff,
        "sync": sync,
        "bucket": bucket,
        "cluster": cluster,
        "cache": shared_cache,
        "engines": engines,
        "throughput": maps.throughput,
        "country": maps.country,
        "scale": scale,
        "orthophotos": orthophotos,
        "recall": maps.recall,
        "search": maps.search,
        "report": report,
        "delta": delta,
    }
    parser.add_argument("what", nargs="?", default="side", choices=("side", *measures, "write"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a try of the bench itself, in seconds")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    if given.what == "write":
        print(f"taken over: {', '.join(records.take_over()) or 'nothing'}")
        page.write()
        return
    with tempfile.TemporaryDirectory(prefix="flightbag-bench-") as name:
        folder = Path(name)
        if given.what == "side":
            result: dict[str, Any] = side_by_side(folder, given.rounds, small=given.small)
            show(result)
        else:
            result = measures[given.what](folder, small=given.small)
    if not given.small:
        print(f"recorded in {records.write_record(given.what, result, COMMANDS)}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
