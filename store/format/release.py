"""A release (FORMAT.md 5.1): the approval of engines and indexes for a host class. A value, and canonical bytes.

A release names each entry with its object: it approves these bytes and no others. This module knows no signatures;
`store.trust` decides who may sign a release.

Law: `Release.parse(r.render()) == r`, and only canonical bytes of a valid release parse.
"""

from __future__ import annotations

from collections.abc import Iterable

from store.errors import Corrupt, Invalid
from store.format.cbor import INT_MAX, Fields, ascending, decode, encode
from store.format.entries import SEGMENT, Entry, kind_of
from store.format.host import NEED, fit, objection
from store.format.ids import ObjectId
from store.format.manifest import TIME_MAX
from store.values import dataclass

CONTENT_TYPE = "application/vnd.flightbag.release+cbor"
AAD_LABEL = "flightbag/release/1"
PAYLOAD_LIMIT = 64 * 2**10
VERSION = 1
MAX_APPROVALS = 256
# The kinds of entries that need approval where the trust root requires it: code that runs, or input of native parsers.
KINDS = ("engine", "index")


@dataclass(frozen=True, slots=True, order=True)
class Approval:
    """One approved entry: its name, kind, object, size in bytes, and its need (FORMAT.md 4.5)."""

    name: str
    kind: str
    id: ObjectId
    size: int
    host: str

    @classmethod
    def of(cls, entry: Entry) -> Approval:
        """Return the approval that an entry needs."""
        return cls(entry.name, entry.kind, entry.id, entry.size, str(entry.meta["host"]))

    @classmethod
    def parse(cls, item: object) -> Approval:
        """Return the approval of a decoded value. Raises Corrupt (kind bad-field) for any other value."""
        if type(item) is not list or [type(part) for part in item] != [str, str, bytes, int, str] or len(item[2]) != 32:
            text = "an approval is not [name, kind, object id, size, need]"
            raise Corrupt(text, kind="bad-field", field="release.entries")
        name, kind, id_, size, host = item
        try:
            valid = kind in KINDS and kind_of(name) == kind and 0 <= size <= INT_MAX
        except Invalid:
            valid = False
        if not valid:
            raise Corrupt(f"the approval of {name[:120]!r} is not valid", kind="bad-field", field="release.entries")
        if wrong := objection(host, need=True):
            raise Corrupt(f"the approval of {name}: {wrong}", kind="bad-field", field="release.entries")
        return cls(name, kind, ObjectId(id_), size, host)


@dataclass(frozen=True, slots=True)
class Release:
    """The payload: its name for people, the time of issue (unix seconds), its host class, and the approvals."""

    name: str
    issued_at: int
    host: str
    approvals: tuple[Approval, ...]

    @classmethod
    def of(cls, name: str, host: str, entries: Iterable[Entry], *, issued_at: int) -> Release:
        """Return the release of those entries that need approval (KINDS)."""
        return cls(name, issued_at, host, tuple(sorted({Approval.of(one) for one in entries if one.kind in KINDS})))

    def render(self) -> bytes:
        """Return the canonical payload. Raises Corrupt where the value breaks a rule of the format."""
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
        """Return the release of a canonical payload; raises Corrupt for any other bytes."""
        fields = Fields(decode(data, limit=PAYLOAD_LIMIT, what="the release"), "release")
        fields.integer("version", VERSION, VERSION)
        release = cls(
            name=fields.text("name", SEGMENT),
            issued_at=fields.integer("issued_at", 0, TIME_MAX),
            host=fields.text("host", NEED),
            approvals=tuple(Approval.parse(item) for item in fields.array("entries", 1, MAX_APPROVALS)),
        )
        fields.end()
        ascending(release.approvals, "release.entries")
        if wrong := objection(release.host):
            raise Corrupt(f"release.host: {wrong}", kind="bad-field", field="release.host")
        for approval in release.approvals:
            if fit(release.host, approval.host).lacking:
                text = f"{approval.name} needs the host class {approval.host}, which {release.host} does not meet"
                raise Corrupt(text, kind="bad-field", field="release.entries")
        return release
