"""The text that the commands print for people. A function takes a value and yields lines; it decides nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from store.findings import Finding
from store.format.host import LIBRARIES
from store.format.manifest import PPM, Coverage, Figure, Manifest, MissionFacts, Takeoff, utc
from store.format.missing import MissingList
from store.takeoff import quality
from store.takeoff.engines import engine_for, engines_of
from store.takeoff.mission import Opened, Verdict, VerifiedMission
from store.trust.root import TrustRoot
from tools.lines import cut, short, shortened, table, wrapped

if TYPE_CHECKING:
    from builders.doctor import Check
    from builders.imagery.repetition import Repeats
    from builders.onboard.measurement import Measurement
    from builders.onboard.retriever import Located
    from builders.report import BuildReport, CacheReport, NodeReport, PlanReport
    from store.audit.fsck import Audit
    from store.audit.repair_plan import RepairPlan, Step
    from store.ground.issuing import Review
    from store.takeoff.aircraft import Proving

# The most tiles that a list names one by one.
LISTED = 20
# The customary greatest age of imagery in days, by the class of the sector.
CUSTOMARY_DAYS = {"active_conflict": 183, "stable_rear": 365}
# What the steps of the takeoff check look at (FORMAT.md 7), in a word or two.
STEPS = {
    "A": "ref and manifest",
    "B": "trust chain",
    "C": "signatures",
    "D": "entry table",
    "E": "this flight",
    "F": "bytes",
    "G": "imagery",
}
# What gives a verdict that which it lists as not judged, by how that begins; the first that fits.
_TO_JUDGE = (
    ("aircraft", "--aircraft"),
    ("host class", "--host"),
    ("flight", "--flight"),
    ("rollback", "--state"),
    ("freshness, for want", "--clock trusted"),
    ("freshness", "set the clock"),
    ("valid_from", "--clock trusted"),
    ("expiry", "valid_for in the mission file, or `flightbag trust set-lifetime`"),
    ("recall", "[quality] in the mission file, with at least 20 queries"),
    ("place", "landmarks under [quality] in the mission file"),
    ("the medium itself", "verify it where a plain file system mounts it"),
    *((library, "name its version in the host class: `flightbag engines host`") for library in LIBRARIES.values()),
)
# The most findings of a NO-GO: one needs three or four lines, and a screen has 24.
ON_A_SCREEN = 5


def many(count: int, what: str, plural: str = "") -> str:
    """Return a count and its noun: `1 object`, `2 objects`; `plural` is that of a noun which takes more than an s."""
    return f"{count} {what}" if count == 1 else f"{count} {plural or what + 's'}"


def listed(word: str, names: Iterable[str]) -> list[str]:
    """Return the lines that list names after a word."""
    return wrapped(f"{word} {', '.join(names)}", "", "  ")


def size(count: int) -> str:
    """Return a number of bytes as people read it, in powers of ten: 312 B, 1.4 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def key_lines(root: TrustRoot, kid: bytes, note: str = "") -> Iterator[str]:
    """Yield the kid of a key with a note, and its name by a trust root if it has one."""
    name = root.name_of(kid)
    yield "  ".join(filter(None, (f"  {short(kid.hex())}", name, note)))


def signed_by(root: TrustRoot, kids: Iterable[bytes]) -> list[tuple[str, str]]:
    """Return rows of a label and a text, one for each key that has signed, with its name by a trust root."""
    return [("signed by", short(kid.hex()) + (f" ({name})" if (name := root.name_of(kid)) else "")) for kid in kids]


def signers_json(root: TrustRoot, kids: Iterable[bytes]) -> list[dict[str, str]]:
    """Return the keys that have signed, with their names by a trust root ("" for none), for JSON."""
    return [{"kid": kid.hex(), "name": root.name_of(kid)} for kid in kids]


def when(seconds: int) -> str:
    """Return unix seconds as a time in UTC, to the second."""
    return utc(seconds)


def validity(valid_from: int | None, expires_at: int | None, at: int | None = None) -> str:
    """Return when a mission may fly, with the distance from a time `at` in unix seconds where one is given."""

    def told(seconds: int) -> str:
        return when(seconds) if at is None else f"{when(seconds)} ({distance(seconds - at)})"

    start = "" if valid_from is None else f"from {told(valid_from)}, "
    if expires_at is None:
        return f"{start}never expires"
    return start + ("until " if at is None or at <= expires_at else "EXPIRED at ") + told(expires_at)


