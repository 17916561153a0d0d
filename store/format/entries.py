"""Entries (FORMAT.md 4.3): the artifacts of a mission, their names, kinds and meta, and the canonical table of them.

The kind of an entry follows from the first segment of its name. Kinds and their meta are a closed list (KINDS,
decisions 0002 and 0011): a verifier that does not know a kind refuses the mission and does not skip the entry. This
module reads no objects: whether an object has the bytes that its entry names is decided elsewhere.

The takeoff check waits for a table of up to 100,000 entries, so each is encoded once: to be compared with the bytes
that were read, and to be a leaf of the Merkle tree.

Law: `EntryTable.parse(t.render()) == t`, and only canonical bytes of a valid table parse.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any

from store.errors import Corrupt, Invalid
from store.format import merkle
from store.format.cbor import (
    INT_MAX,
    Fields,
    Value,
    check_canonical,
    encode_array,
    encode_bytes,
    encode_checked,
    encode_integer,
    encode_text,
    load,
    load_items,
)
from store.format.host import NEED, objection
from store.format.ids import DIGEST_SIZE, BuildKey, ObjectId
from store.values import dataclass

MAX_ENTRIES = 100_000
TABLE_LIMIT = 16 * 2**20
MAX_SEGMENTS = 4

SEGMENT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
TOKEN = re.compile(r"[a-z0-9](?:[a-z0-9._+-]{0,62}[a-z0-9])?")
DTYPES = ("float16", "float32")
# The arithmetic of rows that are not of ONNX Runtime's own kernels in float32, which no meta names (FORMAT 6.1).
NUMERIC = re.compile(r"any|onnxruntime-(?!cpu-)[a-z0-9]{1,32}-[0-9a-z.]{1,32}-[a-z0-9_]{1,32}-fp32")


def _engine(meta: Fields) -> None:
    meta.text("backbone", SEGMENT)
    meta.text("backend", TOKEN)
    _host(meta)
    meta.binary("model", 32)
    meta.choice("part", ("model", "weights"))
    meta.text("precision", TOKEN)


def _descriptors(meta: Fields) -> None:
    meta.integer("dim", 1, 2**20)
    meta.choice("dtype", DTYPES)
    if "numeric" in meta:
        meta.text("numeric", NUMERIC)
    meta.integer("rows", 1, 2**20)


def _index(meta: Fields) -> None:
    meta.integer("dim", 1, 2**20)
    _host(meta)
    meta.text("method", TOKEN)
    meta.choice("part", ("index", "quantiser"))
    meta.integer("rows", 1, 2**40)


def _coverage(meta: Fields) -> None:
    meta.integer("missing", 1, 2**40)


def _card(meta: Fields) -> None:
    engine: str = meta.text("engine", re.compile(r"engines/.{1,255}"))
    if not is_name(engine):
        raise Corrupt(f"{engine!r} is not an entry name", kind="bad-field", field="meta.engine")


def _file(meta: Fields) -> None:
    if "origin" in meta:
        meta.choice("origin", ("outside",))


def _host(meta: Fields) -> None:
    if wrong := objection(meta.text("host", NEED), need=True):
        raise Corrupt(wrong, kind="bad-field", field="meta.host")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of entry: the first segment of its names, the check of its meta, and whether it has a build key.

    `check_meta` takes every field of the meta, or raises Corrupt.
    """

    folder: str
    check_meta: Callable[[Fields], None]
    keyed: bool


KINDS: Mapping[str, Kind] = {
    "engine": Kind("engines", _engine, keyed=True),
    "card": Kind("cards", _card, keyed=True),
    "descriptors": Kind("descriptors", _descriptors, keyed=True),
    "probe": Kind("probes", _descriptors, keyed=True),
    "index": Kind("indexes", _index, keyed=True),
    "coverage": Kind("coverage", _coverage, keyed=False),
    "file": Kind("files", _file, keyed=False),
}
_KIND_OF = {kind.folder: name for name, kind in KINDS.items()}


NAME = re.compile(rf"({'|'.join(_KIND_OF)})(?:/{SEGMENT.pattern}){{1,{MAX_SEGMENTS - 1}}}")


def is_name(name: str) -> bool:
    """Whether `name` is an entry name: the folder of a kind, then 1 to 3 segments."""
    return NAME.fullmatch(name) is not None


