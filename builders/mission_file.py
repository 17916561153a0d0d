"""The mission file: TOML in, a frozen `MissionFile` out, or one error that lists everything wrong with it.

Three passes, each adding to one list of problems: the shape of the file and each value by itself (pydantic),
then what ties sections together (names that meet, a takeoff inside the area), then the files that it names.
A part that is wrong takes no part in the later passes, so one mistake is told once. Sizes are bounded before
anything is parsed, and numbers stay decimal, so 47.0201 is exactly 470201000 units of 1e-7 degree.

Paths are relative to the folder of the mission file and come out absolute. That they exist is checked here;
what is in them is not. Importing this module needs pydantic and raises Unavailable without it.
"""

from __future__ import annotations

import datetime
import difflib
import errno
import itertools
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, DecimalException
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

from builders.ort import missing_extra
from store.errors import Invalid, Unavailable
from store.format.area import Area as ExactArea
from store.format.entries import SEGMENT
from store.format.host import is_host_class
from store.format.manifest import AIRCRAFT_ID, FLIGHT_ID, MAX_ZOOM, MISSION_ID

try:
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        PlainValidator,
        ValidationError,
        ValidationInfo,
        model_validator,
    )
    from pydantic.fields import FieldInfo
except ImportError as error:
    raise missing_extra("pydantic") from error

MAX_BYTES = 2**20
MAX_FILE_SEGMENTS = 3
MAX_SIZE = 2**31 - 1
_AUTO = "auto"
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_POSITION = re.compile(r"\(at line (\d+), column (\d+)\)\Z")
_SHOWN = 80

Key: TypeAlias = tuple[str | int, ...]
Model = TypeVar("Model", bound="_Section")


def _rule(check: Callable[[Any], bool]) -> PlainValidator:
    """A value is taken as it is if `check` says so. The field's description says what would be right."""

    def validate(value: Any) -> Any:
        if not check(value):
            raise ValueError
        return value

    return PlainValidator(validate)


def _text(pattern: re.Pattern[str]) -> PlainValidator:
    return _rule(lambda value: type(value) is str and pattern.fullmatch(value) is not None)


def _decimal(value: Any) -> Any:
    """TOML has two kinds of number, and a person writes 47 for 47.0."""
    return Decimal(value) if type(value) is int else value