def validity_in_short(valid_from: int | None, expires_at: int | None, at: int) -> str:
    """Return in a few words whether a mission may fly at a time `at`, or how far away that is."""
    if expires_at is not None and at > expires_at:
        return f"EXPIRED {distance(expires_at - at)}"
    if valid_from is not None and at < valid_from:
        return f"valid {distance(valid_from - at)}"
    return "never expires" if expires_at is None else f"expires {distance(expires_at - at)}"


def distance(seconds: int) -> str:
    """Return how far away a time is, in whole units: `in 71 h`, `5 days ago`."""
    size, unit = next(
        ((size, unit) for size, unit in ((86400, "days"), (3600, "h"), (60, "min")) if abs(seconds) >= 4 * size),
        (1, "s"),
    )
    count = f"{abs(seconds) // size} {unit}"
    return f"in {count}" if seconds >= 0 else f"{count} ago"


def day(seconds: int) -> str:
    """Return unix seconds as a day in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def degrees(number: int) -> str:
    """Return a number of 1e-7 degrees as degrees, exactly."""
    return f"{'-' if number < 0 else ''}{abs(number) // 10**7}.{abs(number) % 10**7:07d}".rstrip("0").rstrip(".")


def takeoff(origin: Takeoff) -> str:
    """Return the takeoff origin in degrees and metres."""
    return f"{degrees(origin.lat)}, {degrees(origin.lon)}, {origin.alt / 1000:g} m"


def outside(facts: MissionFacts) -> tuple[str, ...]:
    """Return how far outside the mapped area the takeoff is, where the mission allows that."""
    if not facts.takeoff_outside:
        return ()
    metres = facts.area.distance_m(facts.takeoff.lat, facts.takeoff.lon)
    far = f"{metres:.0f} m" if metres < 1000 else f"{metres / 1000:.1f} km"
    return (f"takeoff about {far} OUTSIDE the mapped area, as the mission allows",)


def hexed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map with its byte strings as hex, for JSON."""
    return {key: item.hex() if isinstance(item, bytes) else item for key, item in value.items()}


def checks(items: Iterable[Check]) -> Iterator[str]:
    """Yield the lines of the checks of a machine: the state, what was looked at, what it is like, and what to do."""
    for item in items:
        head = f"{item.state:<9}{item.name:<18} "
        yield from wrapped(item.text, head, " " * len(head))
        if item.remedy:
            yield from wrapped(f"-> {item.remedy}", " " * 9, " " * 12)


def finding(item: Finding) -> Iterator[str]:
    """Yield the lines of one finding: its kind, its place, the message and the remedy."""
    head = f"{item.step}, {STEPS[item.step]}: {item.kind}" if item.step else item.kind
    place = item.entry or item.path
    yield f"  {head:<17}  {place}" if place else f"  {head}"
    yield from wrapped(shortened(item.message), " " * 6, " " * 6)
    if item.missions:
        yield from wrapped(f"grounds {', '.join(item.missions)}", " " * 6, " " * 8)
    if item.remedy:
        yield from wrapped(f"-> {item.remedy}", " " * 6, " " * 9)


def verdict(item: Verdict, *, past: bool = False) -> Iterator[str]:
    """Yield GO or NO-GO with the facts, on one screen. A verdict on the `past` has no code for the radio."""
    if item.mission is None:
        word = "NO-GO (could not check everything)" if item.unknown else "NO-GO"
        yield f"{word}  {item.mission_id}"
        findings, more = cut(item.findings, ON_A_SCREEN)
        for one in findings:
            yield from finding(one)
        if more:
            yield f"  and {many(more, 'more finding')} (see -v)"
        return
    facts, manifest = item.mission.facts, item.mission.manifest
    head = "WOULD HAVE BEEN GO" if past else "GO"
    yield f"{head}  {facts.id}  flight {facts.flight}" + ("" if past else f"  code {item.mission.code}")
    for label, text in _facts_of_go(item, item.mission):
        yield from wrapped(text, f"  {label:<10} ", " " * 13)
    yield from (f"  {line}" for line in recall_of_sets(manifest.quality))
    yield from _not_judged(item.not_judged)


