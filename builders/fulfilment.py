"""On a device: which orders of a store this machine meets, and their fulfilment (FORMAT.md 5.3, 6.9).

An order comes from outside, and nobody has signed it. Every file that it names is hashed while it is copied into a
private folder; sizes are bounded by the order; the network runs in a worker alone (`fulfilling`), as every compilation
does, with no key in its reach. The key is opened when the worker has ended, and signs what the worker measured, for the
objects that were inserted.

Needs numpy, ONNX Runtime and the library of the backend; no index of the store is opened.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from builders.engines.backends import backend
from builders.engines.base import EngineBackend, EngineSpec, PhaseProgress, Reference
from builders.engines.card import CARD_LIMIT, Card
from builders.engines.check import Tolerance
from builders.engines.compiling import CompiledEngine, CompileSettings, compiled_engine, spec_request
from builders.engines.failures import failure
from builders.engines.isolation import compile_in_worker
from builders.engines.model import MAX_ONNX_BYTES
from builders.engines.recipe import engine_recipe, spec_of_fields
from builders.engines.session import WEIGHTS
from builders.recipe import Recipe
from store.disk.layout import ORDERS
from store.disk.media import object_path
from store.disk.objects import inserting, read_chunks
from store.errors import Corrupt, FlightbagError, Refused
from store.format.cbor import decode
from store.format.host import meets
from store.format.ids import BuildKey, ObjectId
from store.format.order import MODEL, NANO, ORDER_LIMIT, Order, OrderFile
from store.format.result import Result, ResultFigure
from store.ground.orders import add_result, keys_in, read_order, read_result, signed_result
from store.ground.repository import Repository
from store.trust.keys import Signer
from store.trust.root import TrustRoot


@dataclass(frozen=True, slots=True)
class Offer:
    """An order of a store, as this machine sees it: why it does not meet it, "" where it does; and the result that the
    store has of it, if one holds."""

    key: BuildKey
    order: Order | None
    id: ObjectId | None
    why: str
    result: Result | None = None

    @property
    def open(self) -> bool:
        """Whether this machine can fulfil the order, and nobody has."""
        return not self.why and self.result is None


def offers(repository: Repository) -> list[Offer]:
    """Return every order of a store, ascending by key. An order that does not hold is one that this machine does not
    meet."""
    root = repository.trust_root().root
    found = []
    for key in keys_in(repository.media, ORDERS):
        try:
            id_, order = read_order(repository.evidence, key)
        except FlightbagError as error:
            found.append(Offer(key, None, None, error.message))
            continue
        found.append(Offer(key, order, id_, _why_not(order), _result(repository, key, id_, root)))
    return found


def _result(repository: Repository, key: BuildKey, order: ObjectId, root: TrustRoot) -> Result | None:
    try:
        result = read_result(repository.evidence, key, root)
        for id_, size in result.objects:
            repository.media.digest(id_, size)
    except FlightbagError:
        return None  # it is made again
    return result if result.order == order else None


def _why_not(order: Order) -> str:
    """Return why this machine does not meet an order, "" if it does."""
    try:
        library = backend(order.backend)
        host = library.describe_host()
        if not meets(host, order.need):
            return f"it needs {order.need}, this machine is {host}"
        _require_same_key(order, library, _spec(order, Path(MODEL)))
        return "" if order.engine else library.makes(order.need)
    except FlightbagError as error:
        return error.message


def _spec(order: Order, model: Path, reference: Reference | None = None) -> EngineSpec:
    return spec_of_fields(order.fields, order.backbone, model, order.compare, reference)


def _require_same_key(order: Order, library: EngineBackend, spec: EngineSpec) -> None:
    """Raise Refused unless this program, on this machine, gives the engine the key that the order has: else it would
    make another engine than the one that was ordered."""
    caster = str(order.fields.get("caster", ""))
    try:
        own = engine_recipe(spec, order.need, library.key_fields(spec, order.need), caster).key
    except (KeyError, TypeError, ValueError):  # the options are those of another backend, or of none
        own = None
    if own != order.key:
        raise Refused(
            f"this version of the program makes another engine than the order of {order.backbone} asks for",
            remedy="use the version of flightbag that ordered it",
            kind="other-key",
        )


def fulfil(
    repository: Repository,
    offer: Offer,
    signers: Callable[[], Sequence[Signer]],
    settings: CompileSettings,
    *,
    now: int,
    progress: PhaseProgress,
) -> Result:
    """Make the engine of an order that this machine meets, or take the one that it names; check and measure it, and put
    engine, card and the signed result into the store. Return the result.

    `signers` is called when no other process runs any more. Raise a failure of `engines.failures`, Refused (`too-low`)
    where a figure is below what the order demands, Untrusted for a key that is not in the role builder, and Corrupt,
    NotFound or Unavailable where an object that the order names is not whole.
    """
    order, id_ = offer.order, offer.id
    if order is None or id_ is None or offer.why:
        remedy = "carry the store to a machine of the host class that the order names"
        raise Refused(f"this machine does not fulfil the order: {offer.why}", remedy=remedy, kind="wrong-host")
    root = repository.trust_root().root
    library = backend(order.backend)
    with (
        repository.locked(),
        inserting(repository.media, repository.disk, None) as batch,
        tempfile.TemporaryDirectory(prefix="flightbag-", ignore_cleanup_errors=True) as name,
    ):
        folder = Path(name)
        made, figures = _made(repository, order, folder, settings, progress)
        measured = _figures(order, figures)
        parts = {part.name: batch.add(read_chunks(str(part.path)), expect=part.id) for part in made.parts}
        card = _card(order, made, {one: [str(added.id), added.size] for one, added in parts.items()})
        data = card.render()
        Card.parse(data)  # what the worker says may be anything
        added = [batch.add_bytes(data), *(parts[one] for one in ("model", "weights") if one in parts)]
        batch.commit()
        result = Result(
            order=id_,
            key=order.key,
            host=library.describe_host(),
            need=made.need,
            card=(added[0].id, added[0].size),
            engine=tuple((one.id, one.size) for one in added[1:]),
            figures=measured,
            issued_at=now,
        )
        add_result(repository, order.key, signed_result(result, signers(), root))
    return result


def _made(
    repository: Repository,
    order: Order,
    folder: Path,
    settings: CompileSettings,
    progress: PhaseProgress,
) -> tuple[CompiledEngine, Sequence[tuple[int, int]]]:
    """Run the worker on private copies of what the order names. Return the engine, and (value, queries) by probe."""
    evidence = repository.evidence
    if read_order(evidence, order.key)[1] != order:
        raise Corrupt(f"the order of the key {order.key} changed", remedy="run it again", kind="bad-order")
    source = _files(repository, order.source, folder / "source")
    network = _files(repository, order.network, folder / "network")
    rows = _file(repository, order.rows, folder / "rows") if order.rows is not None else None
    reference = None
    if order.reference is not None:
        path = _file(repository, order.reference, folder / "reference.npz")
        reference = Reference(path, bytes(order.reference.id))
    probes = [
        str(_copy(repository, one.probe, one.size, folder / f"probe-{number}"))
        for number, one in enumerate(order.probes)
    ]
    spec = _spec(order, source, reference)
    name = f"the model of {order.backbone}"
    request = {
        "task": "fulfil",
        "backend": order.backend,
        "model": name,
        "source": str(source),
        "apart": sum(one.size for one in order.source) > MAX_ONNX_BYTES,
        "network": str(network),
        "host": order.need,
        "folder": str(folder),
        "cache": str(settings.cache.absolute()),
        "rows": str(rows) if rows is not None else "",
        "engine": _present(repository, order, folder),
        "probes": probes,
        "spec": spec_request(spec),
    }
    result, log = compile_in_worker(request, folder, settings.limits, progress, name, "builders.fulfilling")
    error, cosine = order.tolerance
    try:
        made = compiled_engine(result, Tolerance(error / NANO, cosine / NANO), log)
        return made, [_numbers(figure) for _, figure in zip(order.probes, result["figures"], strict=True)]
    except (KeyError, TypeError, ValueError) as wrong:
        text = f"the process that makes the engine of {order.backbone} gave back no result: {wrong!r}"
        raise failure("failed", text, log=log) from wrong


def _numbers(figure: Any) -> tuple[int, int]:
    value, queries = figure
    if type(value) is not int or type(queries) is not int:
        raise TypeError("expected two integers for a figure")
    return value, queries


def _present(repository: Repository, order: Order, folder: Path) -> dict[str, Any] | None:
    """Return the engine that the order names, copied, with what its card says of it; None where it is to be made."""
    if not order.engine:
        return None
    id_, size = order.engine[0]
    if size > CARD_LIMIT:
        raise Corrupt(f"the card of the order has {size} bytes, at most {CARD_LIMIT} are allowed", kind="bad-card")
    card = Card.parse(repository.evidence.object(id_, CARD_LIMIT))
    if not card.describes(order.key, order.engine[1:]):
        raise Corrupt(f"the card {id_} is not that of the engine that the order names", kind="bad-card")
    paths = [
        # An engine names the file of its weights.
        str(_copy(repository, part, count, folder / "present" / name))
        for name, (part, count) in zip(("engine", WEIGHTS), order.engine[1:], strict=False)
    ]
    return {
        "model": paths[0],
        "weights": paths[1] if len(paths) > 1 else "",
        "need": card.need,
        "tools": dict(card.tools),
        "inspector": card.inspector,
    }


def _files(repository: Repository, files: Sequence[OrderFile], folder: Path) -> Path:
    """Copy the files of a network into a folder. Return the ONNX file."""
    for one in files:
        _file(repository, one, folder / one.name)
    return folder / MODEL


def _file(repository: Repository, file: OrderFile, path: Path) -> Path:
    return _copy(repository, file.id, file.size, path)


def _copy(repository: Repository, id_: ObjectId, size: int, path: Path) -> Path:
    """Copy an object, hashed while it is copied. Raise Corrupt for other bytes."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    hasher, count = blake3(), 0
    with path.open("xb") as file:
        for piece in repository.media.chunks(object_path(id_), size):
            count += len(piece)
            hasher.update(piece)
            file.write(piece)
    if count != size or hasher.digest() != id_:
        remedy = "carry the order again"
        raise Corrupt(f"object {id_} is not what the order names", remedy=remedy, kind="bit-flip", object=str(id_))
    return path


def _figures(order: Order, measured: Sequence[tuple[int, int]]) -> tuple[ResultFigure, ...]:
    figures = []
    for one, (value, queries) in zip(order.probes, measured, strict=True):
        if value < one.least:
            raise Refused(
                f"{one.figure} is {value} ppm, and the order of {order.backbone} demands at least {one.least}",
                remedy="look at the precision and the options of the engine; the order stays open",
                kind="too-low",
            )
        figures.append(ResultFigure(one.figure, value, one.least, queries, one.recipe, one.probe))
    return tuple(figures)


def _card(order: Order, made: CompiledEngine, parts: dict[str, list[Any]]) -> Card:
    error, cosine = order.tolerance
    steps = {name: Recipe(decode(step, limit=ORDER_LIMIT, what=f"the step {name}")) for name, step in order.steps}
    return Card(
        recipe=Recipe(order.fields),
        steps=steps,
        parts=parts,
        need=made.need,
        inputs=made.inputs,
        outputs=made.outputs,
        check=made.check,
        tolerance=Tolerance(error / NANO, cosine / NANO),
        tools=made.tools,
        inspector=made.inspector,
        seconds=round(made.seconds, 3),
    )
