"""Who has signed what a store holds, by every key that its chain of trust roots has named: for the log.

A key that left its role or was revoked has signed all the same. Nothing is decided here: whether signatures suffice
says `trust.root`. A name is what the signers of the newest trust root that names the key called it, and proves no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from store.errors import FlightbagError
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.manifest import AAD_LABEL, CONTENT_TYPE, ENVELOPE_LIMIT, PAYLOAD_LIMIT
from store.ground.repository import Repository
from store.trust.keys import PublicKey
from store.trust.root import ROLES, SignedRoot
from store.values import dataclass

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Roster:
    """The keys of all roles of all trust roots of a store by their kids, and the names of those that have one."""

    keys: Mapping[bytes, PublicKey]
    names: Mapping[bytes, str]
    aad: bytes

    @classmethod
    def of(cls, repository: Repository) -> Self:
        """Return the roster of a store whose chain of trust roots holds. Raise as `Repository.trust_root` does."""
        newest = repository.trust_root().root
        keys: dict[bytes, PublicKey] = {}
        names: dict[bytes, str] = {}
        for version in range(1, newest.version + 1):
            root = SignedRoot.parse(repository.evidence.root_file(version)).root
            keys |= {key.kid: key for role in ROLES for key in root.role(role).keys}
            names |= {key.kid: name for key, name in root.names}
        return cls(keys, names, newest.aad(AAD_LABEL))

    def signers(self, repository: Repository, manifest: ObjectId) -> tuple[bytes, ...]:
        """Return the kids of the keys whose signatures on a manifest are good; () where it cannot be read."""
        try:
            data = repository.evidence.object(manifest, ENVELOPE_LIMIT)
            envelope = Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT)
        except FlightbagError:
            return ()
        return tuple(
            one.kid
            for one in envelope.signatures
            if one.kid in self.keys and self.keys[one.kid].verifies(envelope, one, self.aad)
        )
