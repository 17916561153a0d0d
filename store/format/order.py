"""An order (FORMAT.md 6.9): an engine that is to be made, or proven, on a device. A value, and canonical bytes.

It names the build key by the fields that it is of, and every file that the device needs by its object: the network to
compile, the source to compare with, and the probes. Nobody signs an order: a device takes it as input from outside, and
a ground store accepts the result of exactly the order that it has itself.

Law: `Order.parse(o.render()) == o`, and only canonical bytes of a valid order parse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from store.errors import Corrupt
from store.format.cbor import INT_MAX, Fields, Value, ascending, decode, encode
from store.format.entries import SEGMENT, TOKEN
from store.format.host import objection
from store.format.ids import BUILD_KEY_CONTEXT, DIGEST_SIZE, BuildKey, ObjectId, derive, sized_object
from store.format.manifest import PPM
from store.values import dataclass

SCHEMA = "flightbag/order/1"
ORDER_LIMIT = 64 * 2**10
# A network has at most so many files, and they have at most so many bytes: more than a machine could run.
MAX_FILES, MAX_NETWORK_BYTES = 64, 1 << 36
MAX_PROBES = 64
# Parts of a tolerance.
NANO = 10**9
MODEL = "model.onnx"
_RECIPE_LIMIT, _MAX_STEPS, _MAX_COMPARED = 32 * 2**10, 4, 64
_MAX_TOLERANCE = 1000 * NANO
# A file below the folder of the network: no step up, no root, no name that begins with a dot, plain characters.
_LOCATION = re.compile(r"(?!.*(?:^|/)\.)[A-Za-z0-9._ +@=,()-]{1,128}(?:/[A-Za-z0-9._ +@=,()-]{1,128}){0,7}")
_SCHEMA = re.compile(re.escape(SCHEMA))


@dataclass(frozen=True, slots=True, order=True)
class OrderFile:
    """A file that an order needs: its place in the folder of its network, its object, and its size in bytes."""

    name: str
    id: ObjectId
    size: int


@dataclass(frozen=True, slots=True, order=True)
class OrderProbe:
    """What the engine is measured on for a descriptor set: the probe's object and its size, the digest of the figure's
    recipe, and the least value in parts per million."""

    set: str
    probe: ObjectId
    size: int
    recipe: bytes
    least: int

    @property
    def figure(self) -> str:
        """The name of the figure."""
        return f"fidelity/{self.set}"


@dataclass(frozen=True, slots=True)
class Order:
    """`recipe` is the CBOR of the fields of the build key; `steps` has that of what the engine is made from, by name.

    `network` is compiled: cast or quantised already, in the form that compilers take. `source` is what the engine is
    compared with. Each has the file MODEL, and its external data at the locations that the model names, ascending.
    `compare` are the outputs that are compared, ascending, all where it is empty; `tolerance` is (relative error,
    cosine) in 1e-9; `rows` is a file of inputs for the comparison, where noise finds nothing, and `reference` one of a
    run of the author's framework. `probes` ascend by set, then recipe.
    `engine` is (object, size) of the card, the model and, where they
    are apart, the weights of an engine that exists and is only to be checked and measured; empty for one to be
    compiled.
    """

    recipe: bytes
    steps: tuple[tuple[str, bytes], ...]
    backbone: str
    network: tuple[OrderFile, ...]
    source: tuple[OrderFile, ...]
    compare: tuple[str, ...]
    tolerance: tuple[int, int]
    probes: tuple[OrderProbe, ...]
    rows: OrderFile | None = None
    reference: OrderFile | None = None
    engine: tuple[tuple[ObjectId, int], ...] = ()

    @property
    def key(self) -> BuildKey:
        """The build key of the engine."""
        return BuildKey(derive(BUILD_KEY_CONTEXT, self.recipe))

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the build key."""
        value: dict[str, Any] = decode(self.recipe, limit=_RECIPE_LIMIT, what="the recipe of the order")
        return value

    @property
    def need(self) -> str:
        """What the engine needs of a host (FORMAT 4.5), as far as it is known before it is compiled."""
        return str(self.fields["host"])

    @property
    def backend(self) -> str:
        """The backend that compiles it."""
        return str(self.fields["backend"])

    @property
    def objects(self) -> dict[ObjectId, int]:
        """Every object that the order names, with its size."""
        files = [*self.network, *self.source, *(one for one in (self.rows, self.reference) if one is not None)]
        return {one.id: one.size for one in files} | {one.probe: one.size for one in self.probes} | dict(self.engine)

    def render(self) -> bytes:
        """Return the canonical bytes. Raises Corrupt where the value breaks a rule of the format."""
        value: dict[str, Value] = {
            "schema": SCHEMA,
            "recipe": self.recipe,
            "steps": [[name, step] for name, step in self.steps],
            "backbone": self.backbone,
            "network": [_row(one) for one in self.network],
            "source": [_row(one) for one in self.source],
            "compare": list(self.compare),
            "tolerance": list(self.tolerance),
            "probes": [[one.set, bytes(one.probe), one.size, one.recipe, one.least] for one in self.probes],
        }
        if self.rows is not None:
            value["rows"] = _row(self.rows)
        if self.reference is not None:
            value["reference"] = _row(self.reference)
        if self.engine:
            value["engine"] = [[bytes(id_), size] for id_, size in self.engine]
        data = encode(value)
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> Order:
        """Return the order of canonical bytes; raises Corrupt for any other bytes."""
        fields = Fields(decode(data, limit=ORDER_LIMIT, what="the order"), "order")
        fields.text("schema", _SCHEMA)
        order = cls(
            recipe=fields.blob("recipe", _RECIPE_LIMIT),
            steps=tuple(map(_step, fields.array("steps", 0, _MAX_STEPS))),
            backbone=fields.text("backbone", SEGMENT),
            network=_network(fields, "network"),
            source=_network(fields, "source"),
            compare=tuple(map(_name, fields.array("compare", 0, _MAX_COMPARED))),
            tolerance=_tolerance(fields.array("tolerance", 2, 2)),
            probes=tuple(map(_probe, fields.array("probes", 0, MAX_PROBES))),
            rows=_file(fields.array("rows", 3, 3), "rows") if "rows" in fields else None,
            reference=_file(fields.array("reference", 3, 3), "reference") if "reference" in fields else None,
            engine=tuple(sized_object(item, "order.engine", INT_MAX) for item in fields.array("engine", 2, 3))
            if "engine" in fields
            else (),
        )
        fields.end()
        ascending([name for name, _ in order.steps], "order.steps")
        ascending(order.compare, "order.compare")
        ascending([(one.set, one.recipe) for one in order.probes], "order.probes")
        recipe: object = order.fields
        if type(recipe) is not dict:
            raise _bad("recipe", "is not of the fields of a key")
        host, backend = recipe.get("host"), recipe.get("backend")
        if type(host) is not str or objection(host, need=True) or type(backend) is not str:
            raise _bad("recipe", "names no backend, or no need")
        if not TOKEN.fullmatch(backend):
            raise _bad("recipe", f"names the backend {backend[:80]!r}")
        return order


