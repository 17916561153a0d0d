"""The bytes in which the reply of a unit travels: a head, and the parts of the result. Pure.

A reply comes from another machine. Nothing of it is unpickled: its head is canonical CBOR of at most `HEAD_LIMIT`
bytes, its parts have exactly the sizes and the BLAKE3 hashes that the head names, and errors are those of
`builders.crossing`.

    reply = length of the head (4 bytes, big-endian) | head | part | part …
    head  = {"result": value, "parts": [[size, id] …], "done": [[activity, count] …], "ms": milliseconds}
          | {"failure": JSON of `error_to_json`} | {"unexpected": traceback}

Law: opened(sealed(reply)) == reply; a reply with a changed byte is Corrupt, or its value is another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builders.bounded import values_in
from builders.crossing import error_from_json, error_to_json
from store.errors import Corrupt, FlightbagError
from store.format.cbor import Value, decode, encode
from store.format.ids import DIGEST_SIZE, ObjectId

# A cell has at most 65,536 tiles, and each may have a fault with some words.
HEAD_LIMIT = 16 * 2**20
# A traceback, and what a failure says, are for people.
TEXT_LIMIT = 64 * 2**10
_LENGTH = 4
_MAX_PARTS = 16
_MAX_ACTIVITIES = 100
_MAX_VALUES = 100_000
_MAX_COUNT = 2**53


@dataclass(frozen=True, slots=True)
class Reply:
    """A result: a value, and its parts. `done` is the progress of the unit: units of work by activity. `ms` is how long
    the unit ran, in milliseconds."""

    value: Value
    parts: tuple[bytes, ...]
    done: tuple[tuple[str, int], ...]
    ms: int


def sealed(reply: Reply) -> bytes:
    """Return a reply as bytes."""
    head: dict[str, Value] = {
        "result": reply.value,
        "parts": [[len(part), bytes(ObjectId.of(part))] for part in reply.parts],
        "done": [[activity[:200], count] for activity, count in reply.done[:_MAX_ACTIVITIES]],
        "ms": reply.ms,
    }
    return b"".join((_framed(head), *reply.parts))


def sealed_failure(error: FlightbagError) -> bytes:
    """Return an error of a known class as the bytes of a reply."""
    text = json.dumps(error_to_json(error))
    if len(text) > TEXT_LIMIT:
        text = json.dumps(error_to_json(type(error)(error.message[:1000], remedy=error.remedy[:1000])))
    return _framed({"failure": text})


def sealed_unexpected(trace: str) -> bytes:
    """Return an error of the program, by its traceback, as the bytes of a reply."""
    return _framed({"unexpected": trace[-TEXT_LIMIT // 4 :]})


def _framed(head: Mapping[str, Value]) -> bytes:
    data = encode(head)
    return len(data).to_bytes(_LENGTH, "big") + data


def opened(data: bytes, sender: str) -> Reply:
    """Return the reply in these bytes. Raise the error that it holds; and Corrupt (`bad-reply`), naming the sender, for
    bytes that no unit sends."""
    try:
        length = int.from_bytes(data[:_LENGTH], "big")
        if length > min(HEAD_LIMIT, len(data) - _LENGTH):
            raise ValueError(f"a head of {length} bytes")
        head = decode(data[_LENGTH : _LENGTH + length], limit=HEAD_LIMIT, what="the head")
        error = _error(head, sender)
        if error is None:
            return _reply(head, data[_LENGTH + length :])
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, Corrupt) as wrong:
        raise bad_reply(sender, wrong) from wrong
    raise error


def bad_reply(sender: str, wrong: Exception) -> Corrupt:
    """Return the error for what a node sent and no unit does."""
    words = str(wrong).replace("\n", " ")[:300]
    return Corrupt(
        f"{sender} sent what no unit of work sends: {words}",
        remedy="take the node out of the cluster, or install the same version of flightbag there, then build again",
        kind="bad-reply",
    )


def _error(head: Any, sender: str) -> FlightbagError | None:
    if head.keys() == {"failure"}:
        text = head["failure"]
        if len(text) > TEXT_LIMIT or values_in(text.encode()) > _MAX_VALUES:
            raise ValueError("a failure that is too large")
        error = error_from_json(json.loads(text))
        return error.restated(f"{error.message} (on {sender})")
    if head.keys() == {"unexpected"}:
        trace = str(head["unexpected"])[-TEXT_LIMIT:]
        printable = "".join(letter for letter in trace if letter.isprintable() or letter == "\n")
        raise ValueError(f"an error of the program: {printable.rstrip().rpartition(chr(10))[2]}")
    return None


def _reply(head: Any, rest: bytes) -> Reply:
    if head.keys() != {"result", "parts", "done", "ms"} or len(head["parts"]) > _MAX_PARTS:
        raise ValueError("a head with other fields")
    parts, at = [], 0
    for size, id_ in head["parts"]:
        if type(size) is not int or type(id_) is not bytes or len(id_) != DIGEST_SIZE or not size >= 0:
            raise ValueError("a part without size and hash")
        part = rest[at : at + size]
        if len(part) != size or ObjectId.of(part) != id_:
            raise ValueError("a part that is not the one that its head names")
        parts.append(part)
        at += size
    if at != len(rest):
        raise ValueError(f"{len(rest) - at} bytes more than its head names")
    return Reply(head["result"], tuple(parts), _done(head["done"]), _count(head["ms"]))


def _done(items: Sequence[Any]) -> tuple[tuple[str, int], ...]:
    if len(items) > _MAX_ACTIVITIES:
        raise ValueError("too many activities")
    return tuple((str(activity)[:200], _count(count)) for activity, count in items)


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number <= _MAX_COUNT:
        raise ValueError("a number that is no count")
    return number
