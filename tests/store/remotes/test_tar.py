"""The tar of a bag: other programs read it, and this reader takes nothing else."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import Corrupt
from store.remotes.tar import BLOCK, END, SIZE_MAX, Member, TarReader, padding, render, render_comment

NAMES = st.lists(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,90}", fullmatch=True), min_size=1, max_size=3).map("/".join)


def tar_of(*files: tuple[str, bytes], comment: str = "a bag") -> bytes:
    members = (render(Member(name, len(data))) + data + padding(len(data)) for name, data in files)
    return render_comment(comment) + b"".join(members) + END


def read(data: bytes) -> list[tuple[str, bytes]]:
    reader = TarReader(io.BytesIO(data), "the bag")
    assert reader.comment()
    return [(member.name, reader.data()) for member in reader.members()]


def kind_of(data: bytes) -> str:
    with pytest.raises(Corrupt) as caught:
        read(data)
    return caught.value.kind


FILES = (("objects/ab/" + "0" * 62, b"x" * 513), ("missions/north", b""), ("trust/1.root.cbor", b"y" * 512))


def test_what_is_written_is_read_also_by_other_programs() -> None:
    data = tar_of(*FILES)
    assert read(data) == list(FILES)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.pax_headers == {"comment": "a bag"}
        read_there = [(one.name, tar.extractfile(one).read()) for one in tar]  # type: ignore[union-attr]
        assert read_there == list(FILES)
        assert {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in tar} == {(0, 0, 0, "", "")}
        assert [one.mode for one in tar] == [0o444, 0o644, 0o644]


@given(NAMES, st.one_of(st.integers(0, 2**34), st.integers(0, SIZE_MAX)))
@settings(max_examples=100)
def test_a_header_is_parsed_to_what_was_rendered(name: str, size: int) -> None:
    try:
        header = render(Member(name, size))
    except ValueError:  # too long for ustar: no name of a store is
        return
    reader = TarReader(io.BytesIO(render_comment("x") + header), "the bag")
    reader.comment()
    member = next(reader.members())
    assert member == Member(name, size)
    info = tarfile.TarInfo.frombuf(header[-BLOCK:], "ascii", "strict")
    assert info.name == name
    with tarfile.open(fileobj=io.BytesIO(header + bytes(BLOCK))) as tar:
        assert next(iter(tar)).size == size


@given(st.integers(0, 3 * BLOCK - 1), st.integers(1, 255))
@settings(max_examples=200)
def test_no_other_byte_of_a_header_is_read(at: int, change: int) -> None:
    data = bytearray(render_comment("x") + render(Member("trust/1.root.cbor", 0)) + END)
    data[at] ^= change
    try:
        files = read(bytes(data))
    except Corrupt:
        return
    # Another comment is another head, which `unpack` judges.
    assert BLOCK <= at < 2 * BLOCK, at
    assert files == [("trust/1.root.cbor", b"")]


@pytest.mark.parametrize("cut", [0, 1, 9, 511, 512, 1023, 1024, 1030, 1536, 1700, 2048, -1025, -1024, -512, -1])
def test_a_bag_that_ends_early(cut: int) -> None:
    assert kind_of(tar_of(*FILES)[:cut]) == "truncated"


def written_by_tarfile(format_: int, **facts: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as tar:
        info = tarfile.TarInfo("trust/1.root.cbor")
        for name, value in facts.items():
            setattr(info, name, value)
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("bad-bag", b"PK\3\4" + bytes(2000)),
        ("bad-bag", b"\x1f\x8b"),
        ("bad-bag", END),
        ("bad-bag", tar_of(*FILES)[2 * BLOCK :]),
        ("bad-header", tar_of(*FILES)[:-BLOCK] + b"\1" + bytes(BLOCK - 1)),
        ("trailing", tar_of(*FILES) + b"\0"),
        ("trailing", tar_of(*FILES) * 2),
        ("bad-header", tar_of(("missions/a", b"x"))[: -len(END) - 1] + b"z" + END),
    ],
)
def test_what_is_no_bag(kind: str, data: bytes) -> None:
    assert kind_of(data) == kind


HEAD = render_comment("x")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("wrong-type", written_by_tarfile(tarfile.USTAR_FORMAT, type=tarfile.SYMTYPE, linkname="../x")),
        ("wrong-type", written_by_tarfile(tarfile.USTAR_FORMAT, type=tarfile.LNKTYPE, linkname="missions/x")),
        ("wrong-type", written_by_tarfile(tarfile.USTAR_FORMAT, type=tarfile.CHRTYPE)),
        ("wrong-type", written_by_tarfile(tarfile.USTAR_FORMAT, type=tarfile.FIFOTYPE)),
        ("wrong-type", written_by_tarfile(tarfile.USTAR_FORMAT, type=tarfile.DIRTYPE)),
        ("wrong-type", written_by_tarfile(tarfile.GNU_FORMAT, type=tarfile.GNUTYPE_SPARSE)),
        ("bad-header", written_by_tarfile(tarfile.GNU_FORMAT, name="x/" * 150 + "x")),
        ("bad-header", HEAD),
        ("bad-header", written_by_tarfile(tarfile.GNU_FORMAT)),
        ("bad-header", written_by_tarfile(tarfile.GNU_FORMAT, type=tarfile.AREGTYPE)),
        ("bad-header", written_by_tarfile(tarfile.USTAR_FORMAT, mtime=1)),
        ("bad-header", written_by_tarfile(tarfile.USTAR_FORMAT, uid=1)),
        ("bad-header", written_by_tarfile(tarfile.USTAR_FORMAT, uname="root")),
        ("bad-header", written_by_tarfile(tarfile.USTAR_FORMAT, mode=0o4755)),
        ("bad-header", written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"path": "../../etc/passwd"})),
        ("bad-header", written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"GNU.sparse.map": "0,1"})),
        ("bad-header", written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 10**6})),
        ("bad-header", written_by_tarfile(tarfile.PAX_FORMAT, pax_headers={"size": "1"})),
    ],
)
def test_what_other_programs_write_is_refused(kind: str, data: bytes) -> None:
    assert kind_of(HEAD + data) == kind


def test_a_member_that_nobody_reads_is_passed_over() -> None:
    reader = TarReader(io.BytesIO(tar_of(*FILES)), "the bag")
    reader.comment()
    assert [member.name for member in reader.members()] == [name for name, _ in FILES]
