"""The validity of a mission: from when until when the manifest may fly, by the mission file and the trust root. Pure.

The file gives an end (`valid_until`) or a length (`valid_for`); without either, the trust root may give a default
length. A length counts from the issue, or from `valid_from` where that is later. The trust root's maximum counts from
the issue, because a signed manifest can be copied from then on.

Law: a manifest that is issued now for a validity that is in order still has the validity that is asked for now.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builders.mission.schema import Mission
from store.errors import Invalid
from store.format.duration import duration_text
from store.format.manifest import TIME_MAX, Issue, utc
from store.trust.root import TrustRoot

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Validity:
    """What is asked for, in unix seconds and seconds: `start` is the earliest time to fly, `end` the last one where it
    is fixed, `length` how long from the issue or the start on, where the end is not. `most` is the longest time from
    the issue to the end that the trust root of version `root` allows. A field is None where nothing is asked for.
    `given` says whether the mission file itself gives the length."""

    start: int | None = None
    end: int | None = None
    length: int | None = None
    most: int | None = None
    root: int = 0
    given: bool = True

    @classmethod
    def of(cls, mission: Mission, root: TrustRoot | None) -> Self:
        """Return the validity by a mission file and a trust root, None where the store has none yet."""
        default = None if root is None else root.default_lifetime
        given = mission.length is not None or mission.end is not None
        return cls(
            start=mission.start,
            end=mission.end,
            length=mission.length if given else default,
            most=None if root is None else root.max_lifetime,
            root=0 if root is None else root.version,
            given=given,
        )

    def window(self, at: int) -> tuple[int | None, int | None]:
        """Return `valid_from` and `expires_at` of a manifest that is issued at a time, in unix seconds."""
        if self.end is not None or self.length is None:
            return self.start, self.end
        return self.start, max(at, self.start or 0) + self.length

    def require(self, path: Path, *, now: int) -> None:
        """Raise Invalid, naming the mission file `path`, if a manifest that is issued now cannot have this validity."""
        end = self.window(now)[1]
        if self.end is not None and self.end < now:
            raise Invalid(
                f"{path}: mission.valid_until is {utc(self.end)}, and it is {utc(now)}",
                remedy="give a later time",
                path=str(path),
            )
        if end is not None and end > TIME_MAX:
            raise Invalid(
                f"{path}: mission.valid_for is {duration_text(self.length or 0)}: the mission would expire after the "
                "year 9999",
                remedy="give a shorter time, or leave it out",
                path=str(path),
            )
        if self.most is None:
            return
        most = duration_text(self.most)
        allowed = f"trust root {self.root} allows at most {most} from the issue of a mission to its expiry"
        if end is None:
            raise Invalid(
                f"{path}: mission.valid_for is missing: {allowed}",
                remedy=f'give valid_for = "{most}" or less, or valid_until',
                path=str(path),
            )
        if end - now > self.most:
            key = "valid_until" if self.end is not None else "valid_for" if self.given else "valid_from"
            raise Invalid(
                f"{path}: mission.{key}: the mission would expire at {utc(end)}: {allowed}, now until "
                f"{utc(now + self.most)}",
                remedy="shorten it, build the mission later, or have the maximum of the trust root raised: "
                "`flightbag trust set-lifetime`",
                path=str(path),
            )

    def kept_by(self, issue: Issue, *, now: int) -> bool:
        """Whether an issue still gives what is asked for: exactly this validity when it was issued, and of a length at
        least half is left. So a mission that is built again and again never runs out unnoticed, and is not issued
        again at each build."""
        if (issue.valid_from, issue.expires_at) != self.window(issue.issued_at):
            return False
        if self.end is not None or self.length is None or issue.expires_at is None:
            return True
        return 2 * (issue.expires_at - max(now, self.start or 0)) >= self.length
