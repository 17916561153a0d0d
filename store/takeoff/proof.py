"""Proofs: a small file with one entry of a mission and the evidence for it, for a reader who needs one engine.

A proof holds the signed manifest, the trust roots after the first, the entry and its inclusion proof (RFC 9162). It is
checked from a pinned root, without a store or an entry table. A proof shows that the entry is in a genuine manifest.
Only the takeoff check decides whether that manifest may fly.

Law: `Proof.parse(p.render()) == p`, and only canonical bytes parse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from store.errors import Corrupt, NotFound, Untrusted, instead_of
from store.format import manifest as format_
from store.format import merkle
from store.format.cbor import Fields, decode, encode
from store.format.cose import Envelope
from store.format.entries import MAX_ENTRIES, Entry
from store.format.ids import DIGEST_SIZE, ObjectId
from store.format.manifest import ENVELOPE_LIMIT, Manifest
from store.format.release import KINDS as RELEASED
from store.format.release import Approval
from store.takeoff.mission import Opened
from store.takeoff.verify import ISSUED_TOO_EARLY, OLD_ROOT, WRONG_EPOCH, parse_release
from store.trust.root import MAX_STEPS, ROOT_FILE_LIMIT, SignedRoot, TrustRoot, advance, check_signatures
from store.values import dataclass

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = 1
# 100,000 entries make a tree of 17 levels.
MAX_HASHES = 17
ENTRY_LIMIT = 4096
MAX_RELEASES = 64
_PROVE_AGAIN = "publish the mission again under the newest trust root, and make a proof of that manifest"
_NEWER_ROOT = "make the proof again from a store that has the newest trust root"
PROOF_LIMIT = (1 + MAX_RELEASES) * ENVELOPE_LIMIT + MAX_STEPS * ROOT_FILE_LIMIT + ENTRY_LIMIT + MAX_HASHES * 40 + 1024


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof of one entry. `manifest`, `roots` and `releases` are envelopes, `entry` is the data of a Merkle leaf.

    `index` is the place of the entry among the manifest's `count` entries, `hashes` the inclusion proof.
    """

    manifest: bytes
    roots: tuple[bytes, ...]
    entry: bytes
    index: int
    hashes: tuple[bytes, ...]
    releases: tuple[bytes, ...] = ()

    @classmethod
    def of(
        cls, opened: Opened, manifest: bytes, roots: Sequence[bytes], name: str, releases: Sequence[bytes] = ()
    ) -> Self:
        """Return the proof of the entry `name`. Raise NotFound if the mission has no such entry.

        `roots` are the root files of versions 2 and up, `releases` the releases that the manifest names.
        """
        leaves = opened.table.leaves
        index = next((n for n, entry in enumerate(opened.table.entries) if entry.name == name), None)
        if index is None:
            mission = opened.manifest.mission.id
            text = f"mission {mission} has no entry {name}"
            remedy = instead_of(name, [entry.name for entry in opened.table.entries])
            remedy += f"; `flightbag show STORE {mission}` lists the entries"
            raise NotFound(text, remedy=remedy, kind="missing", entry=name)
        hashes = merkle.inclusion_proof(leaves, index)
        return cls(manifest, tuple(roots), leaves[index], index, hashes, tuple(releases))

    def render(self) -> bytes:
        """Return the canonical bytes."""
        return encode(
            {
                "format": FORMAT,
                "manifest": self.manifest,
                "roots": list(self.roots),
                "entry": self.entry,
                "index": self.index,
                "hashes": list(self.hashes),
                "releases": list(self.releases),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the proof of canonical bytes. Raise Corrupt for any other bytes. Nothing is verified: see `prove`."""
        fields = Fields(decode(data, limit=PROOF_LIMIT, what="the proof"), "proof")
        fields.integer("format", FORMAT, FORMAT)
        proof = cls(
            manifest=fields.blob("manifest", ENVELOPE_LIMIT),
            roots=_all_bytes(fields.array("roots", 0, MAX_STEPS), ROOT_FILE_LIMIT),
            entry=fields.blob("entry", ENTRY_LIMIT),
            index=fields.integer("index", 0, MAX_ENTRIES - 1),
            hashes=_all_bytes(fields.array("hashes", 0, MAX_HASHES), DIGEST_SIZE),
            releases=_all_bytes(fields.array("releases", 0, MAX_RELEASES), ENVELOPE_LIMIT),
        )
        fields.end()
        return proof


@dataclass(frozen=True, slots=True)
class Proven:
    """An entry that is in a genuine manifest; `root` is the newest trust root of the proof, which judged it. `signers`
    are the kids of the keys that have signed the manifest."""

    entry: Entry
    manifest: Manifest
    manifest_bytes: bytes
    root: SignedRoot
    signers: tuple[bytes, ...]


def prove(proof: Proof, pinned: SignedRoot) -> Proven:
    """Return what a proof shows, from a pinned root.

    Raise Untrusted or Corrupt with a kind of step B, C, D or E, or with `bad-proof`.
    """
    first = pinned.root.version
    later = [data for data in proof.roots if SignedRoot.parse(data).root.version > first]
    root = advance(pinned, later)
    envelope = Envelope.parse(proof.manifest, format_.CONTENT_TYPE, format_.PAYLOAD_LIMIT)
    check_signatures(envelope, root.root, format_.AAD_LABEL, "mission", "the manifest")
    manifest = Manifest.parse(envelope.payload)
    leaf = merkle.leaf_hash(proof.entry)
    if merkle.root_from_inclusion(leaf, proof.index, manifest.count, proof.hashes) != manifest.merkle_root:
        raise Corrupt("the inclusion proof leads to another Merkle root than the manifest's", kind="bad-proof")
    entry = Entry.of_value(decode(proof.entry, limit=ENTRY_LIMIT, what="the entry"))
    _check_current(manifest, root.root)
    if root.root.releases == "required" and entry.kind in RELEASED:
        approved = {
            approval
            for data in proof.releases
            if ObjectId.of(data) in manifest.releases
            for approval in parse_release(data, root.root).approvals
        }
        if Approval.of(entry) not in approved:
            text = f"no valid release in the proof approves {entry.name}"
            raise Untrusted(text, remedy=_PROVE_AGAIN, kind="unreleased", entry=entry.name)
    return Proven(entry, manifest, proof.manifest, root, envelope.kids)


def _check_current(manifest: Manifest, root: TrustRoot) -> None:
    """Raise Untrusted for a manifest that the newest trust root of the proof no longer accepts."""
    issue = manifest.issue
    if issue.epoch != root.epoch:
        remedy = _NEWER_ROOT if issue.epoch > root.epoch else _PROVE_AGAIN
        raise Untrusted(WRONG_EPOCH, remedy=remedy, kind="wrong-epoch", expected=root.epoch, actual=issue.epoch)
    if issue.min_root_version > root.version:
        raise Untrusted(OLD_ROOT, remedy=_NEWER_ROOT, kind="old-root")
    if root.issued_after is not None and issue.issued_at < root.issued_after:
        raise Untrusted(ISSUED_TOO_EARLY, remedy=_PROVE_AGAIN, kind="issued-too-early")


def _all_bytes(items: Sequence[object], most: int) -> tuple[bytes, ...]:
    blobs = tuple(item for item in items if type(item) is bytes and len(item) <= most)
    if len(blobs) != len(items):
        text = f"a list of the proof holds an item that is not a byte string of at most {most} bytes"
        raise Corrupt(text, kind="bad-field", field="proof")
    return blobs
