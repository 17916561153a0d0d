"""A withdrawal (FORMAT.md 5.5): the word that a mission, as it was issued so far, or a release is not to fly any more.

It names all manifests of a mission up to an (epoch, sequence), so that one that is published later flies again; or the
payload of a release by its digest, so that other signatures on it change nothing. This module knows no signatures.

Law: `Withdrawal.parse(w.render()) == w`, and only canonical bytes of a valid withdrawal parse.
"""

from __future__ import annotations

import re
from typing import Literal

from store.errors import Corrupt
from store.format.cbor import INT_MAX, Fields, Value, decode, encode
from store.format.cose import OVERHEAD_LIMIT
from store.format.ids import DIGEST_SIZE
from store.format.manifest import MISSION_ID, TIME_MAX
from store.values import dataclass

CONTENT_TYPE = "application/vnd.flightbag.withdrawal+cbor"
AAD_LABEL = "flightbag/withdrawal/1"
PAYLOAD_LIMIT = 1024
FILE_LIMIT = PAYLOAD_LIMIT + OVERHEAD_LIMIT
VERSION = 1
# ASCII: people read it on screens of every kind, and no letter in it looks like another.
REASON = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?")
# The names of files under withdrawn/ and of the drafts of withdrawals. No mission id has a dot.
NAME = re.compile(rf"{MISSION_ID.pattern}\.mission|[0-9a-f]{{64}}\.release")


def of_mission(mission: str) -> str:
    """Return the name of the file with the withdrawal of a mission."""
    return f"{mission}.mission"


def of_release(digest: bytes) -> str:
    """Return the name of the file with the withdrawal of a release, given the digest of its payload."""
    return f"{digest.hex()}.release"


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The payload: of a `mission` with the last (epoch, sequence) that is withdrawn, else of a `release` (the digest of
    its payload). `reason` is for people. `issued_at` is unix seconds, and decides nothing."""

    reason: str
    issued_at: int
    mission: str = ""
    epoch: int = 0
    sequence: int = 0
    release: bytes = b""

    @property
    def name(self) -> str:
        """The name of its file."""
        return of_mission(self.mission) if self.mission else of_release(self.release)

    @property
    def role(self) -> Literal["mission", "release"]:
        """The role whose keys withdraw this: the one that made it current."""
        return "mission" if self.mission else "release"

    @property
    def order(self) -> tuple[int, int]:
        """The order of the last issue that it is about, as `Issue.order`; (0, 0) for a release."""
        return self.epoch, self.sequence

    def render(self) -> bytes:
        """Return the canonical payload. Raises Corrupt where the value breaks a rule of the format."""
        value: dict[str, Value] = {"version": VERSION, "reason": self.reason, "issued_at": self.issued_at}
        if self.mission:
            value |= {"mission": self.mission, "epoch": self.epoch, "sequence": self.sequence}
        else:
            value["release"] = self.release
        data = encode(value)
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> Withdrawal:
        """Return the withdrawal of a canonical payload; raises Corrupt for any other bytes."""
        fields = Fields(decode(data, limit=PAYLOAD_LIMIT, what="the withdrawal"), "withdrawal")
        fields.integer("version", VERSION, VERSION)
        reason, issued_at = fields.text("reason", REASON), fields.integer("issued_at", 0, TIME_MAX)
        if "release" in fields:
            withdrawal = cls(reason, issued_at, release=fields.binary("release", DIGEST_SIZE))
        else:
            withdrawal = cls(
                reason,
                issued_at,
                mission=fields.text("mission", MISSION_ID),
                epoch=fields.integer("epoch", 1, INT_MAX),
                sequence=fields.integer("sequence", 1, INT_MAX),
            )
        fields.end()
        return withdrawal


def require_name(withdrawal: Withdrawal, name: str) -> None:
    """Raise Corrupt unless the withdrawal has the place that its payload names."""
    if withdrawal.name != name:
        raise Corrupt(
            f"withdrawn/{name} holds the withdrawal {withdrawal.name}",
            kind="bad-withdrawal",
            expected=name,
            actual=withdrawal.name,
        )
