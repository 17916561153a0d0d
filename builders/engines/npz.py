"""Arrays that an author saved with `numpy.savez`: a zip file of .npy files, read within bounds. Nothing is unpickled.

Laws: no member is read before its compression is known and the sizes that the file claims are bounded; an array has
exactly the bytes that its header claims; every error is a failure `bad-reference` with a remedy.
"""

from __future__ import annotations

import io
import math
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.engines.failures import failure, words_of
from builders.extras import import_extra
from builders.files import read_regular
from builders.zipped import opened_zip, read_member
from store.errors import FlightbagError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FILE = 1 << 28
# Of all arrays together.
MAX_BYTES = 1 << 30
MAX_ARRAYS = 64
_MAX_MEMBERS = 4 * MAX_ARRAYS
# numpy's own bound (numpy.lib.format): the header is parsed as a Python literal.
_MAX_HEADER = 10_000
# What bfloat16 rounds off lies beyond the tolerance for float32.
_IN_FLOAT32 = "run the author's network once in float32, with the same weights (model.float()), and save that"
_REMEDY = "save the arrays of one run with numpy.savez(file, name=array, ...)"


def read_npz(path: Path, name: str) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """Return (bytes of the file, name -> array). `name` is the file's in messages. Raise Invalid for a file above 256
    MiB or 1 GiB of arrays, and for one that is no zip file of arrays of numbers."""
    data = read_regular(path, MAX_FILE, "reference", too_large="save one image, or fewer outputs")
    try:
        with opened_zip(data, _MAX_MEMBERS) as archive:
            members = archive.infolist()
            if len(members) > MAX_ARRAYS or sum(member.file_size for member in members) > MAX_BYTES:
                raise _bad(name, f"has more than {MAX_ARRAYS} arrays or {MAX_BYTES} bytes", "save one image")
            arrays = {}
            for member in members:
                array = member.filename.removesuffix(".npy")
                if array in arrays:
                    raise _bad(name, f"has the array {array!r} twice")
                content = read_member(archive, member, member.file_size)
                arrays[array] = _array(content, f"{name}: the array {array!r}")
    except ValueError as error:
        raise _bad(name, f"is no .npz file: {words_of(error)}") from error
    return data, arrays


def _array(data: bytes, what: str) -> NDArray[Any]:
    np = import_extra("numpy")
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"its version is {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=_MAX_HEADER)
        # numpy takes truth for a whole number, and makes no array of many elements of which one dimension is 0.
        if any(type(size) is not int for size in shape) or math.prod(filter(None, shape)) > MAX_BYTES:
            raise ValueError(f"its shape is {shape}")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise _bad(what, f"is no .npy file: {words_of(error)[:200]}") from error
    if dtype.kind not in "biuf":
        remedy = _IN_FLOAT32 if dtype.kind == "V" else "save arrays of numbers"
        raise _bad(what, f"is {dtype}, which is no number", remedy)
    if len(shape) > 8 or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise _bad(what, f"has {len(data) - file.tell()} bytes, and its header says {list(shape)[:9]} of {dtype}")
    flat = np.frombuffer(data, dtype, offset=file.tell())
    array: NDArray[Any] = flat.reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="))


def _bad(name: str, what: str, remedy: str = _REMEDY) -> FlightbagError:
    return failure("bad-reference", f"{name} {what}", remedy=remedy)
