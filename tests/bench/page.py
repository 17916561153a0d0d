"""docs/benchmarks.md, made of the records of the bench (see `records`). Pure, but for `write`.

The prose of the page is `page.md`. A line there that is the name of a function of this module in braces stands for the
lines which that function makes. A figure that was never measured is an empty cell, never a zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench import records

PAGE = records.ROOT / "docs/benchmarks.md"
README = records.ROOT / "README.md"
_SUMMARY = re.compile(r"^On 1\.4 GB in 20,008 objects, .*$", re.M)
PROSE = Path(__file__).parent / "page.md"

Records = Mapping[str, Any]


class Aim(NamedTuple):
    """A row of the design's table: what is measured, the bench, the figures in its record, and what it must reach.

    `figure` gives the ratio or the quantity that has to be at most (or, with `least`, at least) `reach`.
    """

    work: str
    yardstick: str
    bench: str
    figure: Callable[[Any], float]
    unit: str
    reach: float
    least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.reach if self.least else value <= self.reach


def _ratio(of: str, to: str, *path: str) -> Callable[[Any], float]:
    def figure(figures: Any) -> float:
        for name in path:
            figures = figures[name]
        return float(figures[of] / figures[to])

    return figure


_LARGEST = "100,000 objects in 100 missions"
_ENTRY = "seconds to check an entry of the table"
AIMS = (
    Aim(
        "insert 1.4 GB (8 x 128 MB, 20,000 x 16 KB), durable", "`cp -r` and sync", "side",
        _ratio("flightbag", "cp -r and sync", "insert"), " x", 1.0,
    ),
    Aim(
        "verify every byte of it, process and all", "`b3sum --check`", "side",
        _ratio("flightbag verify", "b3sum --check", "verify"), " x", 1.2,
    ),
    Aim(
        "`store-fsck --full` of it", "`b3sum --check`", "side",
        _ratio("store-fsck --full", "b3sum --check", "verify"), " x", 1.4,
    ),
    Aim(
        "a full table parsed, checked, Merkle root", "", "scale",
        lambda f: f["measured"][_ENTRY] * 1e6, " µs an entry", 5,
    ),
    Aim(
        f"`sync` with nothing to do, {_LARGEST}", "`rsync -a`", "sync",
        _ratio("flightbag sync", "rsync -a", f"nothing to do, {_LARGEST}"), " x", 1.0,
    ),
    Aim(
        "`sync` of one changed object among them", "`rsync -a`", "sync",
        _ratio("flightbag sync", "rsync -a", f"one object changed, {_LARGEST}"), " x", 1.0,
    ),
    Aim(
        "first `sync` of the 1.4 GB", "`cp -r` and sync", "side",
        _ratio("flightbag sync", "cp -r and sync", "first sync"), " x", 0.8,
    ),
    Aim("unchanged build, 100,000 tiles", "", "country", lambda f: f["100000"]["unchanged"]["seconds"], " s", 0.78),
    Aim(
        "describing the map", "the bare session, best batch", "throughput",
        lambda f: max(row["of_best_bare"] for name, row in f.items() if name.startswith("ours cpu")),
        " x", 0.95, least=True,
    ),
    Aim(
        "units on a cluster of 4 workers", "4 x one worker", "cluster",
        lambda f: _rate(f["scaling"]["4 workers"]) / _rate(f["scaling"]["1 workers"]) / 4, " x", 0.85, least=True,
    ),
    Aim("report of 100,000 tiles, made", "", "report", lambda f: f["noise"]["seconds"], " s", 2),
    Aim("its size", "", "report", lambda f: f["noise"]["bytes"] / 1e6, " MB", 2),
    Aim("opened in a browser", "", "report", lambda f: f["noise"]["open_s"], " s", 1),
)  # fmt: skip


def _rate(said: Mapping[str, float]) -> float:
    return said["units"] / said["seconds"]


def aims(found: Records) -> Iterator[str]:
    """Each row of the design's table with what was measured, and the rows that miss their reach by name."""
    rows, missed, unmeasured = [], [], []
    for aim in AIMS:
        value = _value(aim, found)
        sign = "at least" if aim.least else "at most"
        reach = f"{sign} {_number(aim.reach)}{aim.unit}"
        if value is None:
            unmeasured.append(aim.work)
            rows.append((aim.work, aim.yardstick, "not measured", reach, "", ""))
            continue
        met = aim.met(value)
        if not met:
            missed.append(f"{aim.work} ({_number(value)}{aim.unit}; the aim is {reach})")
        verdict = "reached" if met else "**missed**"
        rows.append((aim.work, aim.yardstick, f"{_number(value)}{aim.unit}", reach, verdict, _when(aim.bench, found)))
    yield from _table(("work", "yardstick", "measured", "aim", "", "bench, day"), rows)
    yield ""
    yield "Missed: " + ("; ".join(missed) + "." if missed else "none.")
    if unmeasured:
        yield ""
        yield f"Not measured: {'; '.join(unmeasured)}."


