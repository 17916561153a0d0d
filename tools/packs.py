"""The commands that carry missions as one file, or several: pack, unpack."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any, BinaryIO

from store.disk.layout import open_store
from store.disk.media import CHUNK
from store.disk.opening import OtherType, nearest, open_file, type_name
from store.errors import FlightbagError, Invalid, Unavailable, either
from store.findings import Finding
from store.format.receipt import RECEIPT_LIMIT
from store.ground.repository import Repository
from store.ground.sync import held
from store.remotes.pack import Pack, carried_by, plan_pack, write_files, write_part
from store.remotes.unpack import Unpacked, unpack
from tools import render
from tools.arguments import Json, StoreOrMission, before_files, leading, mission_names, print_lines
from tools.lines import cut
from tools.named_remotes import folder_named, remote_names
from tools.parameters import Argument, Option
from tools.patience import Bound, patience
from tools.progress import bytes_bar, reading_bar
from tools.status import NO, OK, error_json, exits, fail, notice, print_json, status_of, warn, writes
from tools.streams import write_output
from tools.sync import effect, refusals

_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?) ?([kMGT]?B)?")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
# The most numbers of parts that a line lists.
_LISTED = 10


@exits(
    kept="each bag or part under its name is whole; a pipe received half a bag, which unpack refuses; pack again",
    acts=writes,
)
def pack_command(
    store: StoreOrMission,
    missions: Annotated[
        list[str] | None,
        Argument(metavar="MISSION", help="The missions to pack. Without any, all of them.", offers=mission_names),
    ] = None,
    output: Annotated[
        str,
        Option("-o", "--output", metavar="FILE", help="The bag to write, or - for standard output."),
    ] = "",
    against: Annotated[
        str | None,
        Option(
            metavar="STORE|RECEIPT",
            help="Pack only what the other side lacks: its store, a copy of it, or a receipt of an aircraft.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        Option(metavar="4GB", help="Write parts of at most this size: FILE with 01-of-12 in its name, and so on."),
    ] = None,
    delta: Annotated[
        bool,
        Option(
            "--delta",
            help="Where an object is much like one that the store of --against has, pack the difference. "
            "Both sides need the extra `remotes`.",
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Pack missions into one file, a plain tar. The same missions give the same bytes.

    Example: flightbag pack ground north-ridge -o bag.tar
    """
    if not output:
        raise Invalid("-o is missing", remedy="give -o FILE, or -o - for standard output")
    against = None if against is None else folder_named(against, "--against")
    receipt = None if against is None else _receipt(against)
    if delta and (against is None or receipt is not None):
        raise Invalid("--delta needs --against STORE", remedy="give the store that the difference is from")
    stream = _stream(output, split, as_json=as_json)
    places = f"{store} or {'standard output' if output == '-' else output}"
    with patience(Bound(places, None, as_json=as_json)), Repository.open(store) as source, held(source):
        carried = frozenset() if receipt is None else carried_by(source, receipt, str(against))
        with nullcontext() if against is None or receipt is not None else Repository.open(against) as target:
            most = None if split is None else size_of(split)
            bag = plan_pack(source, target, missions or (), split=most, carried=carried, delta=delta)
        with bytes_bar("packing", sum(bag.sizes)) as progress:
            if stream is None:
                files = write_files(bag, source, output, progress=progress)
            else:
                files = [output]
                with stream as write:
                    write_part(bag, 0, source, write, progress)
    status = NO if bag.plan.newer or bag.plan.refused else OK
    if as_json:
        print_json(_packed_json(bag, files), refusals(bag.plan))
    elif output != "-":
        print_lines(_packed(bag, files))
    else:  # standard output has the bag
        tell = notice if status == OK else warn
        tell(*_packed(bag, files))
    return status


def _receipt(path: str) -> bytes | None:
    """Return the bytes of the receipt at a path, at most one more than a receipt may have; None for a folder."""
    try:
        fd, _ = open_file(path, follow=True)
        with open(fd, "rb") as file:
            return file.read(RECEIPT_LIMIT + 1)
    except (OtherType, FileNotFoundError):
        return None  # a folder, or nothing: whoever opens the store says so
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}"
        raise Unavailable(text, kind="unreadable", path=path, errno=error.errno) from error