def _facts_of_go(item: Verdict, mission: VerifiedMission) -> Iterator[tuple[str, str]]:
    """Yield the facts of a GO as a label and a text."""
    facts, manifest, root = mission.facts, mission.manifest, mission.trust_root
    several = len(manifest.hosts) > 1
    yield "aircraft", ", ".join(facts.aircraft) + ("" if several else f"   host {manifest.hosts[0]}")
    yield from (("host", host) for host in manifest.hosts if several)
    if mission.host is not None and several:
        for engines in engines_of(mission.table.entries).values():
            yield from (("loads", one.name) for one in [engine_for(engines, mission.host)] if one is not None)
    yield "takeoff", f"{takeoff(facts.takeoff)}   sector {facts.sector}"
    yield from (("outside", text) for text in outside(facts))
    yield "valid", validity(manifest.issue.valid_from, manifest.issue.expires_at, item.judged_at)
    yield "coverage", covered(manifest.coverage)
    yield "imagery", imagery(manifest, item.judged_at)
    yield from signed_by(root, mission.signers)
    yield "verified", f"{item.objects} objects, {size(item.bytes)}, under trust root {root.version}"
    if item.from_medium:
        yield "read", "from the medium, past the page cache"


def _not_judged(facts: Iterable[str]) -> Iterator[str]:
    """Yield what a verdict lists as not judged, and what gives the next verdict that: the options in one paragraph, all
    else in one each."""
    options, others = [], []
    for text in facts:
        given = next((given for start, given in _TO_JUDGE if text.startswith(start)), "")
        if given.startswith("-") and " " not in given and ": " not in text:
            options.append(f"{text} ({given})")
        else:
            others.append(f"{text} -> {given}" if given else text)
    for paragraph in (["; ".join(options)] if options else []) + others:
        yield from wrapped(paragraph, "  not judged ", " " * 13)


def summary(items: Sequence[Verdict], *, past: bool = False) -> str:
    """Return the line that sums up the verdicts on several missions, and names those that are NO-GO."""
    bad = [one for one in items if not one.go]
    unknown = sum(one.unknown for one in bad)
    counts = [(len(items) - len(bad), "WOULD HAVE BEEN GO" if past else "GO"), (len(bad) - unknown, "NO-GO")]
    counts.append((unknown, "NO-GO (could not check everything)"))
    text = ", ".join(f"{count} {word}" for count, word in counts if count)
    named, left = cut([one.mission_id for one in bad], ON_A_SCREEN)
    return f"{text}: {', '.join([*named, *([f'{left} more'] if left else [])])}" if bad else text


def audit(item: Audit, read_all: str) -> Iterator[str]:
    """Yield the findings of an audit, a verdict on each mission, and a summary.

    `read_all` is the command that reads what this audit did not.
    """
    findings = [one for one in item.findings if not one.information]
    for one in findings:
        yield from finding(one)
    for kind, count in sorted(item.notes.items()):
        yield f"  note: {count} {kind}"
    # The takeoff check refuses such a mission, flyable or not.
    yield from (f"  note: {one.message}" for one in item.findings if one.kind == "unproven")
    yield from table([(mission, _MISSION_STATES[state]) for mission, state in sorted(item.missions.items())])
    read = f"{item.read_objects} read in full ({size(item.read_bytes)})" if item.read_objects else "none read in full"
    yield (
        f"{audit_verdict(item)}: {many(item.objects, 'object')}, {size(item.bytes)}; {read}; "
        f"{many(len(findings), 'finding')}"
    )
    if item.read_objects and item.reading.from_medium:
        yield "read from the medium, past the page cache"
    if item.reading.doubt:
        yield f"not judged: {item.reading.doubt}"
    if item.unread:
        yield f"{many(item.unread, 'object')} not read; this reads every byte: {read_all}"


_MISSION_STATES = {
    "flyable": "flyable",
    "not-read": "complete, not read",
    "grounded": "GROUNDED",
    "withdrawn": "WITHDRAWN",
}


def audit_verdict(item: Audit) -> str:
    """Return the verdict of an audit on the whole store. It is `clean` only if every object was read."""
    if item.errors:
        return "errors"
    if item.inconclusive:
        return "could not check everything"
    return "clean" if not item.unread else "complete, partly read" if item.read_objects else "complete, not read"


def repair_plan(item: RepairPlan) -> Iterator[str]:
    """Yield the steps of a repair, and the findings that it cannot mend."""
    yield from table([(one.action, one.name, *_move(one)) for one in item.steps])
    if item.index:
        yield "mend the index"
    for one in item.unsolved:
        yield f"no source to mend from: {one.kind} {one.path or one.object}"


def _move(step: Step) -> tuple[str, str]:
    to = f"-> {step.to}" if step.to else ""
    return to, f"from {step.source}" if step.source else f"({step.why})"