def _value(aim: Aim, found: Records) -> float | None:
    try:
        return aim.figure(found[aim.bench]["figures"])
    except (KeyError, TypeError):  # not measured, or measured without the peer or the browser
        return None


def _when(bench: str, found: Records) -> str:
    return f"`{bench}`, {found[bench]['date']}"


def side(found: Records) -> Iterator[str]:
    """Insert, verify and the first sync beside the peers."""
    figures = found["side"]["figures"]
    rows = []
    for what, base, works in (
        ("insert, durable at the end", "cp -r and sync", figures["insert"]),
        ("every byte", "b3sum --check", figures["verify"]),
        ("first sync, durable at the end", "cp -r and sync", figures.get("first sync", {})),
    ):
        for number, (name, seconds) in enumerate(works.items()):
            ratio = _number(seconds / works[base]) if base in works else ""
            rows.append(("" if number else what, f"`{name}`", _number(seconds), ratio))
    yield from _table(("work", "program", "seconds", "ratio"), rows)


def sync(found: Records) -> Iterator[str]:
    """Syncs by size."""
    rows = []
    for title, times in found["sync"]["figures"].items():
        match = _SIZE.fullmatch(title)
        assert match is not None, title
        what, size = match.groups()
        base = times.get("cp -r and sync") or times.get("rsync -a")
        ours = times["flightbag sync"]
        beside = [_number(times[name]) if name in times else "" for name in _SYNCED]
        rows.append((what, size, _number(ours), _number(ours / base) if base else "", *beside))
    yield from _table(("work", "objects", "`flightbag sync`", "ratio", *(f"`{name}`" for name in _SYNCED)), rows)


_SIZE = re.compile(r"(.+), ([0-9,]+ objects in [0-9]+ missions)")
_SYNCED = ("cp -r and sync", "rsync -a", "rsync -a and sync", "restic copy", "ostree pull-local")


