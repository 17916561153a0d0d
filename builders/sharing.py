"""A shared cache around a build: asked while the confined process waits, given what was made when all is published.

The parent talks to the cache, because it has the credentials, the trust root and the keys (decisions 19 and 31). What
comes is inserted as bytes with a hash and parsed by nobody here; whether an artifact is what its key asks for, the
confined process judges, beside no key. What is given away is what this store built itself, by the provenance of its
build records, signed by keys of the role builder that are opened last of all.

A cache never fails a build, but for one that was given wrongly: no address, a store, a trust root without builders, a
key of another role.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders import confinement
from builders.artifacts.supply import Offer
from builders.confinement import Progress
from store.disk.index import Record
from store.disk.media import object_path
from store.disk.objects import inserting
from store.errors import Corrupt, FlightbagError, NotFound, Refused
from store.format.built import MAX_OBJECTS, Built
from store.format.ids import BuildKey
from store.ground.issuing import Keys
from store.ground.repository import Repository
from store.ground.writer import Writer, writing
from store.trust.root import check_signer

if TYPE_CHECKING:
    from builders.report import CacheReport, EngineReport, PlanReport

_KIND, _MAX_TEXT = re.compile(r"[a-z-]{0,40}"), 1000


@dataclass(frozen=True, slots=True)
class Sharing:
    """A shared cache as it is given: its place, and the keys of the role builder that sign what is put there. Without
    any, nothing is put there."""

    place: str
    keys: Keys


class CacheOfBuild:
    """A shared cache as one build uses it. `now` is unix seconds.

    Raise Refused where the trust root names nobody whose word would count, Untrusted for a key that is not in the role
    builder, and as `shelf_of` does: before anything is made.
    """

    def __init__(self, repository: Repository, sharing: Sharing, *, now: int, progress: Progress) -> None:
        root = repository.trust_root().root
        role, keys = root.role("builder"), sharing.keys
        if not role.keys:
            raise Refused(
                f"trust root {root.version} has no key in the role builder, so nothing in a shared cache counts",
                remedy="add one with `flightbag trust add-key STORE DRAFT builder KEY`, or leave --shared-cache out",
                kind="no-builder",
            )
        for public in keys.known:
            check_signer(root, public, "builder")
        if 0 < keys.count < role.threshold:
            raise Refused(
                f"a build record needs {role.threshold} signatures, and {keys.count} of the keys were given",
                remedy="give as many keys with --builder-key, or none: then the cache is only read",
                kind="threshold",
            )
        self._repository, self._root, self._keys, self._now = repository, root, keys, now
        self._progress, self._place = progress, sharing.place
        # Not above: a build without a shared cache loads none of it.
        from store.remotes.shared_cache import SharedCache, shelf_of

        self._cache = SharedCache(shelf_of(sharing.place), root)
        self._asked: Mapping[BuildKey, int] = {}
        self._good: set[BuildKey] = set()

    def supply(self, asked: Mapping[BuildKey, int]) -> dict[BuildKey, Offer]:
        """Return what the cache has for the keys that the store lacks; the objects are in the store then. Where this
        build may sign, the others are looked for as well, to be given. `asked` is as in `artifacts.supply.Ask`."""
        missing = [key for key, limit in asked.items() if limit]
        found = self._cache.find(asked if self._keys.count else missing)
        wanted = {key: found[key] for key in missing if key in found}

        def advance(count: int, total: int) -> None:
            self._progress("fetching from the shared cache (bytes)", count, total)

        # Without the index, which the confined process has open: it reads what came before it records anything.
        store = self._repository
        wanted = self._cache.fetch(wanted, asked, lambda: inserting(store.media, store.disk, None), advance)
        self._asked = asked
        self._good = {key for key in found if not asked[key]} | wanted.keys()
        self._cache.tally.asked, self._cache.tally.hits = len(missing), len(wanted)
        return {key: Offer(one.built.objects, tuple(kid.hex() for kid in one.kids)) for key, one in wanted.items()}

    def refuse(self, unfit: Any) -> None:
        """Take in what of the supply did not fit, as the confined process states it."""
        for key, kind, text in _unfit(unfit):
            if key in self._good and self._asked[key]:
                self._good.discard(key)
                self._cache.tally.hits -= 1
                self._cache.tally.refuse(key, Corrupt(text, kind=kind))

    def give(self) -> None:
        """Put into the cache what this store has made of what was asked for, and the cache has not."""
        lacking = [key for key in self._asked if key not in self._good]
        if not self._keys.count or not lacking or self._cache.tally.down is not None:
            return
        from store.remotes.shared_cache import signed_built

        try:
            with writing(self._repository) as writer:
                made = [built for key in lacking if (built := self._made(writer, key)) is not None]
            signers = self._keys.open() if made else ()
            records = [(built, signed_built(built, signers, self._root)) for built in made]
        except FlightbagError as error:  # the build is done and published
            self._cache.tally.down = error
            return

        def advance(count: int, total: int) -> None:
            self._progress("putting into the shared cache (bytes)", count, total)

        self._cache.push(records, self._repository.media, advance)

    def _made(self, writer: Writer, key: BuildKey) -> Built | None:
        """Return what this store built a key to; None for what others made, and for what is not whole."""
        record: Record | None = writer.index.record(key)
        if record is None or record.provenance.get("from") != "build" or not 0 < len(record.ids) <= MAX_OBJECTS:
            return None
        objects = []
        with suppress(NotFound, Corrupt):
            for id_ in record.ids:
                size = writer.repository.media.stamp(object_path(id_)).size
                writer.check_object(id_, size)
                objects.append((id_, size))
            return Built(key, tuple(objects), self._root.epoch, self._now)
        return None

    def present(self, plan: PlanReport) -> PlanReport:
        """Return a plan that also says what the cache has a record of. No object is fetched."""
        missing = {BuildKey.parse(row.key) for row in plan.artifacts if row.key and not row.present}
        found = {str(key) for key in self._cache.find(missing)}
        self._cache.tally.asked, self._cache.tally.hits = len(missing), len(found)
        rows = tuple(replace(row, cached=row.key in found and not row.present) for row in plan.artifacts)
        return replace(plan, artifacts=rows, cache=self.report())

    def report(self) -> CacheReport:
        """Return what the cache was asked, and what it gave and got."""
        from builders.report import CacheReport

        tally = self._cache.tally
        return CacheReport(
            place=self._place,
            asked=tally.asked,
            hits=tally.hits,
            refused=dict(sorted(tally.refused.items())),
            bytes=tally.bytes,
            pushed=tally.pushed,
            pushed_bytes=tally.pushed_bytes,
            unpushed=tally.unpushed,
            reasons=tuple(tally.reasons),
            down="" if tally.down is None else str(tally.down),
        )


def _unfit(value: Any) -> list[tuple[BuildKey, str, str]]:
    """Return (key, kind, text) of what did not fit. Raise Corrupt for something else."""
    try:
        rows = [(BuildKey.parse(key), str(kind), str(text)[:_MAX_TEXT]) for key, kind, text in value]
        if not all(_KIND.fullmatch(kind) for _, kind, _ in rows):
            raise ValueError("kind")
    except (FlightbagError, TypeError, ValueError, AttributeError) as error:
        text = "the confined process gave back something else than what it refused of the shared cache"
        raise Corrupt(text, remedy="report this as a defect", kind="failed") from error
    return rows


def plan(
    mission_file: Path,
    store: str | os.PathLike[str],
    cache: Path,
    *,
    now: int,
    progress: Progress,
    sharing: Sharing | None = None,
) -> PlanReport:
    """Return the plan of a mission file, as store and shared cache are now."""
    if sharing is None:
        return confinement.plan(mission_file, store, cache, now=now, progress=progress)
    with Repository.open(store) as repository:
        shared = CacheOfBuild(repository, sharing, now=now, progress=progress)
        return shared.present(confinement.plan(mission_file, store, cache, now=now, progress=progress))


def engines(
    mission_file: Path,
    store: str | os.PathLike[str],
    cache: Path,
    *,
    now: int,
    progress: Progress,
    sharing: Sharing | None = None,
    executor: str = "local",
) -> tuple[list[EngineReport], CacheReport | None]:
    """Build the engines of a mission file into the store, as far as the shared cache lacks them, and give it the
    others. `executor` is as for a build."""
    if sharing is None:
        return confinement.engines(mission_file, store, cache, now=now, progress=progress, executor=executor)[0], None
    with Repository.open(store) as repository, repository.locked():
        shared = CacheOfBuild(repository, sharing, now=now, progress=progress)
        report, unfit = confinement.engines(
            mission_file, store, cache, now=now, progress=progress, supply=shared.supply, executor=executor
        )
        shared.refuse(unfit)
        shared.give()
        return report, shared.report()
