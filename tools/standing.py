"""The command `status`: what of a mission file is stale beside the store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from builders.extras import require_build_extra
from store.findings import Finding
from tools import lines, render
from tools.arguments import Json, MissionFilePath, StoreOption, cache_folder, print_lines
from tools.progress import work_bars
from tools.status import NO, OK, UNKNOWN, command, print_json

if TYPE_CHECKING:
    from builders.report import Comparison, Difference
    from builders.standing import Signer, Standing

_STATUS = {"up-to-date": OK, "stale": NO, "unknown": UNKNOWN}
_STATE = {
    "up-to-date": "UP TO DATE: a build of the mission file has nothing to do",
    "stale": "STALE: a build of the mission file publishes another manifest",
    "unknown": "UNKNOWN: not everything could be looked at",
}
# Things of a kind that are named one by one.
_NAMED = 10


@command
def status(
    mission_file: MissionFilePath,
    store: StoreOption,
    as_json: Json = False,
) -> int:
    """Show what of a mission file is stale in the store: what is published, what a build would change, what waits.

    Nothing is written, decoded or compiled, and tiles of unchanged sources are not read. Of
    stored objects those are read that changed since they were last read. The status is 0 where
    a build has nothing to do, 1 where it has, and 3 where something could not be looked at.

    Example: flightbag status north-ridge.toml --store ground
    """
    require_build_extra()
    from builders.standing import mission_standing

    now = int(time.time())
    with work_bars() as progress:
        standing = mission_standing(mission_file, store, cache=cache_folder(), now=now, progress=progress)
    then = _next(standing, str(mission_file), store)
    if as_json:
        stale = [Finding("stale", f"a build of {mission_file} publishes another manifest", remedy=then)]
        found = [*standing.unknown, *(stale if standing.state == "stale" else ())]
        print_json({**standing.as_json(), "command": then}, found)
    else:
        print_lines(_lines(standing, then, now))
    return _STATUS[standing.state]


def _lines(item: Standing, then: str, now: int) -> Iterator[str]:
    yield f"mission {item.mission}"
    yield from lines.table([*_published(item, now), *_draft(item, now)])
    one = item.comparison
    if one is not None:
        for engine in one.engines:
            yield f"engine of {engine.backbone}, key {lines.short(engine.key)}: {_ENGINE[engine.state]}"
        yield from (f"note: {note}" for note in one.notes)
    for finding in item.unknown:
        yield from render.finding(finding)
    yield _STATE[item.state]
    if one is not None:
        yield from _differences(one, bool(item.published))
    if then:
        yield f"next: {then}"


_ENGINE = {
    "to order": "this machine does not make it, and there is no order",
    "ordered": "ordered; no device has sent a result yet",
    "result": "a result waits to be accepted",
}


def _published(item: Standing, now: int) -> Iterator[tuple[str, str]]:
    one = item.published
    if one is None:
        yield "published", _damage(item) or ("unknown" if item.unknown else "nothing")
        return
    yield "published", f"flight {one.flight}, sequence {one.sequence}, {render.when(one.issued_at)}"
    yield from (("  signed by", _key(signer)) for signer in one.signers)
    yield "  valid", render.validity(one.valid_from, one.expires_at, now)
    if one.withdrawn:
        yield "  WITHDRAWN", one.withdrawn
    if lines.is_verbose():
        yield "  manifest", one.manifest


def _draft(item: Standing, now: int) -> Iterator[tuple[str, str]]:
    one = item.draft
    if one is None:
        if item.comparison is not None and item.comparison.draft is not None:
            yield "draft", "DOES NOT HOLD: `flightbag ls` says why"
        return
    yield "draft", f"{len(one.signers)} of {one.threshold} signatures, signing code {one.signing_code}"
    yield from (("  signed by", _key(signer)) for signer in one.signers)
    lacking = one.threshold - len(one.signers)
    if lacking > 0:
        keys = ", ".join(_key(signer) for signer in one.others)
        yield "  missing", f"{lacking} of {keys}"
    yield "  valid", render.validity(one.valid_from, one.expires_at, now)
    if one.overtaken:
        yield "  overtaken", one.overtaken
    elif item.comparison is not None and item.comparison.draft is not None:
        yield "  content", _content(item.comparison.draft)


def _content(differences: Sequence[Difference]) -> str:
    """Return how a draft differs from the mission file now. One that only lost something here may keep its signatures
    through a build."""
    other = [one for one in differences if one.change != "lost"]
    kinds = ", ".join(dict.fromkeys(one.kind for one in other or differences))
    if other:
        return f"another than the mission file now: {kinds}; a build discards the draft"
    return f"that of the mission file now{f', missing or damaged here: {kinds}' if kinds else ''}"


def _damage(item: Standing) -> str:
    """Return what the comparison has seen of a published manifest that could not be read; "" for none."""
    differences = () if item.comparison is None else item.comparison.differences
    lost = [one.detail for one in differences if (one.kind, one.change) == ("store", "lost")]
    return lines.shortened(f"DAMAGED: {lost[0]}") if lost else ""


def _key(signer: Signer) -> str:
    kid = lines.short(signer.kid)
    return f"{kid} ({signer.name})" if signer.name else kid


def _differences(one: Comparison, published: bool) -> Iterator[str]:
    for difference in one.refused:
        yield from lines.wrapped(f"a build refuses: {_words(difference)}", "  ", "    ")
    if [difference.kind for difference in one.differences] == ["mission"] and not published:
        yield f"  nothing is published; a build makes {one.missing} of {one.artifacts} artifacts"
        return
    by_kind: dict[str, list[Difference]] = {}
    for difference in one.differences:
        by_kind.setdefault(difference.kind, []).append(difference)
    for same in by_kind.values():
        named, more = lines.cut(same, _NAMED)
        for difference in named:
            yield from lines.wrapped(_words(difference), "  ", "    ")
        if more:
            yield f"  {same[0].kind}: and {more} more (see -v)"


def _words(one: Difference) -> str:
    text = f"{one.kind} {one.name}".rstrip()
    if one.name or not one.detail:  # else the detail says what changed
        text += f" {_CHANGE.get(one.change, one.change)}" if one.change != "refused" else ""
    facts = [*([f"by {', '.join(one.fields)}"] if one.fields else []), *_map(one)]
    if facts:
        text += f", {', '.join(facts)}"
    return lines.shortened(f"{text}: {one.detail}" if one.detail else text)


_CHANGE = {"lost": "is missing or damaged"}


def _map(one: Difference) -> Sequence[str]:
    if one.kind != "descriptors":
        return ()
    words = [render.many(one.cells, "cell")]
    if one.views is not None:
        counts = {"new": one.views.new, "changed": one.views.changed, "gone": one.views.gone}
        words += [f"{render.many(count, 'view')} {what}" for what, count in counts.items() if count]
        if one.views.unknown:
            words.append(f"some of {render.many(one.views.unknown, 'view')} that another station described")
    return words


def _next(item: Standing, mission_file: str, store: str) -> str:
    """Return the command to type next; "" where a remedy says it."""
    file, at, mission = quote(mission_file), quote(store), quote(item.mission)
    return {
        "look": "",
        "plan": f"flightbag plan {file} --store {at}",
        "build": f"flightbag build {file} --store {at} --key KEY",
        "sign": f"flightbag sign {at} {mission} --key KEY",
        "order": f"flightbag engines order {file} --store {at}",
        "fulfil": f"carry the store to the device, and there: flightbag engines fulfil {at} --key KEY",
        "accept": f"flightbag engines accept {at}",
        "carry": f"flightbag sync {at} STICK --mission {mission}",
    }[item.next]