def size_of(text: str) -> int:
    """Return the bytes of a size such as 700MB, in powers of ten. Raise Invalid for any other text."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:80]!r} is not a size", remedy="give bytes, or a size like 512kB, 700MB or 4GB")
    return int(float(match[1]) * _UNITS[match[2] or "B"])


def _stream(output: str, split: str | None, *, as_json: bool) -> Any:
    """Return a context with the function that writes to a stream, None for a bag that is written as a file."""
    if output == "-":
        for given, option in ((split is not None, "--split"), (as_json, "--json")):
            if given:
                text = f"{option} and -o - exclude each other"
                raise Invalid(text, remedy="give -o FILE: standard output takes one bag and nothing else")
        if sys.stdout.isatty():
            raise Invalid("the bag would go to the terminal", remedy="give -o FILE, or a pipe")
        return nullcontext(write_output)
    try:
        mode = os.stat(output).st_mode
    except OSError:
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return None
    if split is not None:
        raise Invalid(f"--split needs files, and {output} is a {type_name(mode)}", remedy="give -o FILE")
    return _opened_stream(output)


@contextmanager
def _opened_stream(path: str) -> Iterator[Callable[[bytes | bytearray], None]]:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(path, error) from error

    def write(data: bytes | bytearray) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            raise _unwritable(path, error) from error

    try:
        yield write
    finally:
        os.close(fd)


def _unwritable(path: str, error: OSError) -> Unavailable:
    text = f"{path} cannot be written: {error.strerror}"
    return Unavailable(text, kind="unwritable", path=path, errno=error.errno)


def _packed(bag: Pack, files: list[str]) -> Iterator[str]:
    plan = bag.plan
    present = f"; the other side has {plan.present}" if plan.present else ""
    yield f"packed {render.many(len(plan.missing), 'object')}, {render.size(plan.bytes)}{present}"
    if bag.differences:
        small, large = (sum(sizes) for sizes in zip(*((one.size, one.whole) for one in bag.differences), strict=True))
        yield (
            f"of {render.many(len(bag.differences), 'object')} the difference: {render.size(small)} in the place of "
            f"{render.size(large)}"
        )
    if carried := sorted([*(move.mission for move in plan.moves), *plan.unchanged]):
        yield from render.listed("missions:", carried)
    if plan.newer:
        yield from render.listed("NOT packed, because the other side has a newer one:", plan.newer)
    for mission, why in plan.refused:
        yield f"NOT packed: {mission}: {why}"
    for path, size in zip(files, bag.sizes, strict=True):
        yield f"wrote {'standard output' if path == '-' else path}, {render.size(size)}"


def _packed_json(bag: Pack, files: list[str]) -> dict[str, Any]:
    plan = bag.plan
    return {
        "bag": bag.heads[0].bag,
        "objects": len(plan.missing),
        "bytes": plan.bytes,
        "present": plan.present,
        "differences": len(bag.differences),
        "missions": sorted([*(move.mission for move in plan.moves), *plan.unchanged]),
        "newer_at_target": list(plan.newer),
        "refused": [{"mission": mission, "why": why} for mission, why in plan.refused],
        "files": [{"path": path, "bytes": size} for path, size in zip(files, bag.sizes, strict=True)],
    }


def _target(store: str | None, after: Sequence[str]) -> str:
    """Return the store to unpack to. Raise NoStore where none is given and none can be found: none is created there."""
    target = before_files(store, after)
    if store is None:
        open_store(target).close()
    return target


@exits(
    kept="objects that were unpacked stay, and a mission appears only with all of its objects; "
    "the same unpack writes what is missing",
    acts=writes,
)
def unpack_command(
    target: Annotated[
        str,
        leading(
            "The store to unpack to. One that is given is created if it does not exist.",
            _target,
            is_first=lambda _: True,
            offers=remote_names,
        ),
    ],
    bags: Annotated[
        list[str],
        Argument(metavar="BAG", help="The bags, or parts of one in any order; - is standard input."),
    ],
    as_json: Json = False,
) -> int:
    """Unpack bags into a store, and verify them while they are read. What was unpacked before is not written again.

    Of a bag in parts, each part may come by itself: its missions appear with the last one.

    Example: flightbag unpack /media/stick/store bag.tar
    """
    target = folder_named(target, "STORE")
    if os.path.isfile(target) and len(bags) == 1 and not os.path.isfile(bags[0]):
        text = f"{target} is a file, and the first argument is the store to unpack to"
        raise Invalid(text, remedy=f"give the store first: {bags[0]} {target}", path=target)
    outcomes: list[tuple[str, Unpacked | FlightbagError]] = []
    places = either(["standard input" if path == "-" else path for path in (*bags, target)])
    with patience(Bound(places, None, as_json=as_json)), reading_bar("unpacking") as progress:
        for path in bags:
            try:
                with _opened(path) as stream:
                    what = "standard input" if path == "-" else path
                    outcomes.append((path, unpack(stream, what, target, progress=progress)))
            except FlightbagError as error:
                # Another part may be whole. A store that takes nothing is the same for all of them.
                if len(bags) == 1 or (isinstance(error, Unavailable) and error.kind != "missing"):
                    if as_json:
                        print_json(_unpacked_json(outcomes))
                    raise
                outcomes.append((path, error))
    # Of each bag, the outcome that counts: it took effect, or the last part tells what is still to come.
    last: dict[str, Unpacked] = {}
    for _, one in outcomes:
        if isinstance(one, Unpacked) and (one.head.bag not in last or last[one.head.bag].plan is None):
            last[one.head.bag] = one
    errors = [one for _, one in outcomes if isinstance(one, FlightbagError)]
    if as_json:
        print_json(_unpacked_json(outcomes), _findings(outcomes, last.values()))
    else:
        for path, one in outcomes:
            if isinstance(one, Unpacked):
                print_lines(_unpacked(path, one))
        for one in last.values():
            print_lines(_lacking(one))
        for failed in errors:
            fail(failed, as_json=False)
    whole = all(one.plan is not None and not one.plan.newer and not one.plan.refused for one in last.values())
    return max([OK if whole else NO, *map(status_of, errors)])


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        if sys.stdin.isatty():
            raise Invalid("standard input is the terminal", remedy="give the file of a bag, or a pipe")
        yield sys.stdin.buffer
        return
    try:
        fd, _ = open_file(path, os.O_RDONLY, follow=True, accept=_is_readable)
    except FileNotFoundError as error:
        near = nearest(path)
        remedy = f"{f'give {near}, or ' if near else ''}check the path, and that its medium is mounted; "
        remedy += "STORE comes first, then the bags"
        raise Unavailable(f"{path} does not exist", remedy=remedy, kind="missing", path=path) from error
    except OtherType as error:
        text = f"{path}: expected a bag, found a {type_name(error.mode)}"
        raise Invalid(text, remedy="give the files that `flightbag pack` wrote", path=path) from error
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}"
        raise Unavailable(text, kind="unreadable", path=path, errno=error.errno) from error
    with open(fd, "rb", buffering=CHUNK) as stream:
        yield stream


def _is_readable(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _unpacked(path: str, one: Unpacked) -> Iterator[str]:
    part = f", part {one.head.part} of {one.head.parts}" if one.head.parts > 1 else ""
    new = f"{render.many(one.inserted, 'object')}, {render.size(one.bytes)}"
    yield f"unpacked {'standard input' if path == '-' else path}{part}: {new}; {one.present} already present"
    if one.plan is not None:
        yield from effect(one.plan, dry_run=False)


def _lacking(one: Unpacked) -> Iterator[str]:
    if one.lacking:
        named, more = cut(one.lacking, _LISTED)
        numbers = ", ".join(map(str, named)) + (f" and {more} more" if more else "")
        parts = "part" if len(one.lacking) == 1 else "parts"
        yield f"still to come: {parts} {numbers} of {one.head.parts}; until then no mission of this bag is updated"


def _findings(outcomes: Sequence[tuple[str, Unpacked | FlightbagError]], last: Iterable[Unpacked]) -> list[Finding]:
    """Return what is wrong with some of the bags, and what is still to come."""
    found = [Finding.of(one) for _, one in outcomes if isinstance(one, FlightbagError)]
    for bag in last:
        if bag.lacking:
            found.append(Finding("incomplete-bag", next(_lacking(bag))))
        if bag.plan is not None:
            found += refusals(bag.plan)
    return found


def _unpacked_json(outcomes: Sequence[tuple[str, Unpacked | FlightbagError]]) -> dict[str, Any]:
    return {"bags": [_bag_json(path, one) for path, one in outcomes]}


def _bag_json(path: str, one: Unpacked | FlightbagError) -> dict[str, Any]:
    if isinstance(one, FlightbagError):
        return {"path": path, "error": error_json(one)}
    value: dict[str, Any] = {
        "path": path,
        "bag": one.head.bag,
        "part": one.head.part,
        "parts": one.head.parts,
        "inserted": one.inserted,
        "bytes": one.bytes,
        "present": one.present,
        "lacking": list(one.lacking),
    }
    if one.plan is not None:
        value |= {
            "missions": [move.mission for move in one.plan.moves],
            "unchanged": list(one.plan.unchanged),
            "newer_at_target": list(one.plan.newer),
            "refused": [{"mission": mission, "why": why} for mission, why in one.plan.refused],
            "trust_roots": list(one.plan.roots),
            "files": [file.name for file in one.plan.files],
        }
    return value