def _is_path(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= 4096 and "\0" not in value


def _resolve(value: Any, info: ValidationInfo) -> Path:
    if not _is_path(value):
        raise ValueError
    assert info.context is not None  # every validation here gives one
    path: Path = info.context["folder"] / value
    return path


def _strictly_ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if any(a >= b for a, b in itertools.pairwise(values)):
        raise ValueError
    return values


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError
    return values


def _one_symbol(shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
    if sum(type(dim) is str for dim in shape) > 1:
        raise ValueError
    return shape


def _is_dim(value: Any) -> bool:
    if type(value) is str:
        return _SYMBOL.fullmatch(value) is not None
    return type(value) is int and 1 <= value <= MAX_SIZE


def _is_file_name(value: Any) -> bool:
    if type(value) is not str:
        return False
    segments = value.split("/")
    return len(segments) <= MAX_FILE_SEGMENTS and all(SEGMENT.fullmatch(segment) for segment in segments)


_SEGMENT_RIGHT = "1 to 64 characters of a-z 0-9 . _ -, the first and the last a letter or digit"
_FILE_NAME_RIGHT = f"1 to {MAX_FILE_SEGMENTS} parts joined by /, each {_SEGMENT_RIGHT}"
_HOST_RIGHT = '"auto", or a class like "cpu-x86_64": components joined by + in ascending order, 255 characters at most'

Name: TypeAlias = Annotated[str, _text(SEGMENT), Field(description=_SEGMENT_RIGHT)]
Number: TypeAlias = Annotated[Decimal, BeforeValidator(_decimal)]
Latitude: TypeAlias = Annotated[Number, Field(ge=-90, le=90, description="degrees from -90 to 90")]
Longitude: TypeAlias = Annotated[Number, Field(ge=-180, le=180, description="degrees from -180 to 180")]
Zoom: TypeAlias = Annotated[int, Field(ge=0, le=MAX_ZOOM, description=f"a whole number from 0 to {MAX_ZOOM}")]
Dim: TypeAlias = Annotated[int | str, _rule(_is_dim), Field(description='a whole number above 0, or a name like "N"')]
Count: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SIZE, description="a whole number above 0")]
Side: TypeAlias = Annotated[int, Field(ge=1, le=4096, description="a whole number of pixels from 1 to 4096")]
Source: TypeAlias = Annotated[
    Path, PlainValidator(_resolve), Field(description="the path of a file, relative to the folder of this one")
]
InputName: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=255, description="the name of an input, of 1 to 255 characters")
]
Channel: TypeAlias = Annotated[
    Number, Field(ge=-(10**6), le=10**6, decimal_places=6, description="a number with at most six decimals")
]
Divisor: TypeAlias = Annotated[
    Number, Field(gt=0, le=10**6, decimal_places=6, description="a number above 0 with at most six decimals")
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Takeoff(_Section):
    """The takeoff origin: degrees and metres as written, 1e-7 degree and millimetres as signed."""

    lat: Latitude
    lon: Longitude
    alt_m: Annotated[Number, Field(ge=-1000, le=20000, description="metres from -1000 to 20000")]

    @property
    def lat_e7(self) -> int:
        """Latitude in 1e-7 degree, rounded half to even."""
        return scaled(self.lat, 7)

    @property
    def lon_e7(self) -> int:
        """Longitude in 1e-7 degree, rounded half to even."""
        return scaled(self.lon, 7)

    @property
    def alt_mm(self) -> int:
        """Height in millimetres, rounded half to even."""
        return scaled(self.alt_m, 3)


_BBOX_RIGHT = "[west, south, east, north] with south below north; west and east differ, west above east crosses 180"


def _box(bbox: tuple[Decimal, ...]) -> tuple[Decimal, ...]:
    west, south, east, north = (scaled(value, 7) for value in bbox)
    # 180 and -180 are one meridian: from the first to the second there is nothing between.
    if south >= north or west == east or (west, east) == (180 * 10**7, -180 * 10**7):
        raise ValueError
    return bbox


class Area(_Section):
    """The map area; `bbox` is west, south, east, north in degrees. West above east crosses the antimeridian."""

    bbox: Annotated[
        tuple[Longitude, Latitude, Longitude, Latitude],
        AfterValidator(_box),
        Field(strict=False, description=_BBOX_RIGHT),
    ]

    @property
    def bbox_e7(self) -> tuple[int, int, int, int]:
        """West, south, east, north in 1e-7 degree, each rounded half to even."""
        west, south, east, north = (scaled(value, 7) for value in self.bbox)
        return west, south, east, north


AircraftId: TypeAlias = Annotated[
    str,
    _text(AIRCRAFT_ID),
    Field(description="1 to 64 characters of a-z 0-9 . _ -, the first a letter or digit"),
]


class Mission(_Section):
    """Who flies, from where, over what."""

    id: Annotated[
        str, _text(MISSION_ID), Field(description="1 to 64 characters of a-z 0-9 -, the first a letter or digit")
    ]
    flight: Annotated[str, _text(FLIGHT_ID), Field(description="1 to 64 characters of A-Z a-z 0-9 . _ : -")]
    aircraft: Annotated[
        tuple[AircraftId, ...],
        AfterValidator(_unique),
        Field(strict=False, min_length=1, max_length=64, description="an array of 1 to 64 aircraft ids, none twice"),
    ]
    takeoff: Annotated[Takeoff, Field(description="a table with lat, lon and alt_m")]
    area: Annotated[Area, Field(description="a table with bbox")]
    sector: Annotated[
        Literal["stable_rear", "active_conflict"], Field(description='"stable_rear" or "active_conflict"')
    ]

    @property
    def aircraft_ids(self) -> tuple[str, ...]:
        """The aircraft in ascending order, as the manifest lists them."""
        return tuple(sorted(self.aircraft))


class Target(_Section):
    """Which machine the engines are for."""

    host: Annotated[
        str,
        _rule(lambda value: type(value) is str and (value == _AUTO or is_host_class(value))),
        Field(description=_HOST_RIGHT),
    ]


class Tiles(_Section):
    """One tile source, the zooms taken from it, and the day its imagery was taken."""

    source: Source
    zooms: Annotated[
        tuple[Zoom, ...],
        AfterValidator(_strictly_ascending),
        Field(strict=False, min_length=1, description=f"an array of whole numbers 0 to {MAX_ZOOM}, ascending"),
    ]
    captured: Annotated[
        datetime.date,
        _rule(lambda value: type(value) is datetime.date),
        Field(description="a date without quotes, such as 2018-07-16"),
    ]


class Input(_Section):
    """One input of a backbone. `min`, `opt` and `max` are what the symbol in `shape` stands for, if it has one."""

    shape: Annotated[
        tuple[Dim, ...],
        AfterValidator(_one_symbol),
        Field(
            strict=False,
            min_length=1,
            max_length=8,
            description="an array of 1 to 8 whole numbers above 0, of which one may be a name",
        ),
    ]
    min: Annotated[Count | None, Field(description="a whole number above 0")] = None
    opt: Annotated[Count | None, Field(description="a whole number above 0")] = None
    max: Annotated[Count | None, Field(description="a whole number above 0")] = None

    @property
    def symbol(self) -> str | None:
        """The name in `shape`, or None where every dimension is fixed."""
        return next((dim for dim in self.shape if isinstance(dim, str)), None)

    @model_validator(mode="after")
    def _range(self) -> Input:
        given = [value for value in (self.min, self.opt, self.max) if value is not None]
        if self.symbol is None and given:
            raise ValueError("has min, opt or max and a fixed shape; leave them out, or name a dimension in shape")
        if self.symbol is not None and (len(given) != 3 or given != sorted(given)):
            found = ", ".join(f"{key} {value}" for key, value in self if key != "shape" and value is not None)
            raise ValueError(
                f"has {found or 'no range'} for {self.symbol!r}; give min, opt and max with min <= opt <= max"
            )
        return self


class Backbone(_Section):
    """One network and how it is compiled."""

    name: Name
    model: Source
    backend: Annotated[Literal["onnxruntime", "tensorrt"], Field(description='"onnxruntime" or "tensorrt"')]
    precision: Annotated[Literal["fp32", "fp16", "int8"], Field(description='"fp32", "fp16" or "int8"')]
    inputs: Annotated[
        Mapping[InputName, Annotated[Input, Field(description="a table with shape, and min, opt, max")]],
        Field(min_length=1, max_length=64, description="a table with each input's name and shape"),
    ]


class PreprocessKeys(_Section):
    """How a tile becomes an input. All of it is in the build key."""

    resize: Annotated[tuple[Side, Side], Field(strict=False, description="[height, width] in pixels")]
    colour: Annotated[Literal["RGB", "BGR"], Field(description='"RGB" or "BGR"')]
    scale: Annotated[Literal["0..1", "0..255", "-1..1"], Field(description='"0..1", "0..255" or "-1..1"')]
    mean: Annotated[
        tuple[Channel, Channel, Channel],
        Field(strict=False, description="three numbers with at most six decimals, one a channel"),
    ] = (Decimal(0), Decimal(0), Decimal(0))
    std: Annotated[
        tuple[Divisor, Divisor, Divisor],
        Field(strict=False, description="three numbers above 0 with at most six decimals, one a channel"),
    ] = (Decimal(1), Decimal(1), Decimal(1))
    filter: Annotated[
        Literal["nearest", "bilinear", "bicubic", "lanczos"],
        Field(description='"nearest", "bilinear", "bicubic" or "lanczos"'),
    ] = "bilinear"


class Descriptors(_Section):
    """One set of descriptors: which backbone's output, of which numbers."""

    name: Name
    backbone: Annotated[str, Field(description="the name of one of the backbones")]
    output: Annotated[
        str, Field(min_length=1, max_length=255, description="the name of an output of the backbone's model")
    ]
    dtype: Annotated[Literal["float16", "float32"], Field(description='"float16" or "float32"')]
    preprocess: Annotated[PreprocessKeys, Field(description="a table with resize, colour and scale")]


class File(_Section):
    """A file that is stored as it is, as the entry files/<name>."""

    name: Annotated[str, _rule(_is_file_name), Field(description=_FILE_NAME_RIGHT)]
    path: Source


def _tables(of: str) -> str:
    return f"at least one table [[{of}]]"


class MissionFile(_Section):
    """A mission file that holds together; every path in it named a regular file when it was read."""

    mission: Annotated[Mission, Field(description="a table [mission]")]
    target: Annotated[Target, Field(description="a table [target]")]
    tiles: Annotated[tuple[Tiles, ...], Field(strict=False, min_length=1, description=_tables("tiles"))]
    backbones: Annotated[tuple[Backbone, ...], Field(strict=False, min_length=1, description=_tables("backbones"))]
    descriptors: Annotated[
        tuple[Descriptors, ...], Field(strict=False, min_length=1, description=_tables("descriptors"))
    ]
    files: Annotated[tuple[File, ...], Field(strict=False, description="tables [[files]]")] = ()


def scaled(value: Decimal, places: int) -> int:
    """`value * 10**places` as an integer, rounded half to even; exact, however many digits are given."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # validated: neither infinite nor NaN
    return int(Decimal((sign, digits, exponent + places)).to_integral_value(ROUND_HALF_EVEN))


def load_mission(path: Path) -> MissionFile:
    """The mission file at `path`, complete and checked.

    Raises Invalid with every problem on a line of its own (`file: key is value, must be ...`; the same in
    `fields["problems"]`), or with line and column where the file is no TOML. Raises Unavailable where the
    file, or one that it names, could not be looked at.
    """
    data = _parse(path, _read(path))
    report = _Report(path, data)
    folder = Path(os.path.abspath(path)).parent
    mission: MissionFile | None = None
    try:
        mission = MissionFile.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        report.add_validation(error)
    parts = _Parts(data, folder)
    _check_takeoff(parts, report)
    _check_names(parts, report)
    _check_backbones(parts, report)
    _check_paths(parts, report)
    report.finish()
    assert mission is not None  # otherwise its problems were in the report
    return mission


def _read(path: Path) -> bytes:
    try:
        # Looked at before it is opened: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Invalid(f"{path} is not a regular file", remedy="give the path of a mission file", path=str(path))
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise Invalid(f"there is no {path}", remedy="give the path of a mission file", path=str(path)) from None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    if len(data) > MAX_BYTES:
        raise Invalid(f"{path} is larger than {MAX_BYTES} bytes", remedy="a mission file is not", path=str(path))
    return data


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    """The TOML of `data`. Raises Invalid, with line and column where the parser gives them."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = _end_of(data[: error.start].decode())
        raise _not_toml(path, "the text is not UTF-8", line, column) from None
    try:
        return tomllib.loads(text, parse_float=_parse_float)
    except tomllib.TOMLDecodeError as error:
        found = _POSITION.search(str(error))
        line, column = (int(found[1]), int(found[2])) if found else _end_of(text)
        raise _not_toml(path, str(error).rpartition(" (at ")[0], line, column) from None
    except (ValueError, RecursionError) as error:
        # Not the grammar, the parser's own limits: an integer of thousands of digits, brackets without end.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else "a number is too long to be read"
        raise Invalid(f"{path}: {reason}", path=str(path)) from None


def _parse_float(text: str) -> Decimal:
    try:
        return Decimal(text)
    except DecimalException:
        raise ValueError(text) from None


def _end_of(text: str) -> tuple[int, int]:
    """Line and column, counted from 1, of what would follow `text`."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _not_toml(path: Path, reason: str, line: int, column: int) -> Invalid:
    return Invalid(
        f"{path}: line {line}, column {column}: {reason}", path=str(path), line=line, column=column, reason=reason
    )


@dataclass
class _Report:
    """Collects what is wrong, in the order it is found."""

    path: Path
    data: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def add(self, key: Key, says: str) -> None:
        self.problems.append(f"{self.path}: {written(key)} {says}")

    def add_wrong(self, key: Key, right: str) -> None:
        """The value at `key` is not right; `right` completes 'must be'."""
        self.add(key, f"is {_shown(_value_at(self.data, key))}, must be {right}")

    def add_validation(self, error: ValidationError) -> None:
        for found in error.errors(include_url=False, include_input=False):
            # The key of a table is marked so by pydantic; the name before it is the value that is wrong.
            is_name = found["loc"][-1:] == ("[key]",)
            key = found["loc"][:-1] if is_name else found["loc"]
            model, right = _right(key[:-1]) if is_name else _right(key)
            details = found.get("ctx", {})
            if found["type"] == "too_short" and len(_value_at(self.data, key)) >= details["min_length"]:
                continue  # only those elements were counted that are right; the others are told by themselves
            own_words = str(details.get("error", ""))
            if is_name:
                self.add(key, f"is no name, must be {get_args(InputName)[1].description}")
            elif found["type"] == "extra_forbidden":
                self._add_unknown(key)
            elif found["type"] == "missing":
                self.add(key, f"is missing, must be {right}")
            elif model is not None and own_words:
                self.add(key, own_words)
            else:
                self.add_wrong(key, right)

    def _add_unknown(self, key: Key) -> None:
        model, _ = _right(key[:-1])
        assert model is not None  # only tables have unknown keys
        near = difflib.get_close_matches(str(key[-1]), model.model_fields, n=1)
        keys = ", ".join(model.model_fields)
        self.add(
            key, f"is not a known key, did you mean {near[0]!r}?" if near else f"is not a known key, known: {keys}"
        )

    def add_unreadable(self, key: Key, says: str) -> None:
        """Whether what `key` names is right could not be told."""
        self.unreadable.append(f"{self.path}: {written(key)}: {says}")

    def finish(self) -> None:
        """Raises what was collected, if anything was."""
        if self.problems:
            raise Invalid("\n".join(self.problems), path=str(self.path), problems=tuple(self.problems))
        if self.unreadable:
            raise Unavailable("\n".join(self.unreadable), path=str(self.path), problems=tuple(self.unreadable))


def _right(key: Key) -> tuple[type[_Section] | None, str]:
    """(the section at `key`, or None where it is a value; what its description says that would be right)."""
    kind: Any = MissionFile
    description = ""
    for part in key:
        if isinstance(kind, type) and issubclass(kind, _Section):
            if part not in kind.model_fields:
                return None, ""
            known = kind.model_fields[str(part)]
            kind, description = known.annotation, known.description or ""
        else:
            kind, inner = _element(kind, part)
            description = inner or description
    return (kind if isinstance(kind, type) and issubclass(kind, _Section) else None), description


def _element(kind: Any, part: str | int) -> tuple[Any, str]:
    """(type, description) of what an array or a table of the annotation `kind` holds at `part`."""
    arguments = get_args(kind)
    if get_origin(kind) is not tuple:
        held = arguments[-1]  # a table: key, value
    elif Ellipsis in arguments:
        held = arguments[0]
    else:
        held = arguments[int(part)]
    if get_origin(held) is not Annotated:
        return held, ""
    inner, *metadata = get_args(held)
    described = [item.description for item in metadata if isinstance(item, FieldInfo) and item.description]
    return inner, described[-1] if described else ""


class _Parts:
    """What the sections hold that is right by itself, whatever is wrong beside it."""

    def __init__(self, data: Mapping[str, Any], folder: Path) -> None:
        self._data = data
        self._context = {"folder": folder}

    def section(self, model: type[Model], *key: str | int) -> Model | None:
        """The section at `key`, or None where it is absent or wrong."""
        try:
            return model.model_validate(_value_at(self._data, key), context=self._context)
        except (ValidationError, LookupError, TypeError):
            return None

    def column(self, table: str, key: str) -> dict[int, str]:
        """The strings at `table[i].key`, by i."""
        tables = self._data.get(table)
        rows = enumerate(tables if isinstance(tables, list) else [])
        return {i: row[key] for i, row in rows if isinstance(row, dict) and isinstance(row.get(key), str)}

    def paths(self, table: str, key: str) -> dict[int, Path]:
        """The paths at `table[i].key`, resolved, by i."""
        folder = self._context["folder"]
        return {i: folder / text for i, text in self.column(table, key).items() if _is_path(text)}


def _check_takeoff(parts: _Parts, report: _Report) -> None:
    takeoff = parts.section(Takeoff, "mission", "takeoff")
    area = parts.section(Area, "mission", "area")
    if takeoff and area and not ExactArea(area.bbox_e7).contains(takeoff.lat_e7, takeoff.lon_e7):
        box = ", ".join(map(str, area.bbox))
        report.add(
            ("mission", "takeoff"),
            f"is at lat {takeoff.lat}, lon {takeoff.lon}, must be inside mission.area.bbox [{box}]",
        )


def _check_names(parts: _Parts, report: _Report) -> None:
    for table in ("backbones", "descriptors", "files"):
        for i, first in _repeated(parts.column(table, "name")):
            report.add_wrong((table, i, "name"), f"another name than that of {table}[{first}]")
    files = {name: i for i, name in parts.column("files", "name").items()}
    for name, i in files.items():
        for end in (at for at, letter in enumerate(name) if letter == "/"):
            if (outer := name[:end]) in files:
                report.add_wrong(("files", i, "name"), f"outside {outer!r}, which files[{files[outer]}] makes a file")
    known = list(parts.column("backbones", "name").values())
    for i, name in parts.column("descriptors", "backbone").items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or known
            report.add_wrong(
                ("descriptors", i, "backbone"),
                "the name of one of the backbones" + (f", such as {near[0]!r}" if near else ""),
            )


def _check_backbones(parts: _Parts, report: _Report) -> None:
    precisions = parts.column("backbones", "precision")
    for i, backend in parts.column("backbones", "backend").items():
        if backend == "onnxruntime" and precisions.get(i) in ("fp16", "int8"):
            report.add_wrong(("backbones", i, "precision"), '"fp32": the backend "onnxruntime" offers only that')
        backbone = parts.section(Backbone, "backbones", i)
        first: dict[str, tuple[str, Input]] = {}
        for name, given in backbone.inputs.items() if backbone else ():
            if given.symbol is None:
                continue
            other, same = first.setdefault(given.symbol, (name, given))
            if (given.min, given.opt, given.max) != (same.min, same.opt, same.max):
                report.add(
                    ("backbones", i, "inputs", name),
                    f"gives {given.symbol!r} another range than {other!r} does, must be the same",
                )


def _check_paths(parts: _Parts, report: _Report) -> None:
    """Every path names a regular file, and no tile source is listed twice."""
    for table, name in (("tiles", "source"), ("backbones", "model"), ("files", "path")):
        for i, path in parts.paths(table, name).items():
            key = (table, i, name)
            try:
                mode = path.stat().st_mode
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                    report.add_wrong(key, f"the path of a file; there is no {path}")
                else:
                    report.add_unreadable(key, f"{path} cannot be read: {error.strerror}")
                continue
            if not stat.S_ISREG(mode):
                what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
                report.add_wrong(key, f"the path of a file; {path} is {what}")
    sources = {i: os.path.realpath(path) for i, path in parts.paths("tiles", "source").items()}
    for i, first in _repeated(sources):
        report.add_wrong(("tiles", i, "source"), f"another file than that of tiles[{first}]")


def _repeated(values: Mapping[int, str]) -> Iterator[tuple[int, int]]:
    """(index, index of the first with the same value) of each value that was there before."""
    first: dict[str, int] = {}
    for i, value in values.items():
        if first.setdefault(value, i) != i:
            yield i, first[value]


def written(key: Iterable[str | int]) -> str:
    """A key path as TOML would write it: `tiles[0].zooms[1]`, quoted where a bare key cannot be."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += "." * bool(text) + (part if _BARE_KEY.fullmatch(part) else json.dumps(part))
    return text


def _value_at(data: Any, key: Key) -> Any:
    for part in key:
        data = data[part]
    return data


def _shown(value: Any) -> str:
    """The value as TOML writes it, cut where it is long; what is inside nested values is left out."""
    if isinstance(value, list):
        text = "[" + ", ".join("..." if isinstance(item, list | dict) else _shown(item) for item in value[:16]) + "]"
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, str | bool):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
