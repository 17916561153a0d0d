"""Attacks by a bag: members that lead elsewhere, that lie about their bytes, or that are more than they say."""

from __future__ import annotations

import functools
import io
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from store.disk.media import object_path
from store.errors import FlightbagError
from store.format.ids import ObjectId
from store.format.receipt import RECEIPT_LIMIT
from store.format.ref import REF_SIZE
from store.format.withdrawal import FILE_LIMIT
from store.remotes.pack import Head, write_part
from store.remotes.tar import END, Member, TarReader, padding, render, render_comment
from store.remotes.unpack import unpack
from tests.conformance.attacks import GO, Groups, Row
from tests.support.missions import ROOT, flight, sign_root
from tests.support.stores import CAMERA, ENGINE, NORTH, SOUTH, audit, check, copy_of, later, listing, make_store

NEW = later(NORTH, big=bytes(20_000))
File = tuple[str, bytes]


@functools.cache
def bag_of(split: int | None = None, domain: str = "") -> tuple[bytes, ...]:
    """The bag of a store, or its parts; with a domain, of a store of that one."""
    from store.ground.repository import Repository
    from store.remotes.pack import plan_pack

    with tempfile.TemporaryDirectory() as folder:
        root = replace(ROOT, domain=domain or ROOT.domain)
        mission = flight(root=root) if domain else NEW
        store = make_store(Path(folder) / "store", mission, root=sign_root(root, "root-a"))
        parts = []
        with Repository.open(store) as source:
            pack = plan_pack(source, None, (), split=split)
            for number in range(len(pack.parts)):
                out = bytearray()
                write_part(pack, number, source, out.extend)
                parts.append(bytes(out))
        return tuple(parts)


def files_of(bag: bytes) -> list[File]:
    reader = TarReader(io.BytesIO(bag), "bag")
    Head.read(reader)
    return [(member.name, reader.data()) for member in reader.members()]


def head_of(bag: bytes) -> Head:
    return Head.read(TarReader(io.BytesIO(bag), "bag"))


def bag_with(files: Iterable[File], like: bytes, **changes: object) -> bytes:
    """A bag of these files, with a head that counts them."""
    files = list(files)
    head = replace(head_of(like), members=len(files), bytes=sum(len(data) for _, data in files))
    head = replace(head, **changes)  # type: ignore[arg-type]
    members = (render(Member(name, len(data))) + data + padding(len(data)) for name, data in files)
    return render_comment(head.render()) + b"".join(members) + END


def raw(header: bytes, bag: bytes) -> bytes:
    """The bag with bytes of somebody else before its members."""
    return bag[:1024] + header + bag[1024:]


def unpacked(bags: tuple[bytes, ...], folder: Path) -> str:
    """Bags unpacked one after the other, into a store with North and South. What it had flies, whatever the bag was;
    nothing lies outside, and no mission is there that does not verify."""
    store = copy_of(before(), folder / "store")
    outside, inside = listing(folder, but=("store",)), listing(store, but=("lock", "tmp"))
    came = GO
    for bag in bags:
        try:
            done = unpack(io.BytesIO(bag), "bag.tar", store)
        except FlightbagError as error:
            came = error.kind
            break
        came = GO if done.plan is not None and not done.plan.refused else "refused" if done.plan else "lacking"
    assert listing(folder, but=("store",)) == outside
    if came != GO and listing(store, but=("lock", "tmp")) == inside:
        return came
    assert check(store, SOUTH.id).go
    verdict = check(store, NORTH.id)
    assert verdict.mission is not None, verdict.findings
    assert verdict.mission.manifest_id == (NEW if came == GO else NORTH).manifest_id
    assert not audit(store).errors
    return came


@functools.cache
def _before() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    make_store(Path(folder.name) / "store", NORTH, SOUTH)
    return folder


def before() -> Path:
    return Path(_before().name) / "store"