def takeoff(found: Records) -> Iterator[str]:
    """The takeoff check, cold; memory; the index."""
    rows: list[tuple[str, str, str]] = []

    def add(bench: str, what: str, text: Callable[[Any], str]) -> None:
        try:
            rows.append((what, text(found[bench]["figures"]), _when(bench, found)))
        except KeyError:
            rows.append((what, "not measured", ""))

    def ms(name: str) -> Callable[[Any], str]:
        return lambda figures: f"{_number(figures[name] * 1000)} ms"

    def peak(name: str) -> Callable[[Any], str]:
        return lambda figures: f"{_number(figures[name]['seconds'])} s, {_number(figures[name]['peak_mb'])} MB"

    add("takeoff", "a cold process that runs nothing (`python -c pass`)", ms("python -c pass"))
    add("takeoff", "one that imports `store` and verifies a mission of six objects", ms("takeoff_check, 6 objects"))
    add("takeoff", "`flightbag --version`", ms("flightbag --version"))
    add("takeoff", "`flightbag verify` of these six objects", ms("flightbag verify of these"))
    add("takeoff", "verify a mission of 100,000 entries", peak("verify of 100,000 entries"))
    add(
        "takeoff", "one engine of 128 MB by its proof, beside hashing its file",
        lambda figures: f"{_number(figures['proof']['proof_seconds'] / figures['proof']['hash_seconds'])} x",
    )  # fmt: skip
    for what in ("one object of 4 GB", "1,000,000 objects"):
        add("memory", f"verify {what}", peak(f"verify of {what}"))
        add("memory", f"`fsck --full` of {what}", peak(f"audit of {what}"))
    add("million", "the index of 1,000,000 objects, rebuilt", lambda f: f"{_number(f['rebuild']['seconds'])} s")
    for name, what in (("index", "one lookup in it"), ("stat", "a stat call")):
        add("million", f"{what}, p99", lambda f, name=name: f"{_number(f['lookup'][name]['p99_us'])} µs")  # type: ignore[misc]
    yield from _table(("what", "figure", "bench, day"), rows)


def engines(found: Records) -> Iterator[str]:
    """A cache hit, and cold loads."""
    figures = found["engines"]["figures"]
    hit = figures["hit"]
    yield (
        f"A cached lookup confirms an engine of {_number(hit['bytes'] / 1e6)} MB in {_number(hit['p50_us'])} µs (p99 "
        f"{_number(hit['p99_us'])} µs); hashing its file takes {_number(hit['hash_ms'])} ms. A cold load, reading and "
        "hashing included, on one thread, medians of 5:"
    )
    yield ""
    rows = [
        (name, _number(row["read"] + row["open"]), _number(row["peak_mb"])) for name, row in figures["loads"].items()
    ]
    yield from _table(("engine", "seconds", "peak memory, MB"), rows)


def throughput(found: Records) -> Iterator[str]:
    """Describing, decoding, and the bare session."""
    rows = [
        (name, _number(row["rate"]), _number(row["of_best_bare"]), _number(row["peak_mb"]))
        for name, row in found["throughput"]["figures"].items()
    ]
    head = ("way, by, batch", "tiles a second", "of the bare session's best", "peak memory, MB")
    yield from _table(head, rows)


def country(found: Records) -> Iterator[str]:
    """Missions of many tiles."""
    works = ("plan", "build", "unchanged", "unchanged, reading", "verify")
    rows = [
        (
            f"{int(tiles):,}",
            f"{row['entries']:,}",
            *(f"{_number(row[work]['seconds'])} s" for work in works),
            f"{_number(row['build']['peak_mb'])} MB",
        )
        for tiles, row in found["country"]["figures"].items()
    ]
    names = ("plan", "build", "unchanged", "unchanged, every tile read", "verify", "peak memory of the build")
    yield from _table(("tiles", "entries", *names), rows)


def recall(found: Records) -> Iterator[str]:
    """Recall at 1 and 5, by exact search."""
    figures = found["recall"]["figures"]["recall"]
    levels = sorted({(row["zoom"], row["rows"]) for row in figures})
    by = {(row["way"], row["zoom"]): row for row in figures}
    rows = []
    for way in dict.fromkeys(row["way"] for row in figures):
        cells = []
        for zoom, _ in levels:
            row = by.get((way, zoom))
            cells.append("" if row is None else ", ".join(f"{figure:.2f}" for figure in row["exact"]))
        rows.append((way, *cells))
    yield from _table(("asked with", *(f"zoom {zoom}, {count} rows" for zoom, count in levels)), rows)


def search(found: Records) -> Iterator[str]:
    """Exact search over many rows."""
    one = found["search"]["figures"]
    yield (
        f"{one['rows']:,} x {one['dim']} float16 are searched exactly in {_number(one['ms_1'] / 1000)} s a query, 32 "
        f"queries in {_number(one['ms_32'] / 1000)} s, with {_number(one['extra_mb'])} MB beyond the rows."
    )


