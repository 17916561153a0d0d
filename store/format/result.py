"""A result (FORMAT.md 5.3): what a device made of an order, and what it measured. A value, and canonical bytes.

A result names the card, the engine and the probes by their objects: it speaks of these bytes and of no others. This
module knows no signatures; `store.ground.orders` decides whether a result is taken.

Law: `Result.parse(r.render()) == r`, and only canonical bytes of a valid result parse.
"""

from __future__ import annotations

from collections.abc import Sequence

from store.errors import Corrupt
from store.format.cbor import INT_MAX, Fields, ascending, decode, encode
from store.format.host import NEED, objection
from store.format.ids import DIGEST_SIZE, BuildKey, ObjectId, sized_object
from store.format.manifest import FIGURE, MAX_QUERIES, PPM, TIME_MAX
from store.values import dataclass

CONTENT_TYPE = "application/vnd.flightbag.result+cbor"
AAD_LABEL = "flightbag/result/1"
PAYLOAD_LIMIT = 64 * 2**10
VERSION = 1
MAX_FIGURES = 64


@dataclass(frozen=True, slots=True, order=True)
class ResultFigure:
    """A figure that was measured on the device: as in a manifest, and the object of the probe that it was measured
    on."""

    name: str
    value: int
    least: int
    queries: int
    recipe: bytes
    probe: ObjectId


@dataclass(frozen=True, slots=True)
class Result:
    """`order` is the id of the order's object, `key` the build key; `host` is the class of the device, `need` what the
    engine needs. `card` and `engine` (model[, weights]) are (object, size). `issued_at` is unix seconds, by the clock
    of the device."""

    order: ObjectId
    key: BuildKey
    host: str
    need: str
    card: tuple[ObjectId, int]
    engine: tuple[tuple[ObjectId, int], ...]
    figures: tuple[ResultFigure, ...]
    issued_at: int

    @property
    def objects(self) -> tuple[tuple[ObjectId, int], ...]:
        """The card, the model, and the weights where they are apart: the build record of the key."""
        return (self.card, *self.engine)

    def render(self) -> bytes:
        """Return the canonical payload. Raises Corrupt where the value breaks a rule of the format."""
        data = encode(
            {
                "version": VERSION,
                "order": bytes(self.order),
                "key": bytes(self.key),
                "host": self.host,
                "need": self.need,
                "card": [bytes(self.card[0]), self.card[1]],
                "engine": [[bytes(id_), size] for id_, size in self.engine],
                "figures": [
                    [one.name, one.value, one.least, one.queries, one.recipe, bytes(one.probe)] for one in self.figures
                ],
                "issued_at": self.issued_at,
            }
        )
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> Result:
        """Return the result of a canonical payload; raises Corrupt for any other bytes."""
        fields = Fields(decode(data, limit=PAYLOAD_LIMIT, what="the result"), "result")
        fields.integer("version", VERSION, VERSION)
        result = cls(
            order=ObjectId(fields.binary("order", DIGEST_SIZE)),
            key=BuildKey(fields.binary("key", DIGEST_SIZE)),
            host=fields.text("host", NEED),
            need=fields.text("need", NEED),
            card=sized_object(fields.array("card", 2, 2), "result.card", INT_MAX),
            engine=tuple(sized_object(item, "result.engine", INT_MAX) for item in fields.array("engine", 1, 2)),
            figures=tuple(map(_figure, fields.array("figures", 0, MAX_FIGURES))),
            issued_at=fields.integer("issued_at", 0, TIME_MAX),
        )
        fields.end()
        ascending([(one.name, one.recipe) for one in result.figures], "result.figures")
        for field, wrong in (("host", objection(result.host)), ("need", objection(result.need, need=True))):
            if wrong:
                raise Corrupt(f"result.{field}: {wrong}", kind="bad-field", field=f"result.{field}")
        return result


def _figure(item: object) -> ResultFigure:
    match item:
        case [str(name), int(value), int(least), int(queries), bytes(recipe), bytes(probe)] if (
            FIGURE.fullmatch(name) and len(recipe) == len(probe) == DIGEST_SIZE
        ) and _within(value, least, queries):
            return ResultFigure(name, value, least, queries, recipe, ObjectId(probe))
    text = "result.figures is not of [figure, value, least, queries, recipe, probe]"
    raise Corrupt(text, kind="bad-field", field="result.figures")


def _within(value: int, least: int, queries: int) -> bool:
    numbers: Sequence[int] = (value, least)
    return all(0 <= number <= PPM for number in numbers) and 1 <= queries <= MAX_QUERIES