def plan(item: PlanReport, now: int) -> Iterator[str]:
    """Yield what a build would make, what the store already has, and which tiles of the area are missing. `now` is unix
    seconds."""
    yield f"mission {item.mission}, flight {item.flight}, host {' and '.join(item.hosts)}"
    yield f"valid, if it is built now: {validity(item.valid_from, item.expires_at, now)}"
    rows = item.artifacts
    yield from table(
        [
            (
                "present" if r.present else "cached" if r.cached else "missing",
                r.name,
                r.detail if r.bytes is None else size(r.bytes),
            )
            for r in rows
        ]
    )
    if len(item.hosts) > 1:
        yield from (f"{r.name} is for {' and '.join(r.hosts)}" for r in rows if r.hosts)
    yield from (f"{r.name} is {r.outside}, outside the folder of the mission file" for r in rows if r.outside)
    missing, cached = sum(not row.present for row in rows), sum(row.cached for row in rows)
    of_them = f", {cached} of them in the shared cache" if cached else ""
    # A plan has no row for the card that an engine brings; a build counts it.
    counts = f"{len(rows) - missing} present, {missing} to build{of_them}; engine cards are not counted"
    yield f"{counts}; {item.tiles} tiles of the area"
    yield from shared_cache(item.cache)
    yield from _repeats(item.repeated)
    yield from (f"not measured: {text}" for text in item.not_measured)
    if lost := len(item.missing):
        consequence = "and coverage.at_least allows that" if item.enough else "so that the build would fail"
        yield f"{lost} tiles are missing, {consequence}:"
        yield from _sums(m.reason for m in item.missing)
        yield from _some(f"{m.tile}  {m.reason}" + (f": {m.detail}" if m.detail else "") for m in item.missing)
        yield "a plan decodes no tile: only a build finds other undecodable ones, transparent and blank ones"
    yield from (f"note: {note}" for note in item.notes)
    yield from (f"hint: {hint}" for hint in item.hints)


def nodes(items: Sequence[NodeReport]) -> Iterator[str]:
    """Yield what each node of a cluster can build."""
    for one in items:
        gpus = f", {many(one.gpus, 'GPU')}" if one.gpus else ""
        why = f"  RUNS NO UNITS: {one.why}" if one.why else ""
        yield f"{one.name}  {one.address}  {many(one.cpus, 'CPU')}{gpus}{why}"
        if one.host:
            yield f"  host {one.host}"
            backends = ", ".join(f"{name} {version}" for name, version in one.backends)
            yield f"  providers {', '.join(one.providers) or 'none'}; backends {backends or 'none'}"
    units = [one for one in items if not one.why]
    cpus = many(sum(one.cpus for one in units), "CPU")
    yield f"{many(len(items), 'node')}, {len(units)} of them run units, on {cpus}"


def shared_cache(item: CacheReport | None) -> Iterator[str]:
    """Yield what a shared cache gave and got; nothing without one."""
    if item is None:
        return
    yield (
        f"shared cache: {many(item.hits, 'hit')}, {many(item.misses, 'miss', 'misses')}, "
        f"{size(item.bytes)} came; {item.pushed} put there, {size(item.pushed_bytes)}"
    )
    if item.refused:
        yield f"  REFUSED: {', '.join(f'{count} {kind}' for kind, count in item.refused.items())}"
    if item.unpushed:
        yield f"  warning: {many(item.unpushed, 'artifact')} could not be put there"
    yield from (f"    {text}" for text in item.reasons)
    if item.down:
        yield f"  warning: it was given up: {item.down}"


def _repeats(item: Repeats) -> Iterator[str]:
    """Yield how many tiles have the bytes of another one, and where the most frequent picture is; nothing for none."""
    if item.tiles:
        yield f"repeated: {item.tiles} tiles show {many(item.pictures, 'picture')}, {item.most} of them the same one:"
        rest = item.most - len(item.examples)
        yield f"  {'  '.join(item.examples)}" + (f"  and {rest} more" if rest else "")


_REMEDIES = {
    "absent": "give another source, or make the area smaller",
    "masked": "look at its nodata value, mask and alpha with gdalinfo; see tiles[].bands",
    "no-view": "give imagery that reaches as many tiles beyond the area as a view has, or set coverage.at_least",
    "outside-raster": "give another source, or make the area smaller",
    "outside-zooms": "remove the zoom from tiles[].zooms",
    "partly-outside": "give a raster that reaches beyond the area, or set coverage.at_least",
    "repeated": 'give imagery where these are placeholders; where they are open water, coverage.repeated = "allowed"',
    "too-coarse": "see coverage.min_resolution_m and tiles[].resolution_m",
    "too-old": "see freshness.max_age_days and tiles[].captured",
    "wrong-size": "set coverage.tile_size to the size of the tiles",
}