def cluster(found: Records) -> Iterator[str]:
    """Scaling, the driver, and losses."""
    figures = found["cluster"]["figures"]
    scaling, build = figures["scaling"], figures["build"]
    one = _rate(scaling["1 workers"])
    rows = []
    for name, said in scaling.items():
        if name.endswith(" workers"):
            count = int(name.partition(" ")[0])
            rows.append(
                (
                    f"units of half a second a second, {name}",
                    f"{_number(_rate(said))}: {_rate(said) / one / count:.2f} n",
                )
            )
        else:
            rows.append((f"{name}, a second", f"{_number(_rate(said))}, the driver at {_number(said['peak_mb'])} MB"))
    same = "those of this machine" if build["same identity and objects"] else "OTHERS than those of this machine"
    rows.append((f"{build['cells']} cells on 4 nodes, two killed, one added: identity and objects", same))
    again = build["again"]
    rows.append(
        (
            "a build killed in the middle, and begun again",
            f"{'the same' if again['same'] else 'OTHERS'}; the second described {again['described']:,} of "
            f"{again['rows']:,} rows",
        )
    )
    yield from _table(("what", "figure"), rows)


def machines(found: Records) -> Iterator[str]:
    """Which bench ran when, where and with what; and the command lines of the programs that took turns."""
    newest = max(record["date"] for record in found.values())
    rows = []
    for name, record in sorted(found.items()):
        day = record["date"] + ("" if record["date"] == newest else ", not run again since")
        versions = ", ".join(f"{library} {version}" for library, version in record["versions"].items())
        rows.append((f"`python -m tests.bench {name}`", day, record["machine"], versions))
    yield from _table(("bench", "day", "machine", "versions"), rows)
    lines = [
        (f"`{program}`", "; ".join(f"`{line.replace('|', chr(92) + '|')}`" for line in commands))
        for name in ("side", "sync")
        if name in found
        for program, commands in found[name]["commands"].items()
    ]
    if lines:
        yield ""
        yield "The command lines, in the folder of the bench; a number that makes a folder new is left out:"
        yield ""
        yield from _table(("program", "command lines"), list(dict.fromkeys(lines)))


def summary(found: Records) -> str:
    """Return the sentence of README about speed."""
    times = found["side"]["figures"]
    insert, verify = times["insert"], times["verify"]
    return (
        f"On 1.4 GB in 20,008 objects, `verify` takes {_number(verify['flightbag verify'])} s (`b3sum`: "
        f"{_number(verify['b3sum --check'])}), a durable insert {_number(insert['flightbag'])} s (`cp -r` and sync: "
        f"{_number(insert['cp -r and sync'])})."
    )


SECTIONS = (aims, side, sync, takeoff, engines, throughput, country, recall, search, cluster, machines)


def render(found: Records, prose: str) -> str:
    """Return the page: the prose, with the lines of each section in the place of its name."""
    lines: list[str] = []
    sections = {f"{{{section.__name__}}}": section for section in SECTIONS}
    for line in prose.splitlines():
        section = sections.pop(line, None)
        lines += [line] if section is None else section(found)
    if sections:
        raise ValueError(f"the prose lacks {', '.join(sections)}")
    return "\n".join(lines) + "\n"


def write() -> None:
    """Write docs/benchmarks.md, and the sentence about speed in README, of the committed records."""
    found = records.read()
    PAGE.write_text(render(found, PROSE.read_text()))
    readme = README.read_text()
    README.write_text(_SUMMARY.sub(lambda _: summary(found), readme))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |".replace("|  |", "| |")


def _number(value: float | None) -> str:
    """Return a figure with three digits that count, and no power of ten; "" for one that was not measured."""
    return "" if value is None else f"{float(f'{value:.3g}'):,.10g}"
