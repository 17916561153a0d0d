"""What an audit has found so far: one finding a damage, whatever noticed it and however many missions need it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from store.disk.media import Media, object_path
from store.errors import FlightbagError, NotFound
from store.findings import Finding
from store.format.ids import ObjectId
from store.ground.needs import Need

RESTORE = "run store-fsck --repair --from a store that has it whole"
REMOVE = "remove it, if it is not yours; store-fsck --repair moves it to quarantine/"
_FOREIGN = {
    "unreferenced": "find out who put it there; what is of an earlier mission goes with `flightbag gc --keep-last 1 "
    "--grace 0s`, done twice: to the trash, then for good; pins with `flightbag unpin`",
    "hard-link": "find its other name with `find -samefile` and remove that, or sync the missions to a new store",
}
# How many notes of one kind are kept, and how many names a finding spells out.
_KEPT, _NAMED = 1000, 4


class Told:
    """Collects findings. Errors are kept by what they are about: an object's id, or a path.

    `damaged` are the objects that something needs and that are not there whole, with the most bytes that each can have.
    `notes` counts the findings that are information, by kind; the first thousand of each are kept.
    """

    def __init__(self, media: Media, teller: Callable[[Finding], None], *, exclusive: bool) -> None:
        self.media = media
        self._teller = teller
        self._exclusive = exclusive
        self.errors: dict[str, Finding] = {}
        self._kept: list[Finding] = []
        self.notes: dict[str, int] = {}
        self.damaged: dict[ObjectId, int] = {}

    def tell(self, finding: Finding, about: str = "") -> None:
        """Adds an error; where the same damage was told before, only the missions that it grounds."""
        key = about or finding.object or finding.path
        known = self.errors.get(key, finding)
        missions = tuple(sorted({*known.missions, *finding.missions}))
        self.errors[key] = replace(known, missions=missions)

    def note(self, finding: Finding) -> None:
        """Adds a finding that grounds nothing."""
        finding = replace(finding, information=True)
        self.notes[finding.kind] = self.notes.get(finding.kind, 0) + 1
        if self.notes[finding.kind] <= _KEPT:
            self._kept.append(finding)
        self._teller(finding)

    def foreign(self, finding: Finding) -> None:
        """Something that no mission needs: information on the ground, an error where only missions may be."""
        if self._exclusive:
            remedy = _FOREIGN.get(finding.kind, "find out who put it there, and remove it")
            # Under a key of its own: it neither hides that the object is damaged nor is hidden by it.
            self.tell(replace(finding, remedy=remedy), about=f"{finding.kind} {finding.path}")
        else:
            self.note(finding)

    def of_object(self, kind: str, id_: ObjectId, text: str) -> Finding:
        path = self.media.absolute(object_path(id_))
        return Finding(kind, f"object {id_} {text}", object=str(id_), path=path)

    def names(self, name: str, *, needed: bool) -> list[str] | None:
        """The names in a folder of the store; None where there is a finding instead."""
        try:
            return self.media.names(name)
        except NotFound as error:
            if not needed:
                return []
            self.tell(Finding.of(error, remedy=RESTORE))
        except FlightbagError as error:
            self.tell(Finding.of(error, remedy=RESTORE))
        return None

    def stray(self, name: str) -> None:
        path = self.media.absolute(name)
        self.tell(Finding("stray", f"{name} has no place in a store", path=path, remedy=REMOVE))

    def incomplete(self, holder: str, why: str) -> None:
        """A pin or a draft keeps, or names, what is not all there."""
        self.tell(
            Finding(
                "incomplete-closure",
                f"{holder} needs what is not there: {why}",
                path=self.media.absolute(holder),
                remedy=RESTORE,
            )
        )

    def adds(self, about: str, missions: Iterable[str]) -> None:
        """Adds missions to those that a finding grounds."""
        known = self.errors[about]
        self.errors[about] = replace(known, missions=tuple(sorted({*known.missions, *missions})))

    def grounds(self, about: str, wanted: Sequence[tuple[Need, int]]) -> None:
        """Adds the missions that need an object to the finding that says what is wrong with it."""
        self.adds(about, (need.mission for need, _ in wanted if need.mission))

    def findings(self) -> tuple[Finding, ...]:
        """All that was found; the errors are told now, as nothing can be added to them any more."""
        for finding in self.errors.values():
            self._teller(finding)
        return (*self.errors.values(), *self._kept)


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def as_kind(finding: Finding, kind: str) -> Finding:
    """The finding as one of this kind, unless it says that something is no file or cannot be read."""
    return finding if finding.unreadable or finding.kind == "wrong-type" else replace(finding, kind=kind)
