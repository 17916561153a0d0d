"""Collects the findings of an audit: one finding for each damage, however many missions it grounds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from store.disk.droppings import is_dropping
from store.disk.media import Media, object_path
from store.errors import FlightbagError, NotFound
from store.findings import Finding
from store.format.ids import ObjectId
from store.ground.excerpt import first_few
from store.ground.needs import Need
from store.values import replace

# An audit that does not read an object does not see that its bytes are wrong, and would mend nothing.
RESTORE = "run store-fsck --full --repair --from a store that has it whole"
REMOVE = "move it out of the store, or run store-fsck --repair, which moves it to quarantine/"
CLEAN = "remove it, or run `flightbag sync --clean` onto this store"
_UNKNOWN_ORIGIN = {
    "unreferenced": "find out who put it there; objects of an earlier mission go with `flightbag gc --keep-last 1 "
    "--grace 0s`, run twice: to the trash, then for good; pins go with `flightbag unpin`",
    "hard-link": "find its other name with `find -samefile` and remove that, or sync the missions to a new store",
}
# The most notes of one kind that are kept.
_KEPT_NOTES = 1000
# The most errors of one kind about things that nothing needs. Somebody may have put millions of them there.
_KEPT_UNNEEDED = 10_000
# The most names that a finding lists.
_NAMES_LISTED = 4


class FindingCollector:
    """Collects findings. `errors` are kept by what they are about: an object's id, or a path.

    `damaged` has the objects that a closure, pin or draft needs and that are missing or not whole, each with the most
    bytes that it may have. `notes` counts the findings that are information, by kind; the first thousand of each kind
    are kept.
    """

    def __init__(self, media: Media, *, exclusive: bool) -> None:
        self.media = media
        self._exclusive = exclusive
        self.errors: dict[str, Finding] = {}
        self._kept_notes: list[Finding] = []
        self.notes: dict[str, int] = {}
        self.damaged: dict[ObjectId, int] = {}
        self._unneeded: dict[str, int] = {}
        # Folders that were not listed because they have too many names. Single names can be looked up still.
        self.crowded: set[str] = set()

    def add(self, finding: Finding, about: str = "") -> None:
        """Add an error. If the same damage was added before, add only the missions that it grounds."""
        key = about or finding.object or finding.path
        first = self.errors.get(key, finding)
        missions = tuple(sorted({*first.missions, *finding.missions}))
        self.errors[key] = replace(first, missions=missions)

    def add_one_of_many(self, finding: Finding, *, needed: bool, about: str = "") -> None:
        """Add an error about a thing that somebody may have put there in any number: of what is not needed, some."""
        if not needed:
            kept = self._unneeded[finding.kind] = self._unneeded.get(finding.kind, 0) + 1
            if kept > _KEPT_UNNEEDED:
                return
        self.add(finding, about)

    def add_note(self, finding: Finding) -> None:
        """Add a finding that grounds no mission."""
        finding = replace(finding, information=True)
        self.notes[finding.kind] = self.notes.get(finding.kind, 0) + 1
        if self.notes[finding.kind] <= _KEPT_NOTES:
            self._kept_notes.append(finding)

    def add_foreign(self, finding: Finding) -> None:
        """Add a thing that no mission needs: information on the ground, an error in an exclusive audit."""
        if self._exclusive:
            remedy = _UNKNOWN_ORIGIN.get(finding.kind, "find out who put it there, and remove it")
            remedy = finding.remedy if finding.remedy == CLEAN else remedy
            # A key of its own: the finding neither hides that the object is damaged nor is hidden by it.
            about = f"{finding.kind} {finding.path}"
            self.add_one_of_many(replace(finding, remedy=remedy), needed=False, about=about)
        else:
            self.add_note(finding)

    def add_stray(self, name: str) -> None:
        """Add a path that has no place in a store; what operating systems drop is information (FORMAT.md 2.9)."""
        path = self.media.absolute(name)
        if is_dropping(os.path.basename(name)):
            text = f"{name} was dropped there by an operating system, or by a program that synchronises folders"
            self.add_foreign(Finding("stray", text, path=path, remedy=CLEAN))
            return
        finding = Finding("stray", f"{name} has no place in a store", path=path, remedy=REMOVE)
        self.add_one_of_many(finding, needed=False)

    def add_incomplete(self, holder: str, lacking: str) -> None:
        """Add a pin, a draft or a log whose objects are not all in the store."""
        text = f"{holder} needs objects that are missing or damaged: {lacking}"
        self.add(Finding("incomplete-closure", text, path=self.media.absolute(holder), remedy=RESTORE))

    def add_missions(self, about: str, missions: Iterable[str]) -> None:
        """Add missions to those that a finding grounds."""
        finding = self.errors[about]
        self.errors[about] = replace(finding, missions=tuple(sorted({*finding.missions, *missions})))

    def ground(self, about: str, wanted: Sequence[tuple[Need, int]]) -> None:
        """Add the missions that need an object to the finding about that object."""
        self.add_missions(about, (need.mission for need, _ in wanted if need.mission))

    def about_object(self, kind: str, id_: ObjectId, text: str) -> Finding:
        """Return a finding about an object, to be completed and added."""
        path = self.media.absolute(object_path(id_))
        return Finding(kind, f"object {id_} {text}", object=str(id_), path=path)

    def names_in(self, folder: str, *, needed: bool) -> list[str] | None:
        """Return the names in a folder of the store, or None after adding a finding about the folder."""
        try:
            return self.media.names(folder)
        except NotFound as error:
            if not needed:
                return []
            self.add(Finding.of(error, remedy=RESTORE))
        except FlightbagError as error:
            self.add(Finding.of(error, remedy=RESTORE))
            if error.kind == "too-many":
                self.crowded.add(folder)
        return None

    def findings(self) -> tuple[Finding, ...]:
        """Return all findings: the errors, which are complete by now, and the notes that are kept."""
        for kind, number in sorted(self._unneeded.items()):
            if number > _KEPT_UNNEEDED:
                text = f"{number} findings of the kind {kind}, of which {_KEPT_UNNEEDED} are listed"
                self.add(Finding("too-many", text, path=self.media.path, remedy=REMOVE), about=f"too-many {kind}")
        return (*self.errors.values(), *self._kept_notes)


def some(names: Sequence[str]) -> str:
    """Return the first few of many names."""
    return first_few(names, limit=_NAMES_LISTED, separator=", ")


def as_kind(finding: Finding, kind: str) -> Finding:
    """Return the finding under another kind, unless it is `unreadable` or `wrong-type`, which stay."""
    return finding if finding.unreadable or finding.kind == "wrong-type" else replace(finding, kind=kind)