def written_by_tarfile(format_: int = tarfile.USTAR_FORMAT, **facts: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as tar:
        info = tarfile.TarInfo("trust/9.root.cbor")
        for name, value in facts.items():
            setattr(info, name, value)
        tar.addfile(info, io.BytesIO(b"x" * info.size))
    return out.getvalue()[: -(-len(out.getvalue()) // 512) * 512].rstrip(b"\0").ljust(512, b"\0")


def changed(files: list[File], name: str, change: Callable[[bytes], bytes]) -> list[File]:
    return [(one, change(data) if one == name else data) for one, data in files]


def bags() -> Iterator[Row]:
    (bag,) = bag_of()
    files = files_of(bag)
    parts = bag_of(split=9216)
    assert len(parts) > 3
    yield "the-original", GO, (bag,)
    yield "in-parts", GO, parts
    yield "in-parts-backwards", GO, parts[::-1]
    yield "a-part-twice", GO, (parts[0], *parts)
    yield "written-again", GO, (bag_with(files, bag),)
    names = (
        "../outside", "/outside", "missions/../../outside", "objects/../missions/x", "./missions/x", "missions//x",
        "Missions/north-ridge", "missions/North-Ridge", "MISSIONS/NORTH-RIDGE", "flightbag.TOML", "missions",
        "missions/", "missions/a/b", "objects/ab", f"objects/AB/{'0' * 62}", f"objects/ab/{'0' * 61}",
        f"objects/ab/{'0' * 63}",
        "trust/0.root.cbor", "trust/01.root.cbor", "trust/1.root.cbor.bak", "trust/releases/winter", "index/data.mdb",
        "index/owner", "lock/store", "tmp/x/y", "trash/20260101T000000Z/x", "quarantine/20260101T000000Z/x", "pins/x",
        "missions/con.txt", "missions/nul ", "missions/x:y", "C:/outside", "missions/x\\..\\y", "missions/.hidden",
        "desktop.ini", "missions/._north-ridge",
        "drafts/thumbs.db", "drafts/.", "orders/..", "bags/x", "missions/caf\x01", "log/x", "x",
        f"bags/{'0' * 32}/pieces/{'0' * 64}-9/0-{'0' * 64}",
        "orders/x", "results/x", "receipts/x", "withdrawn/x", "/flightbag.toml",
    )  # fmt: skip
    for name in names:
        yield f"name-{name!r}", "bad-name", (bag_with([(name, b""), *files], bag),)
    for name in ("missions/x", "trust/2.root.cbor", "drafts/x", f"orders/{'0' * 64}", "flightbag.toml"):
        yield f"early-{name}", "out-of-order", (bag_with([(name, b""), *files], bag),)
    yield "twice-an-object", "doubled", (bag_with([files[0], *files], bag),)
    yield "twice-a-ref", "doubled", (bag_with([*files, files[-1]], bag),)
    yield "twice-a-root", "doubled", (bag_with([*files[:-1], files[-2], files[-1]], bag),)
    kinds = {
        "symlink": tarfile.SYMTYPE, "hard-link": tarfile.LNKTYPE, "character-device": tarfile.CHRTYPE,
        "block-device": tarfile.BLKTYPE, "fifo": tarfile.FIFOTYPE, "directory": tarfile.DIRTYPE,
        "sparse": tarfile.GNUTYPE_SPARSE,
    }  # fmt: skip
    for what, type_ in kinds.items():
        header = written_by_tarfile(tarfile.GNU_FORMAT, type=type_, linkname="../../outside")
        yield f"type-{what}", "wrong-type", (raw(header, bag),)
    headers = {
        "by-gnu": written_by_tarfile(tarfile.GNU_FORMAT),
        "long-name": written_by_tarfile(tarfile.GNU_FORMAT, name="x/" * 2000 + "x"),
        "long-link": written_by_tarfile(tarfile.GNU_FORMAT, linkname="x/" * 2000, type=tarfile.SYMTYPE),
        "base-256": written_by_tarfile(tarfile.GNU_FORMAT, mtime=2**40),
        "contiguous": written_by_tarfile(type=tarfile.CONTTYPE),
        "set-uid": written_by_tarfile(mode=0o4755),
        "owner": written_by_tarfile(uid=1000, uname="root"),
        "time": written_by_tarfile(mtime=1),
        "old-type": written_by_tarfile(type=tarfile.AREGTYPE),
        "pax-path": written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"path": "../outside"}),
        "pax-linkpath": written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"linkpath": "../outside"}),
        "pax-sparse": written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"GNU.sparse.major": "1"}),
        "pax-bomb": written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 10**7}),
        "pax-many": written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={f"k{n}": "v" for n in range(50_000)}),
        "pax-small-size": written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"size": "1"}),
        "pax-negative-size": written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"size": "-1"}),
        "second-head": bag[:1024],
        "checksum": bytes(148) + b"000000\0 " + bytes(356),
    }
    for what, header in headers.items():
        yield f"header-{what}", "bad-header", (raw(header, bag),)
    engine, camera = object_path(NEW.entry(ENGINE).id), object_path(NEW.entry(CAMERA).id)
    big = object_path(NEW.entry("files/big").id)
    ref = f"missions/{NEW.id}"
    yield "an-object-of-other-bytes", "bit-flip", (bag_with(changed(files, big, lambda data: b"x" + data[1:]), bag),)
    yield (
        "an-object-that-the-store-has-of-other-bytes",
        "bit-flip",
        (bag_with(changed(files, engine, bytes.upper), bag),),
    )
    yield "an-object-cut", "bit-flip", (bag_with(changed(files, big, lambda data: data[:-1]), bag),)
    yield (
        "two-objects-swapped",
        "bit-flip",
        (bag_with([({engine: camera, camera: engine}.get(name, name), data) for name, data in files], bag),),
    )
    yield "an-object-left-out", "incomplete-bag", (bag_with([one for one in files if one[0] != big], bag),)
    table, manifest = object_path(NEW.manifest.table), object_path(NEW.manifest_id)
    yield "the-table-left-out", "incomplete-bag", (bag_with([one for one in files if one[0] != table], bag),)
    yield "the-manifest-left-out", "incomplete-bag", (bag_with([one for one in files if one[0] != manifest], bag),)
    yield "no-toml", "bad-bag", (bag_with([one for one in files if one[0] != "flightbag.toml"], bag),)
    yield "no-root", "bad-bag", (bag_with([one for one in files if not one[0].startswith("trust/")], bag),)
    yield (
        "another-format",
        "other-format",
        (bag_with(changed(files, "flightbag.toml", lambda data: data.replace(b"format = 1", b"format = 2")), bag),),
    )
    stranger = flight({**NEW.contents}, by=("stranger",), issue=NEW.manifest.issue)
    forged = [
        *((object_path(ObjectId.of(data)), data) for data in (stranger.signed, stranger.table.render())),
        *changed(files, ref, lambda _: f"{stranger.manifest_id}\n".encode()),
    ]
    yield "a-manifest-that-a-stranger-signed", "refused", (bag_with(dict(forged).items(), bag),)
    yield (
        "a-ref-to-another-mission",
        "refused",
        (bag_with(changed(files, ref, lambda _: f"{SOUTH.manifest_id}\n".encode()), bag),),
    )
    yield "a-ref-that-is-none", "refused", (bag_with(changed(files, ref, lambda _: b"x" * 65), bag),)
    yield "a-ref-too-long", "too-large", (bag_with(changed(files, ref, lambda _: b"x" * 66), bag),)
    bounds = {f"orders/{'0' * 64}": REF_SIZE, f"receipts/{'0' * 64}": RECEIPT_LIMIT, "withdrawn/x.mission": FILE_LIMIT}
    for name, most in bounds.items():
        yield f"{name}-too-large", "too-large", (bag_with([*files[:-1], (name, bytes(most + 1))], bag),)
    yield (
        "a-root-too-large",
        "too-large",
        (bag_with(changed(files, "trust/1.root.cbor", lambda data: data + bytes(2**17)), bag),),
    )
    (other,) = bag_of(domain="elsewhere")
    yield "another-domain", "bad-trust-chain", (other,)
    yield "another-domain-under-this-ones-name", "bad-bag", (bag_with(files_of(other), bag),)
    yield (
        "another-domains-root",
        "bad-bag",
        (bag_with(changed(files, "trust/1.root.cbor", lambda _: dict(files_of(other))["trust/1.root.cbor"]), bag),),
    )
    ends = {"nothing": 0, "in-the-head": 700, "after-the-head": 1024, "in-an-object": 3000, "before-the-refs": -2048}
    for what, cut in {**ends, "before-the-end": -1024, "in-the-end": -512, "a-byte-less": -1}.items():
        yield f"cut-{what}", "truncated", (bag[:cut],)
    yield "more-follows", "trailing", (bag + b"\0",)
    yield "two-bags", "trailing", (bag + bag,)
    yield "more-than-the-head-says", "bad-bag", (bag_with(files, bag, members=len(files) - 1),)
    yield "more-bytes-than-the-head-says", "bad-bag", (bag_with(files, bag, bytes=head_of(bag).bytes - 1),)
    yield "less-than-the-head-says", "bad-bag", (bag_with(files, bag, members=len(files) + 1),)
    yield "fewer-bytes-than-the-head-says", "bad-bag", (bag_with(files, bag, bytes=head_of(bag).bytes + 1),)
    yield "huge", "bad-bag", (bag[:1024] + render(Member(big, 2**62)) + b"x" * 4096,)
    yield (
        "huge-as-the-head-says",
        "no-space",
        (
            render_comment(replace(head_of(bag), bytes=2**63 - 1).render())
            + render(Member(f"objects/00/{'0' * 62}", 2**62)),
        ),
    )
    yield "part-0", "bad-bag", (bag_with(files, bag, part=0),)
    yield "part-of-none", "bad-bag", (bag_with(files, bag, part=2),)
    yield "too-many-parts", "bad-bag", (bag_with(files, bag, parts=10_001),)
    yield "a-newer-format", "other-format", (bag.replace(b"pack 1 ", b"pack 2 ", 1),)
    yield "gzip", "bad-bag", (b"\x1f\x8b\x08" + bytes(2000),)
    yield "another-tar", "bad-bag", (written_by_tarfile() + END,)
    yield from of_parts(parts)