def kind_of(name: str) -> str:
    """Return the kind of the entry of this name. Raises Invalid where it is not an entry name."""
    match = NAME.fullmatch(name)
    if match is None:
        raise Invalid(
            f"{name[:120]!r} is not an entry name",
            remedy=f"give 2 to {MAX_SEGMENTS} segments of a-z 0-9 . _ - joined by '/'; the first is one of "
            + ", ".join(_KIND_OF),
        )
    return _KIND_OF[match[1]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact of a mission: `size` is in bytes, `key` is None where the kind has no build key.

    Raises Invalid for a bad name or size, or a build key that the kind must not lack or have; Corrupt for bad meta.
    """

    name: str
    id: ObjectId
    size: int
    key: BuildKey | None
    meta: Mapping[str, Any]

    def __post_init__(self) -> None:
        kind = KINDS[kind_of(self.name)]
        if type(self.size) is not int or not 0 <= self.size <= INT_MAX:
            raise Invalid(f"the size of {self.name} is {self.size!r}, must be an integer from 0 to {INT_MAX}")
        if kind.keyed != (self.key is not None):
            raise Invalid(f"{self.name} must have {'a' if kind.keyed else 'no'} build key")
        meta = Fields(dict(self.meta), f"meta of {self.name}")
        kind.check_meta(meta)
        meta.end()

    @property
    def kind(self) -> str:
        """The kind of the entry, by its name."""
        return _KIND_OF[self.name.partition("/")[0]]

    def value(self) -> Value:
        """Return [name, kind, object id, size, build key or empty, meta], as in the table and in the Merkle leaf."""
        return [self.name, self.kind, bytes(self.id), self.size, bytes(self.key or b""), dict(self.meta)]

    @classmethod
    def of_value(cls, value: object) -> Entry:
        """Return the entry of a decoded value. Raises Corrupt (kind bad-entry or bad-field) for any other value."""
        if type(value) is not list or len(value) != 6:
            raise Corrupt("an entry of the table is not an array of six items", kind="bad-entry")
        name, kind, id_, size, key, meta = value
        if [type(part) for part in value] != _TYPES:
            raise Corrupt("an entry of the table has a field of a wrong type", kind="bad-entry", entry=str(name)[:120])
        try:
            entry = cls(name, ObjectId(id_), size, BuildKey(key) if key else None, meta)
        except Invalid as error:
            raise Corrupt(str(error), kind="bad-entry", entry=name[:120]) from error
        if kind != entry.kind:
            raise Corrupt(f"the kind of {name} is {kind[:40]!r}, expected {entry.kind!r}", kind="bad-entry", entry=name)
        return entry


_TYPES = [str, str, bytes, int, bytes, dict]
_DIGEST_HEAD = encode_bytes(bytes(DIGEST_SIZE))[:-DIGEST_SIZE]
_SIX_ITEMS = encode_array([b""] * 6)
_set_name, _set_id, _set_size, _set_key, _set_meta = (
    getattr(Entry, name).__set__ for name in ("name", "id", "size", "key", "meta")
)


class _Reader:
    """Reads the entries of one table as `Entry.of_value` does, in a third of the time: a folder, a kind and a meta that
    many entries have is checked and encoded once."""

    def __init__(self) -> None:
        # (folder, kind, whether it has no build key, the items of the meta) -> the meta, and what precedes the id, what
        # precedes the build key, and what follows it in the encoding of an entry.
        self._checked: dict[tuple[Any, ...], tuple[dict[str, Any], bytes, bytes, bytes]] = {}

    def read(self, value: Any) -> tuple[Entry, bytes]:
        """Return the entry of a decoded value, and its canonical encoding. Raises as `Entry.of_value` does."""
        if type(value) is not list or [*map(type, value)] != _TYPES:
            Entry.of_value(value)
        name, kind, id_, size, key, meta = value
        folder, _, last = name.rpartition("/")
        unkeyed = key == b""
        common = (folder, kind, unkeyed, *meta.items())
        try:
            checked = self._checked.get(common)
        except TypeError:  # an array or a map is no key, and no field of any meta
            checked = None
        bounded = len(id_) == DIGEST_SIZE and (unkeyed or len(key) == DIGEST_SIZE) and 0 <= size <= INT_MAX
        if checked is None or not bounded or not SEGMENT.fullmatch(last):
            Entry.of_value(value)
            checked = (
                meta,
                encode_text(kind) + _DIGEST_HEAD,
                encode_bytes(b"") if unkeyed else _DIGEST_HEAD,
                encode_checked(meta),
            )
            self._checked[common] = checked
        meta, before_id, before_key, end = checked
        entry: Entry = object.__new__(Entry)
        _set_name(entry, name)
        _set_id(entry, bytes.__new__(ObjectId, id_))
        _set_size(entry, size)
        _set_key(entry, None if unkeyed else bytes.__new__(BuildKey, key))
        _set_meta(entry, meta)
        parts = (_SIX_ITEMS, encode_text(name), before_id, id_, encode_integer(size), before_key, key, end)
        return entry, b"".join(parts)


@dataclass(frozen=True)
class EntryTable:
    """The entries of a mission: 1 to MAX_ENTRIES, strictly ascending by name; no name is a folder of another.

    Raises Invalid for another number of entries, Corrupt (kind bad-order or bad-entry) for names that break the rule.
    """

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.entries) <= MAX_ENTRIES:
            raise Invalid(f"the entry table has {len(self.entries)} entries, must have 1 to {MAX_ENTRIES}")
        names = [entry.name for entry in self.entries]
        for before, name in itertools.pairwise(names):
            if before >= name:
                raise Corrupt(
                    f"the entry table has {name} after {before}; names must ascend and be unique",
                    kind="bad-order",
                    entry=name,
                )
        name_set = set(names)
        checked = ""
        for name in names:
            folder = name[: name.rindex("/")]
            if folder == checked:
                continue
            checked = folder
            while "/" in folder:
                if folder in name_set:
                    raise Corrupt(f"{folder} is both an entry and a folder of {name}", kind="bad-entry", entry=name)
                folder = folder[: folder.rindex("/")]

    @cached_property
    def leaves(self) -> tuple[bytes, ...]:
        """The data of the Merkle leaves: the CBOR of each whole entry, in the order of the table."""
        return tuple(encode_checked(entry.value()) for entry in self.entries)

    @cached_property
    def merkle_root(self) -> bytes:
        """The Merkle root over the entries, 32 bytes, always computed from them."""
        return merkle.root(self.leaves)

    def find(self, name: str) -> Entry | None:
        """Return the entry of a name; None where the table has none."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in self.entries}

    def of_kind(self, kind: str) -> tuple[Entry, ...]:
        """Return the entries of a kind: those of one folder, which stand together."""
        folder, name = KINDS[kind].folder, attrgetter("name")
        # "0" is the character after "/".
        first, end = (bisect_left(self.entries, folder + last, key=name) for last in "/0")
        return self.entries[first:end]

    def render(self) -> bytes:
        """Return the canonical bytes. Raises Invalid for more than TABLE_LIMIT bytes."""
        data = encode_checked([entry.value() for entry in self.entries])
        if len(data) > TABLE_LIMIT:
            raise Invalid(f"the entry table would have {len(data)} bytes, at most {TABLE_LIMIT} are allowed")
        return data

    @classmethod
    def parse(cls, data: bytes) -> EntryTable:
        """Return the table of canonical bytes; raises Corrupt for any other bytes.

        Call it only after the signatures hold.
        """
        what = "the entry table"
        try:
            entries, leaves = [], []
            reader = _Reader()
            for item in load_items(data, limit=TABLE_LIMIT, most=MAX_ENTRIES, what=what):
                entry, leaf = reader.read(item)
                entries.append(entry)
                leaves.append(leaf)
            table = cls(tuple(entries))
            check_canonical(encode_array(leaves), data, what)
        except (Corrupt, Invalid):
            # Which rule is broken is said in one order: that of the whole, of each entry, of them together.
            value = load(data, limit=TABLE_LIMIT, what=what)
            if type(value) is not list or not 1 <= len(value) <= MAX_ENTRIES:
                text = f"{what} is not an array of 1 to {MAX_ENTRIES} entries"
                raise Corrupt(text, kind="bad-table") from None
            for item in value:
                Entry.of_value(item)
            raise
        vars(table)["leaves"] = tuple(leaves)
        return table


def sorted_table(entries: Sequence[Entry]) -> EntryTable:
    """Return the table of these entries in canonical order."""
    return EntryTable(tuple(sorted(entries, key=lambda entry: entry.name)))
