"""Arrays that an author saved: read within bounds, and nothing is unpickled."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.engines import npz
from builders.engines.npz import read_npz
from store.errors import FlightbagError, Invalid

ARRAYS: dict[str, Any] = {
    "image": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "half": np.ones(3, np.float16),
    "mask": np.array([[True, False]]),
    "scalar": np.float64(2),
    "big": np.arange(3, dtype=">i4"),
    "none": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_read(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "io.npz", **ARRAYS)
    data, arrays = read_npz(tmp_path / "io.npz", "io.npz")
    assert data == (tmp_path / "io.npz").read_bytes()
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(arrays[name], array)
        assert arrays[name].dtype.isnative


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, image=np.array([{"a": 1}], object))
    return file.getvalue()


# The last record says that the directory is larger than the file.
DIRECTORY_BEFORE = zipped(("image.npy", header("(1,)") + bytes(4)))[:-10] + b"\xff" * 4 + bytes(6)

WRONG = {
    "no zip": b"PK" + bytes(100),
    "empty": b"",
    "pickled objects": pickled(),
    "text": zipped(("image.npy", header("(2,)", "'<U4'") + bytes(32))),
    "bfloat16 as numpy has it": zipped(("image.npy", header("(2,)", "'|V2'") + bytes(4))),
    "no array": zipped(("image.npy", b"hello")),
    "another version": zipped(("image.npy", b"\x93NUMPY\x03\x00" + bytes(20))),
    "fewer bytes than it says": zipped(("image.npy", header("(4,)") + bytes(12))),
    "more bytes than it says": zipped(("image.npy", header("(4,)") + bytes(20))),
    "a shape of terabytes": zipped(("image.npy", header(f"({10**12}, {10**6})"))),
    "a negative shape": zipped(("image.npy", header("(-1, -4)") + bytes(16))),
    "a shape of nothing in terabytes": zipped(("image.npy", header(f"(0, {10**30})"))),
    "a shape of truth": zipped(("image.npy", header("(True,)") + bytes(4))),
    "open brackets": zipped(("image.npy", header("(" * 4000))),
    "more members than any": zipped(*((f"a{n}.npy", b"") for n in range(257))),
    "a directory before the file": DIRECTORY_BEFORE,
    "code for a header": zipped(("image.npy", header("__import__('os').getpid()"))),
    "the same array twice": zipped(("image.npy", header("(1,)") + bytes(4)), ("image", header("(1,)") + bytes(4))),
    **{
        f"compressed by method {method}": zipped(("image.npy", header("(1,)") + bytes(4)), compression=method)
        for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    },
    "too many arrays": zipped(*((f"a{n}.npy", header("(1,)") + bytes(4)) for n in range(65))),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "io.npz"
    path.write_bytes(data)
    with pytest.raises(Invalid) as caught:
        read_npz(path, "io.npz")
    assert caught.value.kind == "bad-reference"
    assert "io.npz" in caught.value.message
    assert caught.value.remedy


def test_a_bomb_is_refused_by_what_it_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_BYTES", 4096)
    np.savez_compressed(tmp_path / "io.npz", image=np.zeros(4096, np.uint8))
    with pytest.raises(Invalid, match="more than 64 arrays or 4096 bytes"):
        read_npz(tmp_path / "io.npz", "io.npz")


def test_a_member_that_is_longer_than_it_claims_is_refused(tmp_path: Path) -> None:
    data = zipped(("image.npy", header("(1,)") + bytes(4)))
    size = len(header("(1,)")) + 4
    lying = data.replace(struct.pack("<II", size, size), struct.pack("<II", size, size - 4))
    (tmp_path / "io.npz").write_bytes(lying)
    with pytest.raises(Invalid):
        read_npz(tmp_path / "io.npz", "io.npz")


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_changed_bit_is_an_error_of_a_known_kind_or_read(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    file = io.BytesIO()
    np.savez(file, **ARRAYS)
    data = bytearray(file.getvalue())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    assert kind_of(path) in ("", "bad-reference")


def kind_of(path: Path) -> str | None:
    """The kind of the error with which a file is refused, "" if it is read."""
    try:
        read_npz(path, path.name)
    except FlightbagError as error:
        return error.kind
    return ""