def of_parts(parts: tuple[bytes, ...]) -> Iterator[Row]:
    """What a part may do to the others."""
    yield "a-part-missing", "lacking", parts[1:]
    yield "only-the-last-part", "lacking", parts[-1:]
    at, (name, piece) = next(
        (at, file) for at, part in enumerate(parts) for file in files_of(part) if "/pieces/" in file[0]
    )
    here = files_of(parts[at])
    yield (
        "a-piece-of-other-bytes",
        "bit-flip",
        (bag_with(changed(here, name, lambda data: b"x" + data[1:]), parts[at]),),
    )
    other = b"x" + piece[1:]
    planted = re.sub(r"-[0-9a-f]{64}$", f"-{blake3(other).hexdigest()}", name)
    instead = bag_with([(planted, other) if one[0] == name else one for one in here], parts[at])
    yield "a-planted-piece", "bit-flip", (*parts[:at], instead, *parts[at + 1 :])
    yield "a-second-piece-beside", "truncated", (bag_with([*here, (planted, other)], parts[at]), *parts)
    yield (
        "a-piece-of-another-bag",
        "bad-name",
        (bag_with([(re.sub(r"bags/[0-9a-f]{32}", f"bags/{'0' * 32}", name), piece)], parts[at]),),
    )
    yield (
        "a-piece-beyond-its-object",
        "bad-name",
        (bag_with([(name.replace("-20000/0-", "-100/0-"), piece)], parts[at]),),
    )
    yield (
        "a-piece-of-nothing",
        "bad-name",
        (bag_with([(name.replace(blake3(piece).hexdigest(), blake3().hexdigest()), b"")], parts[at]),),
    )
    for size in (2**63, 10**19 - 1, 10**19):  # of 19 digits, and more
        yield (
            f"a-piece-of-a-huge-object-{size}",
            "bad-name",
            (bag_with([(name.replace("-20000/", f"-{size}/"), piece)], parts[at]),),
        )
    yield "a-part-of-two-bags", "truncated", (
        *(part for number, part in enumerate(parts) if number != at), bag_with([], parts[at]),
    )  # fmt: skip


GROUPS: Groups = {"packs": (unpacked, bags)}
