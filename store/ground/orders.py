"""Orders and results of a store (FORMAT.md 5.3, 6.9): places them, reads them, and judges a result.

`orders/<build key>` and `results/<build key>` have the id of an object, as a pin has. A name there is only a pointer:
what it leads to must be of that key. An order is signed by nobody. A result counts only as the role `builder` of a
trust root signs it (decision 0024), and only for the order that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from store.disk import log
from store.disk.layout import ORDERS, RESULTS
from store.disk.media import FOLDER_LIMIT, Media
from store.disk.objects import inserting
from store.disk.quarantine import present
from store.errors import Corrupt, NotFound, Refused
from store.format.cose import Envelope
from store.format.host import fit
from store.format.ids import BuildKey, ObjectId, is_hex
from store.format.manifest import ENVELOPE_LIMIT
from store.format.order import ORDER_LIMIT, Order
from store.format.result import AAD_LABEL, CONTENT_TYPE, PAYLOAD_LIMIT, Result
from store.ground.needs import UNKNOWN, Need, pinned_id
from store.ground.repository import Repository, SmallFile, names_at
from store.takeoff.evidence import StoreEvidence
from store.trust.keys import Signer, sign
from store.trust.root import TrustRoot, check_signatures, check_signer


def keys_in(media: Media, folder: str) -> list[BuildKey]:
    """Return the build keys that have an order or a result, ascending. Other names are passed over: an audit reports
    them."""
    return [BuildKey.parse(name) for name in media.names_if_there(folder) if is_hex(name)]


def holder_of(folder: str, key: BuildKey) -> str:
    """Return the path of the pointer of a key."""
    return f"{folder}/{key}"


def read_order(evidence: StoreEvidence, key: BuildKey) -> tuple[ObjectId, Order]:
    """Return the order of a key, and its object. Raise NotFound (kind `no-order`) where the store has none, Corrupt for
    one that does not hold or is of another key."""
    holder = holder_of(ORDERS, key)
    try:
        id_ = pinned_id(evidence.media, holder)
    except NotFound as error:
        remedy = "order it with `flightbag engines order`, or sync the store that has the order"
        text = f"the store has no order of the key {key}"
        raise NotFound(text, remedy=remedy, kind="no-order", key=str(key)) from error
    order = Order.parse(evidence.object(id_, ORDER_LIMIT))
    if order.key != key:
        text = f"{holder} leads to the order of the key {order.key}"
        raise Corrupt(text, remedy="remove the file, and order again", kind="bad-order", key=str(key))
    return id_, order


def read_result(evidence: StoreEvidence, key: BuildKey, root: TrustRoot) -> Result:
    """Return the result of a key, whose signatures hold under a trust root.

    Raise NotFound (kind `no-result`) where the store has none, Corrupt (`bad-result`, `other-key`) for one that does
    not hold or is of another key, and Untrusted for its signatures.
    """
    holder = holder_of(RESULTS, key)
    try:
        id_ = pinned_id(evidence.media, holder)
    except NotFound as error:
        remedy = "make it on the device with `flightbag engines fulfil`, and sync the store back"
        text = f"the store has no result of the key {key}"
        raise NotFound(text, remedy=remedy, kind="no-result", key=str(key)) from error
    result = parsed_result(evidence.object(id_, ENVELOPE_LIMIT), root)
    if result.key != key:
        raise Corrupt(f"{holder} leads to the result of the key {result.key}", kind="other-key", key=str(key))
    return result


def accepted_result(evidence: StoreEvidence, key: BuildKey, root: TrustRoot) -> Result:
    """Return the result of a key that this store has taken (`is_taken`), and whose signatures hold. Raise as
    `read_result` does, and Corrupt for a log that does not hold."""
    result = read_result(evidence, key, root)
    if not is_taken(evidence.media, result):
        text = f"the result of the key {key} is not accepted yet"
        raise NotFound(text, remedy="run `flightbag engines accept`", kind="no-result", key=str(key))
    return result


def is_taken(media: Media, result: Result) -> bool:
    """Whether a result is of an order that this store made, and that is open no more. Of one that a copy brought,
    nobody has judged what the device was told to make: an order is signed by nobody."""
    try:
        if pinned_id(media, holder_of(ORDERS, result.key)) == result.order:
            return False
    except NotFound:
        pass
    return result.order in _ordered(media, result.key)


def unsigned_result(evidence: StoreEvidence, key: BuildKey) -> tuple[ObjectId, int, Result]:
    """Return the result of a key, whoever signed it, with its object and size. Raise NotFound, Corrupt."""
    holder = holder_of(RESULTS, key)
    id_ = pinned_id(evidence.media, holder)
    data = evidence.object(id_, ENVELOPE_LIMIT)
    try:
        return id_, len(data), Result.parse(Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT).payload)
    except Corrupt as error:
        raise Corrupt(f"{holder} leads to no result: {error.message}", kind="bad-result") from error


def parsed_result(data: bytes, root: TrustRoot) -> Result:
    """Return the result in these bytes, if the role builder of a trust root has signed it. Raise Corrupt (kind
    `bad-result`) for other bytes, Untrusted for signatures that do not hold."""
    try:
        envelope = Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT)
        check_signatures(envelope, root, AAD_LABEL, "builder", "the result")
        return Result.parse(envelope.payload)
    except Corrupt as error:
        raise Corrupt(f"the result does not hold: {error.message}", kind="bad-result") from error


def judge(result: Result, order: Order, id_: ObjectId) -> None:
    """Raise Refused unless a result, whose signatures hold, is one of this order, whose object is `id_`: made for it,
    on a host that meets its need, and with exactly the figures that it asks for, none too low."""
    if result.order != id_ or result.key != order.key:
        text = f"the result is of the order {result.order}, and the store has the order {id_} for the key {order.key}"
        raise Refused(text, remedy="carry the order to the device, and fulfil it there", kind="other-order")
    if order.engine and result.engine != order.engine[1:]:
        text = "the result is of another engine than the one that the order asks to measure"
        raise Refused(text, remedy="fulfil the order again", kind="other-engine")
    for need in (order.need, result.need):
        if lacking := (fit(result.host, need).lacking or fit(result.host, need).unjudged):
            text = f"the result was made on {result.host}, which lacks {' and '.join(lacking)}"
            raise Refused(text, remedy="fulfil the order on a device that it is for", kind="wrong-host")
    if lost := fit(result.need, order.need).lacking:
        text = f"the engine of the result needs {result.need}, and not {' and '.join(lost)}, which was ordered"
        raise Refused(text, remedy="fulfil the order again", kind="bad-card")
    asked = [(one.figure, one.recipe, one.least, one.probe) for one in order.probes]
    if asked != [(one.name, one.recipe, one.least, one.probe) for one in result.figures]:
        text = "the result has other figures, or measured on other probes, than the order asks for"
        raise Refused(text, remedy="fulfil the order again", kind="other-figures")
    for one in result.figures:
        if one.value < one.least:
            text = f"{one.name} is {one.value} ppm by the result, and at least {one.least} is required"
            raise Refused(text, remedy="look at the engine's options and precision", kind="too-low")


def order_need(evidence: StoreEvidence, key: BuildKey) -> Need:
    """Return what an order needs: its object, and all that it names."""
    id_, order = read_order(evidence, key)
    return Need(holder_of(ORDERS, key), {id_: len(order.render()), **order.objects}.items())


def result_need(evidence: StoreEvidence, key: BuildKey) -> Need:
    """Return what a result needs: its object, the card, the engine, the probes. No signature is judged: keeping too
    much does no harm."""
    id_, size, result = unsigned_result(evidence, key)
    probes = dict.fromkeys((figure.probe for figure in result.figures), UNKNOWN)
    return Need(holder_of(RESULTS, key), {id_: size, **probes, **dict(result.objects)}.items())


def place(repository: Repository, folder: str, key: BuildKey, id_: ObjectId) -> None:
    """Make a key's pointer in a folder lead to an object, durably. The object, and all that it names, are durable
    before the call."""
    repository.place([_pointer(holder_of(folder, key), id_)])


def _pointer(holder: str, id_: ObjectId) -> SmallFile:
    return SmallFile(holder, f"{id_}\n".encode())


def to_bring(source: Repository, target: Repository | None) -> tuple[tuple[SmallFile, ...], dict[ObjectId, int]]:
    """Return the orders and results that a sync brings to the target, and the objects, with sizes, that these need.

    A result goes where its order is open and no result was taken, and an order nowhere where a result of it was taken.
    One that is not whole stays, and so does one for which the target has no room (`names_at`).
    """
    names = {folder: names_at(target, folder) for folder in (ORDERS, RESULTS)}
    pointers: dict[str, ObjectId] = {}
    objects: dict[ObjectId, int] = {}
    for key in keys_in(source.media, ORDERS):
        holder = holder_of(ORDERS, key)
        with suppress(NotFound, Corrupt):  # an audit reports it
            id_, order = read_order(source.evidence, key)
            present = _pointer_at(target, holder)
            if present == id_ or _is_own(target, key, present) or _taken(target, key) == id_:
                continue
            if not _has_room(names[ORDERS], key):
                continue
            objects.update({id_: len(order.render()), **order.objects})
            pointers[holder] = id_
    for key in keys_in(source.media, RESULTS):
        holder, of = holder_of(RESULTS, key), holder_of(ORDERS, key)
        with suppress(NotFound, Corrupt):
            id_, size, result = unsigned_result(source.evidence, key)
            if pointers.get(of, _pointer_at(target, of)) != result.order or _pointer_at(target, holder) == id_:
                continue
            if _taken(target, key) is not None:  # nobody has judged this one, and that one counts
                continue
            if not _has_room(names[RESULTS], key):
                continue
            objects.update({id_: size, **dict(result.objects)})
            pointers[holder] = id_
    return tuple(_pointer(holder, id_) for holder, id_ in pointers.items()), objects


def _has_room(names: set[str], key: BuildKey) -> bool:
    """Whether a folder with these names takes that of a key, which is then one of them."""
    if str(key) not in names and len(names) >= FOLDER_LIMIT:
        return False
    names.add(str(key))
    return True


def _pointer_at(target: Repository | None, holder: str) -> ObjectId | None:
    """Return the object that a pointer leads to at the target; None without a valid one."""
    try:
        return None if target is None else pinned_id(target.media, holder)
    except (NotFound, Corrupt):
        return None


def _is_own(target: Repository | None, key: BuildKey, order: ObjectId | None) -> bool:
    """Whether this open order is one that the target made itself: no copy replaces it."""
    return target is not None and order is not None and ordered_here(target.media, key) == order


def _taken(target: Repository | None, key: BuildKey) -> ObjectId | None:
    """Return the order of the result that the target has taken for a key; None where it has taken none."""
    try:
        result = None if target is None else unsigned_result(target.evidence, key)[2]
        return result.order if target is not None and result and is_taken(target.media, result) else None
    except (NotFound, Corrupt):
        return None


def open_order(repository: Repository, order: Order, id_: ObjectId, *, now: int) -> bool:
    """Make an order, whose object and all that it names are in the store, one of this store, durably: the log line,
    then the pointer. Return whether it was not one before. `now` is unix seconds."""
    with suppress(NotFound, Corrupt):
        if read_order(repository.evidence, order.key)[0] == id_ == ordered_here(repository.media, order.key):
            return False
    facts = {"key": str(order.key), "object": str(id_)}
    repository.append_log(log.Event(now, "ordered", facts))
    place(repository, ORDERS, order.key, id_)
    return True


def ordered_here(media: Media, key: BuildKey) -> ObjectId | None:
    """Return the order that this store made last for a key, by its log, which nothing carries to another store but a
    plain copy; None where it made none."""
    orders = _ordered(media, key)
    return orders[-1] if orders else None


def _ordered(media: Media, key: BuildKey) -> list[ObjectId]:
    """Return every order that this store made for a key, by its log, the oldest first."""
    of_key = (one.facts for one in log.events(media) if one.event == "ordered" and one.facts.get("key") == str(key))
    texts = (str(facts.get("object", "")) for facts in of_key)
    return [ObjectId.parse(text) for text in texts if is_hex(text)]


def close(repository: Repository, key: BuildKey) -> None:
    """Remove the order of a key, if the store has one."""
    if present(repository.media, holder := holder_of(ORDERS, key)):
        repository.disk.remove(repository.media.absolute(holder))
        repository.disk.sync_directory(repository.media.absolute(ORDERS))


def signed_result(result: Result, signers: Sequence[Signer], root: TrustRoot) -> bytes:
    """Return the bytes of a result, signed by keys of the role builder. Raise Untrusted for another key, and for fewer
    than the role needs."""
    envelope = Envelope(CONTENT_TYPE, result.render())
    for signer in signers:
        check_signer(root, signer.public, "builder")
        envelope = sign(envelope, signer, root.aad(AAD_LABEL))
    check_signatures(envelope, root, AAD_LABEL, "builder", "the result")
    return envelope.render()


def add_result(repository: Repository, key: BuildKey, data: bytes) -> ObjectId:
    """Insert a signed result and make the key's pointer lead to it, durably. The engine and the card are in the store
    before."""
    with inserting(repository.media, repository.disk, None) as batch:
        added = batch.add_bytes(data)
        batch.commit()
    place(repository, RESULTS, key, added.id)
    return added.id
