"""The text that the commands about engines print for people, and their JSON: what was built, ordered, made elsewhere
and taken, the cards, and the fields of build keys. A function takes a value and yields lines; it decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from store.errors import FlightbagError
from store.takeoff import quality
from tools.lines import short, shortened, table
from tools.render import share, size

if TYPE_CHECKING:
    from builders.acceptance import Acceptance
    from builders.fulfilment import Offer
    from builders.report import EngineReport, OrderReport
    from store.format.result import Result


def engines(report: Sequence[EngineReport]) -> Iterator[str]:
    """Yield the outcome for each engine, with its build key, and the errors."""
    rows = []
    for one in report:
        seconds = "" if one.seconds is None else f"{one.seconds:.2f} s"
        rows.append((one.action, one.backbone, size(one.bytes), seconds, short(one.key)))
    yield from table(rows)
    for one in report:
        if one.card is not None and not one.card.proven:
            yield f"{one.backbone}: unproven: nothing has run the engine; its network was checked"
        if one.error is not None:
            yield f"{one.backbone}: {one.error.kind or 'failed'}: {one.error.message}"
            if one.error.remedy:
                yield f"    -> {one.error.remedy}"
            log = str(one.error.fields.get("log", "")).rstrip()
            yield from (f"    | {line}" for line in log.split("\n")[-8:] if line)


def orders(report: Sequence[OrderReport]) -> Iterator[str]:
    """Yield what became of the order of each engine, with its build key, and why it is ordered."""
    yield from table([(one.outcome, one.backbone, short(one.key), one.need) for one in report])
    yield from (f"{one.backbone}: {one.why}" for one in report if one.why)
    if any(one.outcome != "not needed" for one in report):
        yield "carry the orders to the device with `flightbag sync STORE STICK`"
        yield "make the engines there with `flightbag engines fulfil STICK --key KEY`"


def offer_json(offer: Offer) -> dict[str, Any]:
    """Return an order of a store as this machine sees it."""
    order = offer.order
    state = "fulfilled before" if offer.result is not None else "open" if offer.open else "not for this machine"
    return {
        "key": str(offer.key),
        "backbone": order.backbone if order is not None else "",
        "need": order.need if order is not None else "",
        "state": state,
        "why": offer.why,
    }


def offers(rows: Sequence[Mapping[str, Any]], *, signed: bool) -> Iterator[str]:
    """Yield the orders of a store, and why this machine does not meet some."""
    if not rows:
        yield "the store has no orders"
    yield from table([(row["state"], row["backbone"], short(row["key"]), row["need"]) for row in rows])
    for row in rows:
        if row["why"]:
            yield f"{row['backbone'] or short(row['key'])}: {row['why']}"
        if row.get("remedy"):
            yield f"    -> {row['remedy']}"
        figures = row.get("figures", {}).items()
        yield from (f"{row['backbone']}: {quality.figure_title(name)} {share(value)}" for name, value in figures)
    if not signed and any(row["state"] == "open" for row in rows):
        yield "give the key of this device as --key, and the open ones are made"


def acceptance_json(one: Acceptance) -> dict[str, Any]:
    """Return what became of a result."""
    return {
        "key": str(one.key),
        "outcome": one.outcome,
        "backbone": one.backbone,
        "host": one.result.host if one.result is not None else "",
        "figures": lowest_figures(one.result) if one.result is not None else {},
        "error": None if one.error is None else _error_json(one.error),
    }


def lowest_figures(result: Result) -> dict[str, int]:
    """Return the lowest value of each figure of a result, over the probes of all missions that asked for it."""
    values: dict[str, int] = {}
    for one in result.figures:
        values[one.name] = min(values.get(one.name, one.value), one.value)
    return values


def _error_json(error: FlightbagError) -> dict[str, Any]:
    return {"kind": error.kind, "message": error.message, "remedy": error.remedy}


def acceptances(taken: Sequence[Acceptance]) -> Iterator[str]:
    """Yield what became of each result, and why some are refused."""
    if not taken:
        yield "the store that came back has no results"
    for one in taken:
        yield " ".join(filter(None, (one.outcome, one.backbone, short(one.key))))
        if one.result is not None:
            yield f"    made on {one.result.host}"
            lowest = lowest_figures(one.result).items()
            yield from (f"    {quality.figure_title(name)} {share(value)}" for name, value in lowest)
        if one.error is not None:
            yield f"    {one.error.kind}: {one.error.message}"
            if one.error.remedy:
                yield f"    -> {one.error.remedy}"


def card(name: str, value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the card of one engine. An empty name is left out."""
    if name:
        yield name
    yield from table([(f"  {key}", shortened(text)) for key, text in card_rows(value)])
    yield from (f"  {line}" for line in key_fields(value, compared=False))


def card_rows(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the card of an engine says, as rows of a label and a text."""
    check, tolerance = value["check"], value["tolerance"]
    why = value["inspector"].get("needs") if isinstance(value["inspector"], dict) else None
    rows = [("key", value["key"]), ("needs", value["need"] + (f": {why}" if why else ""))]
    rows += [(part, f"{size(count)}  {id_}") for part, (id_, count) in value["parts"].items()]
    rows += [(end, f"{one[0]}  {one[1]} {one[2]}") for end in ("inputs", "outputs") for one in value[end]]
    rows += [
        (
            "checked",
            f"{shapes}: error {case['max_abs_error']:.3g} of {case['reference_max']:.3g}, cosine {case['cosine']:.6f}",
        )
        for case in check["cases"]
        for shapes in [", ".join(f"{key} {list(shape)}" for key, shape in case["shapes"].items())]
    ]
    rows.append(("compared", f"{', '.join(check['outputs'])}, on {check['inputs']}"))
    if check["of"] != "engine":
        rows.append(("unproven", "nothing has run the engine; the network that it was compiled from was checked"))
    if (author := check["author"]) is not None:
        error = f"error {author['max_abs_error']:.3g} of {author['reference_max']:.3g}, cosine {author['cosine']:.6f}"
        rows.append(("reference", f"{author['digest']}: {error}"))
    rows.append(("allowed", f"{tolerance['relative_error']:g} of the greatest value, cosine {tolerance['cosine']:g}"))
    rows.append(("made by", ", ".join(f"{tool} {version}" for tool, version in value["tools"].items())))
    rows.append(("build time", f"{value['seconds']:.2f} s"))
    return rows


def key_fields(value: Mapping[str, Any], *, compared: bool) -> Iterator[str]:
    """Yield each field of a build key, and after a comparison the fields that differ."""
    fields = dict(value["fields"])
    for step, inner in value["steps"].items():
        fields |= {f"{step}.{name}": one for name, one in inner.items()}
    yield from table([(name, shortened(shown(fields[name]))) for name in sorted(fields)])
    yield f"key {short(value['key'])}"
    if not compared:
        return
    for one in value["differs"]:
        yield f"differs: {one['field']}: {shown(one['new'])}, in the published engine {shown(one['old'])}"
    if value["differs"]:
        yield f"the published engine has the key {short(value['against'])}: it would be built again"
    else:
        yield "the published engine has this key: it would be reused"


def shown(value: Any) -> str:
    """Return a field of a build key as people read it, with bytes as hex."""
    if isinstance(value, Mapping):
        if value.keys() == {"hex"}:
            return value["hex"] or "none"
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    return "absent" if value is None else str(value) or '""'