def _sums(reasons: Iterable[str]) -> Iterator[str]:
    """Yield how many tiles are missing for each reason, with a remedy."""
    for reason, count in sorted(Counter(reasons).items()):
        remedy = _REMEDIES.get(reason)
        yield f"missing: {count} {reason}" + (f" -> {remedy}" if remedy else "")


def _some(items: Iterable[str]) -> Iterator[str]:
    """Yield the first items, and how many more there are."""
    named, more = cut(list(items), LISTED)
    for item in named:
        yield f"  {item}"
    if more:
        yield f"  and {more} more (see -v)"


def build(item: BuildReport, now: int) -> Iterator[str]:
    """Yield the outcome of a build, its artifacts, coverage and figures. `now` is unix seconds."""
    yield f"{item.outcome}: mission {item.mission}"
    yield from table(
        [(a.action, a.name, size(a.bytes), "" if a.seconds is None else f"{a.seconds:.2f} s") for a in item.artifacts]
    )
    if item.artifacts:
        built, reused = item.of("built"), item.of("reused")
        yield (
            f"{len(built)} built ({size(sum(a.bytes for a in built))}), {len(reused)} reused "
            f"({size(item.saved_bytes)} saved by dedup)"
        )
    yield from shared_cache(item.cache)
    zooms = ", ".join(f"{count} at z{zoom}" for zoom, count in item.coverage.by_zoom.items())
    yield f"coverage: {item.coverage.described} of {item.coverage.tiles} tiles ({zooms})"
    yield from _repeats(item.coverage.repeated)
    yield from _sums(m.reason for m in item.coverage.missing)
    yield from _some(f"{m.tile}  {m.reason}" + (f": {m.detail}" if m.detail else "") for m in item.coverage.missing)
    yield from (f"note: {note}" for note in item.notes)
    yield from (f"hint: {hint}" for hint in item.coverage.hints)
    yield from _built_figures(item)
    if item.manifest:
        yield f"manifest {short(item.manifest)}, sequence {item.sequence}"
    if item.signing_code:
        yield f"signing code {item.signing_code}"
    if item.outcome != "failed":
        yield f"valid: {validity(item.valid_from, item.expires_at, now)}"
    # Last, where it is seen: tables may fill a screen.
    if item.outcome in _NOT_PUBLISHED:
        yield _NOT_PUBLISHED[item.outcome]
    reasons, more = cut(item.why.split("\n") if item.why else [], LISTED)
    for reason in reasons:
        yield from wrapped(reason, "  ", "    ")
    if more:
        yield f"  and {more} more (see -v)"


# What a person reads above the reasons of a build that published nothing.
_NOT_PUBLISHED = {"draft": "NOT PUBLISHED, a draft:", "failed": "NOT PUBLISHED; what was published before stays:"}


def _built_figures(item: BuildReport) -> Iterator[str]:
    """Yield the figures of a build, what they are to be compared with, and what was not measured."""
    rows = [("figure", "value", "chance", "least", "queries")]
    names = Counter(one.name for one in item.figures)
    asked = sorted({one.engine for one in item.figures if names[one.name] > 1 and one.engine})
    for one in item.figures:
        if not quality.is_baseline(one.name):
            least = f"{one.least / PPM:g}{'' if one.holds else ' TOO LOW'}" if one.least else "-"
            title = quality.figure_title(one.name)
            if one.engine in asked:
                title += f" [{asked.index(one.engine) + 1}]"
            rows.append((title, share(one.value), share(one.chance), least, str(one.queries)))
    if item.figures:
        yield from table(rows)
    yield from (f"[{number}] by {engine}" for number, engine in enumerate(asked, 1))
    yield from baselines(item.figures, {one.name: one.chance for one in item.figures})
    yield from build_warnings(item)
    yield from (f"not measured: {text}" for text in item.not_measured)


def build_warnings(item: BuildReport) -> Iterator[str]:
    """Yield what nobody may miss of a mission that a build publishes: doubts about its figures."""
    yield from (f"warning: {text}" for text in item.warnings)
    for figure in item.unproven:
        title = quality.figure_title(figure.name)
        yield f"UNPROVEN: {title}, at least {figure.least / PPM:g}: NO-GO on each aircraft until it is probed there"


def share(value: int | None) -> str:
    """Return parts per million as a fraction of four places; a dash for none."""
    return "-" if value is None else f"{value / PPM:.4f}"


