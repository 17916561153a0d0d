"""Entries and their table: names, closed kinds and meta, order, one canonical form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt, Invalid
from store.format import entries, merkle
from store.format.cbor import INT_MAX, encode
from store.format.entries import KINDS, MAX_ENTRIES, Entry, EntryTable, is_name, kind_of, sorted_table
from store.format.ids import BuildKey, ObjectId
from tests.support.missions import CONTENTS, METAS, build_key, entry, table_of

FOLDERS = [kind.folder for kind in KINDS.values()]
SEGMENTS = st.from_regex(entries.SEGMENT, fullmatch=True)
NAMES = st.builds(
    lambda folder, rest: "/".join([folder, *rest]), st.sampled_from(FOLDERS), st.lists(SEGMENTS, min_size=1, max_size=3)
)


@st.composite
def tables(draw: st.DrawFn) -> EntryTable:
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    folders = {name.rsplit("/", n)[0] for name in names for n in (1, 2)}
    kept = [name for name in names if name not in folders]
    return sorted_table([entry(name, draw(st.binary(max_size=5))) for name in kept])


@given(tables())
def test_a_rendered_table_parses_to_itself(table: EntryTable) -> None:
    data = table.render()
    assert EntryTable.parse(data) == table
    assert data == encode([one.value() for one in table.entries])
    assert EntryTable.parse(data).merkle_root == merkle.root([encode(one.value()) for one in table.entries])
    for one in table.entries:
        assert table.find(one.name) == one
    assert table.find("files/none-of-these") is None


@given(tables(), st.data())
def test_a_changed_byte_makes_another_table_or_none(table: EntryTable, data: st.DataObject) -> None:
    good = table.render()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        parsed = EntryTable.parse(bad)
    except Corrupt:
        return
    assert parsed != table
    assert parsed.merkle_root != table.merkle_root
    assert parsed.render() == bad


@given(tables())
def test_the_leaves_of_parsed_bytes_are_those_of_the_entries(table: EntryTable) -> None:
    parsed = EntryTable.parse(table.render())
    assert parsed.leaves == EntryTable(parsed.entries).leaves == tuple(encode(one.value()) for one in table.entries)
    assert parsed.merkle_root == EntryTable(parsed.entries).merkle_root


def by_definition(data: bytes) -> tuple[Entry, ...] | str:
    """The entries of a table, each read by itself, or the kind of the refusal."""
    try:
        value = cbor2.loads(data)
        if type(value) is not list or not 1 <= len(value) <= MAX_ENTRIES:
            return "bad-table"
        table = EntryTable(tuple(Entry.of_value(item) for item in value))
    except Corrupt as error:
        return str(error.fields["kind"])
    return table.entries if encode([one.value() for one in table.entries]) == data else "not-canonical"


def as_parsed(data: bytes) -> tuple[Entry, ...] | str:
    try:
        return EntryTable.parse(data).entries
    except Corrupt as error:
        return str(error.fields["kind"])


ODD = st.sampled_from(
    [None, True, False, 1.0, -1, 0, 23, 24, 255, 256, 65535, 65536, 2**32, INT_MAX, INT_MAX + 1, b"", bytes(31),
     bytes(32), "", "a", "a/b", "file", "card", "files/a", "files/a\n", "files/A", "files/n/A", "cards/net/a", [], {},
     [1], {"a": [1]}, {"engine": "engines/a"}, {"engine": b"engines/a"}, {"engine": "files/a"}, {"missing": True}]
)  # fmt: skip


@given(st.data())
def test_an_entry_like_another_one_is_checked_as_strictly(data: st.DataObject) -> None:
    names = ("cards/net/a", "cards/net/b", "coverage/a", "coverage/b", "files/n/a", "files/n/b")
    metas: list[dict[str, Any]] = [{"engine": "engines/a"}] * 2 + [{"missing": 1}] * 2 + [{}] * 2
    values: list[Any] = []
    for name, meta in zip(names, metas, strict=True):
        key = bytes(32) if name.startswith("cards") else b""
        size = data.draw(st.sampled_from([0, 255, 256, 65535, 65536, INT_MAX]))
        values.append([name, kind_of(name), bytes(32), size, key, meta])
    assert by_definition(encode(values)) == EntryTable.parse(encode(values)).entries
    at, field = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    values[at] = list(values[at])
    values[at][field] = data.draw(ODD)
    changed = cbor2.dumps(values, canonical=True)
    assert as_parsed(changed) == by_definition(changed)


def test_what_entries_share_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setitem(entries.KINDS, "file", replace(KINDS["file"], check_meta=lambda _: checked.append("file")))  # type: ignore[misc]
    table = sorted_table([entry(f"files/{folder}/{n}", b"") for folder in "ab" for n in range(20)])
    del checked[:]
    assert EntryTable.parse(table.render()).entries == table.entries
    assert len(checked) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_entries_of_a_kind(kind: str) -> None:
    table = table_of(CONTENTS)
    assert table.of_kind(kind) == tuple(one for one in table.entries if one.kind == kind)
    assert sorted_table([sample(kind)]).of_kind(kind) == (sample(kind),)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        EntryTable.parse(data)


@given(NAMES)
def test_the_kind_follows_from_the_name(name: str) -> None:
    assert is_name(name)
    assert KINDS[kind_of(name)].folder == name.split("/")[0]
    assert entry(name, b"").kind == kind_of(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "files", "files/", "/files/a", "files//a", "files/a/", "files/..", "files/.", "files/../a", "files/.a",
        "files/a.", "files/-a", "files/a-", "files/_a", "files/A", "files/a b", "files/é", "files/a\n", "files/a\x00",
        "files/a\\b", "files/a:b", "Files/a", "other/a", "engine/a", "file/a", "files/a/b/c/d", "files/" + "a" * 65,
        "filesa", "engines|files/a", "files/a+b",
    ],
)  # fmt: skip
def test_no_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(Invalid):
        kind_of(name)
    with pytest.raises(Invalid):
        Entry(name, ObjectId.of(b""), 0, None, {})


def test_the_longest_name() -> None:
    assert is_name("descriptors/" + "/".join(["a" * 64] * 3))


def value(**changes: Any) -> list[Any]:
    """The value of a good engine entry with other fields."""
    good = entry("engines/net/net.onnx", b"x")
    fields = dict(zip(("name", "kind", "id", "size", "key", "meta"), good.value(), strict=True))  # type: ignore[arg-type]
    return list((fields | changes).values())


BAD_ENTRIES: dict[str, Any] = {
    "no_array": {"name": "files/a"},
    "five_fields": value()[:5],
    "seven_fields": [*value(), 0],
    "no_name": value(name="net"),
    "name_in_bytes": value(name=b"engines/net/net.onnx"),
    "kind_of_another_folder": value(kind="file"),
    "unknown_kind": value(kind="model"),
    "folder_as_kind": value(kind="engines"),
    "short_id": value(id=bytes(31)),
    "long_id": value(id=bytes(33)),
    "id_in_hex": value(id="0" * 64),
    "negative_size": value(size=-1),
    "size_in_text": value(size="1"),
    "size_true": value(size=True),
    "no_key": value(key=b""),
    "short_key": value(key=bytes(31)),
    "null_key": value(key=None),
    "meta_array": value(meta=[]),
    "meta_empty": value(meta={}),
    "file_with_a_key": value(name="files/a", kind="file", meta={}),
    "file_with_meta": value(name="files/a", kind="file", key=b"", meta={"a": 1}),
    "file_of_another_origin": value(name="files/a", kind="file", key=b"", meta={"origin": "inside"}),
    "file_with_a_path": value(name="files/a", kind="file", key=b"", meta={"origin": "/etc/shadow"}),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_refuses_the_entry(name: str) -> None:
    with pytest.raises(Corrupt):
        Entry.of_value(BAD_ENTRIES[name])


def test_a_good_value_is_an_entry() -> None:
    assert Entry.of_value(value()) == entry("engines/net/net.onnx", b"x")


@pytest.mark.parametrize("kind", ["descriptors", "probe"])
@pytest.mark.parametrize(
    "numeric", ["any", "onnxruntime-cuda-1.32.0-sm90-fp32", "onnxruntime-openvino-1.24.1-x86_64-fp32"]
)
def test_rows_of_another_arithmetic_say_so(kind: str, numeric: str) -> None:
    one = sample(kind)
    other = replace(one, meta={**one.meta, "numeric": numeric})
    assert Entry.of_value(other.value()) == other
    for wrong in ("", "onnxruntime-cpu-fp32", "onnxruntime-cpu-1.32.0-x86_64-fp32", f"{numeric}x", f"{numeric}\n", 1):
        with pytest.raises((Corrupt, Invalid)):
            replace(one, meta={**one.meta, "numeric": wrong})


def test_a_file_may_come_from_outside() -> None:
    outside = replace(entry("files/a", b""), meta={"origin": "outside"})
    assert Entry.of_value(outside.value()) == outside


@pytest.mark.parametrize("size", [0, 1, INT_MAX])
def test_sizes_that_pass(size: int) -> None:
    assert replace(entry("files/a", b""), size=size).size == size


@pytest.mark.parametrize("size", [-1, INT_MAX + 1, True, 1.0])
def test_sizes_that_do_not(size: Any) -> None:
    with pytest.raises(Invalid):
        replace(entry("files/a", b""), size=size)


def sample(kind: str) -> Entry:
    return entry(f"{KINDS[kind].folder}/a", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_the_meta_of_a_kind_is_a_closed_list(kind: str) -> None:
    good = sample(kind)
    assert set(good.meta) == set(METAS[kind])
    with pytest.raises(Corrupt):
        replace(good, meta={**good.meta, "more": 1})
    for field, content in good.meta.items():
        with pytest.raises(Corrupt):
            replace(good, meta={key: item for key, item in good.meta.items() if key != field})
        for wrong in (None, [content], {"a": content}, 1.5, True, -1, "", "two words", b"", "UPPER"):
            with pytest.raises(Corrupt):
                replace(good, meta={**good.meta, field: wrong})


@pytest.mark.parametrize("kind", KINDS)
def test_the_kinds_that_have_a_build_key(kind: str) -> None:
    good = sample(kind)
    other = None if KINDS[kind].keyed else build_key("x")
    with pytest.raises(Invalid):
        replace(good, key=other)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("engine", "host", "b+a"),
        ("engine", "model", bytes(31)),
        ("engine", "part", "index"),
        ("engine", "backbone", "a/b"),
        ("index", "host", "b+a"),
        ("index", "part", "model"),
        ("descriptors", "dim", 0),
        ("descriptors", "dim", 2**20 + 1),
        ("descriptors", "dtype", "float64"),
        ("probe", "rows", 0),
        ("coverage", "missing", 0),
        ("card", "engine", "files/a"),
        ("card", "engine", "engines/A"),
    ],
)
def test_meta_out_of_bounds(kind: str, field: str, value: Any) -> None:
    good = sample(kind)
    with pytest.raises(Corrupt):
        replace(good, meta={**good.meta, field: value})


def raw(*names: str) -> bytes:
    """A canonical array of good entries in the order given."""
    return encode([entry(name, b"").value() for name in names])


@pytest.mark.parametrize(
    "names", [("files/b", "files/a"), ("files/a", "files/a"), ("files/a", "files/b", "files/a")], ids=str
)
def test_names_ascend_and_are_unique(names: tuple[str, ...]) -> None:
    with pytest.raises(Corrupt) as caught:
        EntryTable.parse(raw(*names))
    assert caught.value.fields["kind"] == "bad-order"


@pytest.mark.parametrize(
    "names",
    [
        ("files/a", "files/a/b"),
        ("files/a", "files/a/b/c"),
        ("files/a/b", "files/a/b/c"),
        # What sorts between a folder and its content does not hide it.
        ("files/a", "files/a-b", "files/a.b", "files/a/b"),
    ],
    ids=str,
)
def test_no_name_is_a_folder_of_another(names: tuple[str, ...]) -> None:
    with pytest.raises(Corrupt) as caught:
        EntryTable.parse(raw(*names))
    assert caught.value.fields["kind"] == "bad-entry"
    assert caught.value.fields["entry"] == names[-1]


def test_names_that_only_begin_alike_pass() -> None:
    EntryTable.parse(raw("files/a", "files/a-b", "files/a.b", "files/ab", "files/b/a"))


@pytest.mark.parametrize("data", [encode([]), encode({}), encode(b""), encode("x"), encode(1)], ids=bytes.hex)
def test_no_table(data: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        EntryTable.parse(data)
    assert caught.value.fields["kind"] == "bad-table"


def test_an_empty_table_cannot_be_made() -> None:
    with pytest.raises(Invalid):
        sorted_table([])


def in_another_form(data: bytes) -> dict[str, bytes]:
    """Bytes of the same entries that are not the canonical ones."""
    size = encode(17)
    assert data.count(b"\x58\x20" + bytes(ObjectId.of(CONTENTS["cards/net/net.json"])) + size) == 1
    rows = b"\xa3\x63dim\x04\x64rows\x02\x65dtype\x67float16"
    assert rows in data
    return {
        "head_in_two_bytes": b"\x98" + bytes([data[0] & 0x1F]) + data[1:],
        "trailing_byte": data + b"\x00",
        "indefinite": b"\x9f" + data[1:] + b"\xff",
        "size_in_three_bytes": data.replace(size, b"\x19\x00\x11", 1),
        "meta_in_another_order": data.replace(rows, b"\xa3\x63dim\x04\x65dtype\x67float16\x64rows\x02"),
        "meta_key_twice": data.replace(rows, b"\xa4\x63dim\x04\x63dim\x04\x64rows\x02\x65dtype\x67float16"),
        "meta_of_a_float": data.replace(rows, rows.replace(b"\x64rows\x02", b"\x64rows\xf9\x40\x00")),
        "meta_key_in_bytes": data.replace(rows, rows.replace(b"\x64rows", b"\x44rows")),
        "tagged": b"\xd9\xd9\xf7" + data,
    }


@pytest.mark.parametrize("form", in_another_form(table_of(CONTENTS).render()))
def test_one_form_alone_parses(form: str) -> None:
    good = table_of(CONTENTS).render()
    bad = in_another_form(good)[form]
    assert bad != good
    with pytest.raises(Corrupt) as caught:
        EntryTable.parse(bad)
    assert caught.value.fields["kind"] in ("not-canonical", "bad-field")


@pytest.mark.parametrize(
    ("kind", "field", "most"),
    [
        ("descriptors", "dim", 2**20),
        ("descriptors", "rows", 2**20),
        ("probe", "dim", 2**20),
        ("probe", "rows", 2**20),
        ("index", "dim", 2**20),
        ("index", "rows", 2**40),
        ("coverage", "missing", 2**40),
    ],
)
def test_numbers_of_meta_go_from_one_to_the_bound(kind: str, field: str, most: int) -> None:
    good = sample(kind)
    for number in (1, most):
        assert replace(good, meta={**good.meta, field: number}).meta[field] == number
    for number in (0, most + 1):
        with pytest.raises(Corrupt):
            replace(good, meta={**good.meta, field: number})


def test_the_limits_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ENTRIES == 100_000
    table = table_of(CONTENTS)
    data = table.render()
    monkeypatch.setattr(entries, "MAX_ENTRIES", len(table.entries) - 1)
    with pytest.raises(Corrupt):
        EntryTable.parse(data)
    with pytest.raises(Invalid):
        EntryTable(table.entries)
    monkeypatch.setattr(entries, "MAX_ENTRIES", len(table.entries))
    assert EntryTable.parse(data) == EntryTable(table.entries) == table
    monkeypatch.undo()
    monkeypatch.setattr(entries, "TABLE_LIMIT", len(data))
    assert EntryTable.parse(data) == table
    monkeypatch.setattr(entries, "TABLE_LIMIT", len(data) - 1)
    with pytest.raises(Corrupt) as caught:
        EntryTable.parse(data)
    assert caught.value.fields["kind"] == "too-large"
    with pytest.raises(Invalid):
        table_of(CONTENTS).render()


def test_a_changed_field_of_an_entry_changes_its_leaf() -> None:
    good = entry("engines/net/net.onnx", b"x")
    others = [
        replace(good, name="engines/net/other.onnx"),
        replace(good, id=ObjectId.of(b"y")),
        replace(good, size=2),
        replace(good, key=BuildKey(bytes(32))),
        replace(good, meta={**good.meta, "precision": "fp16"}),
    ]
    roots = {EntryTable((one,)).merkle_root for one in [good, *others]}
    assert len(roots) == len(others) + 1
