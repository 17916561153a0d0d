"""A sync to a bucket and back beside a plain S3 client: both with eight requests at a time, against a server on
loopback, which has the processors in common with them."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.programs import BIN, ENVIRONMENT, interleaved, run, work
from tests.support.s3 import BUCKET, server

ROUNDS = 3
_AT_ONCE = 8
_CHUNK = 2**20


def bucket(folder: Path, *, small: bool) -> dict[str, dict[str, float]]:
    """The seconds of each program, up and down: many small objects, and a large one."""
    result: dict[str, dict[str, float]] = {}
    (folder / "s3").mkdir()
    with server(folder / "s3") as one:
        one.make_bucket(BUCKET)
        ENVIRONMENT.update(one.environment)
        count, size = (50, 1) if small else (2_000, 256)
        for title, make in (
            (f"{count:,} objects", ("make-objects", count)),
            (f"one object of {size} MB", ("make-large", size * 2**20)),
        ):
            source = folder / make[0]
            work(make[0], source, make[1])
            work("publish", source)
            result |= {f"{way}, {title}": times for way, times in _of(folder, source, 1 if small else ROUNDS).items()}
    for title, times in result.items():
        print(f"\n{title}", flush=True)
        for program, seconds in times.items():
            print(f"  {program:26}{seconds:>10.3f}{seconds / times['python client']:>8.2f}", flush=True)
    return result


def _of(folder: Path, source: Path, rounds: int) -> dict[str, dict[str, float]]:
    count = 0
    name = source.name

    def next_place() -> None:
        nonlocal count
        count += 1
        shutil.rmtree(folder / "down", ignore_errors=True)
        (folder / "down").mkdir()
        os.sync()

    def plain(verb: str, where: Path, what: str) -> float:
        return run(sys.executable, "-m", "tests.bench.bucket", verb, where, f"{what}-{name}-{count}")

    def url() -> str:
        return f"s3://{BUCKET}/ours-{name}-{count}"

    up = {
        "python client": lambda: plain("up", source, "plain"),
        "flightbag sync": lambda: run(BIN / "flightbag", "sync", source, url()),
        "flightbag sync, unchanged": lambda: run(BIN / "flightbag", "sync", source, url()),
    }
    first = interleaved(up, rounds, next_place)
    down = {
        "python client": lambda: plain("down", folder / "down" / "plain", "plain"),
        "flightbag sync": lambda: run(BIN / "flightbag", "sync", url(), folder / "down" / "ours"),
        "flightbag fsck --full": lambda: run(BIN / "flightbag", "fsck", url(), "--full"),
    }

    def same_place() -> None:
        nonlocal count
        next_place()
        count -= 1

    return {"up": first, "down": interleaved(down, rounds, same_place)}


def _plain(verb: str, folder: str, prefix: str) -> None:
    """What a program of a few lines does: put or get every file, and make what it got durable."""
    from obstore.store import S3Store

    store = S3Store(BUCKET, prefix=prefix)

    def put(path: Path) -> None:
        store.put(str(path.relative_to(folder)), path)

    def get(name: str) -> None:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in store.get(name).stream(_CHUNK):
                file.write(chunk)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        if verb == "up":
            paths = [path for path in Path(folder).rglob("*") if path.is_file()]
            list(
                pool.map(put, [path for path in paths if path.parts[len(Path(folder).parts)] not in ("index", "lock")])
            )
        else:
            list(pool.map(get, [one["path"] for page in store.list() for one in page]))
            os.sync()


if __name__ == "__main__":
    _plain(*sys.argv[1:])