def baselines(figures: Iterable[quality.Figure], chances: Mapping[str, int | None]) -> Iterator[str]:
    """Yield what a recall has to be compared with: what the same network finds untrained, and what chance does, both
    among the sampled views alone; and what no recall can show."""
    figures = tuple(figures)
    rows = quality.recall_rows(figures)
    compared = [row for row in rows if row.sampled is not None]
    if compared:
        lines = [("right first, among the sampled views alone", "backbone", "untrained", "chance")]
        for row in compared:
            name = f"{row.set}/{row.way}"
            lines.append((name, share(row.sampled), share(row.untrained), share(chances.get(f"sampled@1/{name}"))))
        yield from table(lines)
    if rows and not any(figure.name.startswith(quality.LANDMARKS) for figure in figures):
        yield "note: a map that is asked with itself cannot see that it is mirrored or shifted"


def recall_of_sets(figures: Iterable[Figure]) -> Iterator[str]:
    """Yield, for each descriptor set with a signed recall, that of the way in which it is least."""
    figures = tuple(figures)
    untrained = {one.set for one in quality.trainings(figures) if not one.shows}
    worst: dict[str, quality.RecallRow] = {}
    for row in quality.recall_rows(figures):
        if row.set not in worst or row.whole < worst[row.set].whole:
            worst[row.set] = row
    for set_, row in worst.items():
        yield f"recall     {set_} {share(row.whole)} at worst ({row.way}, {many(row.queries, 'query', 'queries')})"
        if set_ in untrained:
            yield f"           nothing shows that the backbone of {set_} is trained for this"


def located(found: Located, mission: VerifiedMission) -> Iterator[str]:
    """Yield the places that a query found, the best first, then what it searched and what it assumed, and how often
    the map of the mission finds the right place."""
    rows = [("tile", "score", "centre", "north-western corner")]
    for one in found.matches:
        centre, corner = (f"{latitude:.6f}, {longitude:.6f}" for latitude, longitude in (one.centre, one.corner))
        rows.append((str(one.tile), f"{one.score:.4f}", centre, corner))
    yield from table(rows)
    for ground in found.left_out:
        yield f"not searched: zoom {ground.zoom}, whose rows show {ground.metres:.0f} m, more than the picture"
    yield from (f"assumed: {text}" for text in found.assumed)
    yield from recall_of_sets(mission.manifest.quality)
    for set_ in quality.without_recall(mission.manifest.quality, mission.table):
        yield f"recall     {set_} not measured"


def measured(figures: Sequence[Measurement]) -> Iterator[str]:
    """Yield figures that were measured again, beside the signed ones."""
    rows = [("figure", "now", "chance", "signed", "least", "queries", "")]
    for one in figures:
        least = f"{one.least / PPM:g}" if one.least else "-"
        zooms = ", ".join(f"z{zoom} {value / PPM:.4f}" for zoom, value in one.zooms.items())
        notes = [zooms] if zooms else []
        notes += ["TOO LOW"] if one.low else []
        if one.value is None:
            option = "--landmarks" if one.name.startswith(quality.LANDMARKS) else "--against"
            notes.append(f"NOT MEASURED: {option} is missing")
        elif one.unproven and one.same_recipe:
            notes.append("nobody had measured it")
        elif one.unsure:
            notes.append("not measured in the way of the signed figure")
        if not quality.is_baseline(one.name):
            name = quality.figure_title(one.name)
            now, by_chance, signed = (share(value) for value in (one.value, one.chance, one.signed))
            rows.append((name, now, by_chance, signed, least, str(one.queries), "; ".join(notes)))
    yield from table(rows)
    yield from (f"{one.name}: {text}" for one in figures for text in one.missed)


def proving(item: Proving[Measurement], state: str | None) -> Iterator[str]:
    """Yield what the state of an aircraft remembers now of figures that nobody had measured, or that none was given."""
    yield from (f"proven aboard, and recorded: {quality.figure_title(name)}" for name in item.held)
    yield from (f"NOT PROVEN, nor recorded: {quality.figure_title(name)}" for name in item.failed)
    if state is None and any(one.unproven for one in item.figures):
        yield "nothing was recorded: aboard, give the aircraft's state with --state"


def measured_recall(figures: Sequence[Measurement], signed: Sequence[Figure]) -> Iterator[str]:
    """Yield what figures of recall that were measured again have to be compared with. What the untrained network finds
    is as it is signed."""
    now = [Figure(one.name, one.value, 0, one.queries, b"") for one in figures if one.value is not None]
    rows = [*now, *(one for one in signed if one.name.startswith("untrained@"))]
    yield from baselines(rows, {one.name: one.chance for one in figures})