def _row(file: OrderFile) -> Value:
    return [file.name, bytes(file.id), file.size]


def _bad(field: str, why: str) -> Corrupt:
    return Corrupt(f"order.{field} {why}", kind="bad-field", field=f"order.{field}")


def _network(fields: Fields, name: str) -> tuple[OrderFile, ...]:
    files = tuple(_file(item, name) for item in fields.array(name, 1, MAX_FILES))
    names = [one.name for one in files]
    ascending(names, f"order.{name}")
    if MODEL not in names:
        raise _bad(name, f"has no {MODEL}")
    # No file is a folder of another, in the case of no letter: the folder may lie on a file system that knows no case.
    lower = {one.lower() for one in names}
    if len(lower) < len(names) or any(
        one[:at] in lower for one in lower for at in range(len(one)) if one[at : at + 1] == "/"
    ):
        raise _bad(name, "has two files of one place")
    if sum(one.size for one in files) > MAX_NETWORK_BYTES:
        raise _bad(name, f"has more than {MAX_NETWORK_BYTES} bytes")
    return files


def _file(item: object, field: str) -> OrderFile:
    match item:
        case [str(name), bytes(raw), int(size)] if (
            type(size) is int and len(raw) == DIGEST_SIZE and 0 <= size <= INT_MAX and _LOCATION.fullmatch(name)
        ):
            return OrderFile(name, ObjectId(raw), size)
    raise _bad(field, "is not of [name, object id, size]")


def _step(item: object) -> tuple[str, bytes]:
    match item:
        case [str(name), bytes(recipe)] if SEGMENT.fullmatch(name) and len(recipe) <= _RECIPE_LIMIT:
            if type(decode(recipe, limit=_RECIPE_LIMIT, what=f"the step {name} of the order")) is dict:
                return name, recipe
    raise _bad("steps", "is not of [name, fields]")


def _name(item: object) -> str:
    if type(item) is not str or not 1 <= len(item) <= 255 or not item.isprintable():
        raise _bad("compare", "is not of the names of outputs")
    return item


def _tolerance(items: Sequence[object]) -> tuple[int, int]:
    match items:
        case [int(error), int(cosine)] if 0 <= error <= _MAX_TOLERANCE and 0 <= cosine <= NANO:
            return error, cosine
    raise _bad("tolerance", "is not [relative error, cosine]")


def _probe(item: object) -> OrderProbe:
    match item:
        case [str(set_), bytes(raw), int(size), bytes(recipe), int(least)] if (
            (SEGMENT.fullmatch(set_) and len(raw) == len(recipe) == DIGEST_SIZE)
            and 0 <= size <= INT_MAX
            and 0 <= least <= PPM
        ):
            return OrderProbe(set_, ObjectId(raw), size, recipe, least)
    raise _bad("probes", "is not of [set, probe, size, recipe, least]")
