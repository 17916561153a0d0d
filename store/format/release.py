"""A release: a statement that engines are approved for a host class. Its payload as a value, and as canonical bytes.

It names each entry with its object: approved are these bytes and no others. Knows nothing of signatures.

Law: `Release.parse(r.render()) == r`, and only canonical bytes of a valid release parse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from store.errors import Corrupt, Invalid
from store.format.cbor import INT_MAX, Fields, ascending, decode, encode
from store.format.entries import SEGMENT, Entry, kind_of
from store.format.host import HOST_CLASS, is_host_class, meets
from store.format.ids import ObjectId
from store.format.manifest import TIME_MAX

CONTENT_TYPE = "application/vnd.flightbag.release+cbor"
AAD_LABEL = "flightbag/release/1"
PAYLOAD_LIMIT = 64 * 2**10
VERSION = 1
MAX_APPROVALS = 256
# The kinds of entries that need approval where the trust root says so: what runs, or is parsed by native code.
KINDS = ("engine", "index")


@dataclass(frozen=True, slots=True, order=True)
class Approval:
    """One approved entry: its name, kind, object, size in bytes, and the host class that it was made for."""

    name: str
    kind: str
    id: ObjectId
    size: int
    host: str

    @classmethod
    def of(cls, entry: Entry) -> Approval:
        """What a release must say of an entry."""
        return cls(entry.name, entry.kind, entry.id, entry.size, str(entry.meta["host"]))

    @classmethod
    def parse(cls, item: object) -> Approval:
        if type(item) is not list or [type(part) for part in item] != [str, str, bytes, int, str] or len(item[2]) != 32:
            text = "an approval is [name, kind, object id, size, host class]"
            raise Corrupt(text, kind="bad-field", field="release.entries")
        name, kind, id_, size, host = item
        try:
            right = kind in KINDS and kind_of(name) == kind and 0 <= size <= INT_MAX
        except Invalid:
            right = False
        if not right or not HOST_CLASS.fullmatch(host) or not is_host_class(host):
            raise Corrupt(f"the approval of {name[:120]!r} is not valid", kind="bad-field", field="release.entries")
        return cls(name, kind, ObjectId(id_), size, host)


@dataclass(frozen=True, slots=True)
class Release:
    """The payload: the name that people know it by, when it was issued (unix seconds), for which host class, and what
    it approves."""

    name: str
    issued_at: int
    host: str
    approvals: tuple[Approval, ...]

    @classmethod
    def of(cls, name: str, host: str, entries: Iterable[Entry], *, issued_at: int) -> Release:
        """A release of those of the entries that need approval."""
        return cls(name, issued_at, host, tuple(sorted({Approval.of(one) for one in entries if one.kind in KINDS})))

    def render(self) -> bytes:
        """The canonical payload. Raises Corrupt where the value breaks a rule of the format."""
        data = encode(
            {
                "version": VERSION,
                "name": self.name,
                "issued_at": self.issued_at,
                "host": self.host,
                "entries": [[a.name, a.kind, bytes(a.id), a.size, a.host] for a in self.approvals],
            }
        )
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> Release:
        """The release of a canonical payload; raises Corrupt for any other bytes."""
        fields = Fields(decode(data, limit=PAYLOAD_LIMIT, what="the release"), "release")
        fields.integer("version", VERSION, VERSION)
        release = cls(
            name=fields.text("name", SEGMENT),
            issued_at=fields.integer("issued_at", 0, TIME_MAX),
            host=fields.text("host", HOST_CLASS),
            approvals=tuple(Approval.parse(item) for item in fields.array("entries", 1, MAX_APPROVALS)),
        )
        fields.end()
        ascending(release.approvals, "release.entries")
        if not is_host_class(release.host):
            raise Corrupt("release.host is not in ascending order", kind="bad-field", field="release.host")
        for approval in release.approvals:
            if not meets(release.host, approval.host):
                text = f"{approval.name} is for the host class {approval.host}, the release for {release.host}"
                raise Corrupt(text, kind="bad-field", field="release.entries")
        return release