def mission(opened: Opened, missing: MissingList, now: int) -> Iterator[str]:
    """Yield the facts of one manifest, its entries, and how many tiles of the area it does not describe. `now` is unix
    seconds."""
    signers = signed_by(opened.trust_root, opened.signers)
    rows = [*mission_facts(opened, missing, now), *signers, ("signing code", opened.signing_code)]
    yield from table([(label, shortened(text)) for label, text in rows])
    yield from baselines(opened.manifest.quality, {})
    yield from table([(e.kind, size(e.size), short(e.id), e.name) for e in opened.table.entries])
    yield from _engines_of_fleet(opened)
    yield from _arithmetic(opened)
    yield from _outside(opened)


def _engines_of_fleet(opened: Opened) -> Iterator[str]:
    """Yield, of a mission for several host classes, which of them each engine is for."""
    if len(opened.manifest.hosts) == 1:
        return
    for engines in engines_of(opened.table.entries).values():
        loaded = {host: engine_for(engines, host) for host in opened.manifest.hosts}
        for engine in engines:
            if classes := [host for host, one in loaded.items() if one == engine]:
                yield f"{engine.name} is for {' and '.join(classes)}"


def _arithmetic(opened: Opened) -> Iterator[str]:
    """Yield, of each descriptor set that was not described on a CPU, in which arithmetic."""
    maps = {(entry.name.split("/")[1], entry.meta.get("numeric")) for entry in opened.table.of_kind("descriptors")}
    for name, numeric in sorted((name, str(numeric)) for name, numeric in maps if numeric):
        what = "by any device, in any precision" if numeric == "any" else f"by {numeric}"
        yield f"the map of {name} is described {what}"


def review(item: Review, missing: MissingList, now: int) -> Iterator[str]:
    """Yield the facts of a manifest that is about to be signed, what it changes, and the code that names it. `now` is
    unix seconds."""
    entries = item.opened.table.entries
    rows = [*mission_facts(item.opened, missing, now), *signed_by(item.opened.trust_root, item.opened.signers)]
    yield from table([(label, shortened(text)) for label, text in rows])
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(entry.kind for entry in entries).items()))
    yield f"{many(len(entries), 'entry', 'entries')}, {size(sum(item.opened.closure().values()))}: {kinds}"
    yield from _arithmetic(item.opened)
    yield from _outside(item.opened)
    if item.before is None:
        yield "no manifest of this mission is published"
    else:
        yield from _changes(item.before, item.opened, now)
    if item.named is not item.opened:
        yield f"this goes back to manifest {short(item.named.manifest_id)}, whose code is asked for"
    yield f"signing code {item.named.signing_code}"


# They differ between any two manifests.
_ALWAYS_OTHER = {"issued", "manifest", "Merkle root"}


def _changes(old: Opened, new: Opened, now: int) -> Iterator[str]:
    """Yield what a manifest changes against the published one: facts that differ, and entries by name."""
    yield f"changes from sequence {old.manifest.issue.sequence}:"
    # The list of missing tiles counts by itself among the entries; of the published manifest it may be lost.
    before, after = (dict(mission_facts(one, MissingList(()), now)) for one in (old, new))
    labels = [label for label in {**before, **after} if label not in _ALWAYS_OTHER]
    lines = [
        f"  {label}: {after.get(label, 'none')}, before {before.get(label, 'none')}"
        for label in labels
        if before.get(label) != after.get(label)
    ]
    if old.manifest.mission.area != new.manifest.mission.area and before["area"] == after["area"]:
        lines.append("  area: other polygons in the same box")
    if old.manifest.coverage.digest != new.manifest.coverage.digest:
        lines.append("  imagery: other tiles, or others are missing")
    if old.manifest.releases != new.manifest.releases:
        lines.append("  releases: others")
    from store.ground.history import diff  # not above: a command that flies needs no history

    named = diff(old, new)
    entries = [("!", name) for name in named.changed]
    entries += [("-", name) for name in (*named.only_a, *(one for one, _ in named.moved))]
    entries += [("+", entry.name) for entry in new.table.entries if old.table.find(entry.name) is None]
    shown, more = cut(entries, LISTED)
    lines += [f"  {sign} {name}" for sign, name in shown]
    if more:
        lines.append(f"  and {more} more entries")
    yield from lines or ["  nothing but its issue"]


def mission_facts(opened: Opened, missing: MissingList, now: int) -> list[tuple[str, str]]:
    """Return what a manifest says, as rows of a label and a text."""
    manifest: Manifest = opened.manifest
    facts, issue, coverage = manifest.mission, manifest.issue, manifest.coverage
    west, south, east, north = facts.area.bbox
    return [
        ("mission", facts.id),
        ("flight", facts.flight),
        ("aircraft", ", ".join(facts.aircraft)),
        ("takeoff", takeoff(facts.takeoff)),
        *[("outside", text) for text in outside(facts)],
        (
            "area",
            f"west {degrees(west)}, south {degrees(south)}, east {degrees(east)}, north {degrees(north)}"
            + (f"; {many(len(facts.area.polygons), 'polygon')} in this box" if facts.area.polygons else ""),
        ),
        ("sector", facts.sector),
        *[("host", host) for host in manifest.hosts],
        ("coverage", covered(coverage)),
        *[("missing", f"{tiles} {reason}") for reason, tiles in missing.by_reason.items()],
        ("imagery", imagery(manifest)),
        *[
            (quality.figure_title(figure.name), signed_figure(figure))
            for figure in manifest.quality
            if not quality.is_baseline(figure.name)
        ],
        *[
            (quality.figure_title(figure.name), f"UNPROVEN: at least {figure.least / PPM:g}, to be probed aboard")
            for figure in manifest.unproven
        ],
        *[(f"recall of {set_}", "not measured") for set_ in quality.without_recall(manifest.quality, opened.table)],
        ("issued", f"{when(issue.issued_at)}, sequence {issue.sequence}, epoch {issue.epoch}"),
        ("valid", validity(issue.valid_from, issue.expires_at, now)),
        ("manifest", str(opened.manifest_id)),
        ("Merkle root", manifest.merkle_root.hex()),
    ]


def _outside(opened: Opened) -> Iterator[str]:
    """Yield the entries whose files lay outside the folder of the mission file."""
    outside = [e.name for e in opened.table.entries if "origin" in e.meta]
    yield from (f"{name} lay outside the folder of the mission file" for name in outside)


def covered(coverage: Coverage) -> str:
    """Return how many tiles of the area are described, which part is required, and how many are repeated."""
    text = f"{coverage.tiles - coverage.missing} of {coverage.tiles} tiles at zooms {list(coverage.zooms)}"
    if coverage.required_ppm < PPM:
        text += f", at least {coverage.required_ppm / PPM:g} of them required"
    return f"{text}; {coverage.repeated} show the same as another, allowed" if coverage.repeated else text


def signed_figure(figure: Figure) -> str:
    """Return the value of a figure, on how many queries it rests, and its bound."""
    least = f", at least {figure.least / PPM:g}" if figure.least else ""
    return f"{share(figure.value)} of {many(figure.queries, 'query', 'queries')}{least}"


def imagery(manifest: Manifest, at: int | None = None) -> str:
    """Return when the imagery was taken, the age of the oldest at a time, or when issued, and the allowed age."""
    coverage, sector = manifest.coverage, manifest.mission.sector
    age = coverage.age_days_at(manifest.issue.issued_at if at is None else at)
    if age is None:
        return "no tile is described"
    text = f"{day(coverage.oldest)} to {day(coverage.newest)}, up to {many(age, 'day')} old"
    text += " when issued" if at is None else ""
    if coverage.min_resolution_mm is not None:
        text += f", {coverage.min_resolution_mm / 1000:g} m a pixel or finer"
    if coverage.max_age_days is not None:
        return f"{text}; at most {coverage.max_age_days} are allowed"
    return f"{text}; the mission sets no limit, customary for {sector} are {CUSTOMARY_DAYS[sector]} days"


def mission_json(opened: Opened) -> dict[str, Any]:
    """Return one manifest with its entries, for JSON: coordinates in 1e-7 degrees, heights in mm, unix seconds."""
    manifest, issue = opened.manifest, opened.manifest.issue
    return {
        "manifest": str(opened.manifest_id),
        "signing_code": opened.signing_code,
        "signers": signers_json(opened.trust_root, opened.signers),
        "mission": manifest.mission.value(),
        "issue": {
            key: value.hex() if isinstance(value, bytes) else value for key, value in dict(issue.value()).items()
        },
        "hosts": list(manifest.hosts),
        "coverage": hexed(manifest.coverage.value()),
        "quality": [[f.name, f.value, f.least, f.queries, f.recipe.hex()] for f in manifest.quality],
        "unproven": [[f.name, f.least, f.recipe.hex()] for f in manifest.unproven],
        "releases": [str(release) for release in manifest.releases],
        "merkle_root": manifest.merkle_root.hex(),
        "table": {"id": str(manifest.table), "size": manifest.table_size},
        "identity": manifest.identity.hex(),
        "entries": [
            {
                "name": entry.name,
                "kind": entry.kind,
                "id": str(entry.id),
                "size": entry.size,
                "key": str(entry.key) if entry.key else "",
                "meta": hexed(entry.meta),
            }
            for entry in opened.table.entries
        ],
    }
