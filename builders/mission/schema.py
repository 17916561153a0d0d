"""The schema of the mission file: frozen values, and for each key the description of a right value.

The description of a field completes the sentence "must be ...", which `builders.mission.reader` writes. Paths in the
file are relative to its folder; here they are absolute. Importing this module needs pydantic and raises Unavailable
without it.
"""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from builders.extras import missing_extra
from store.errors import Invalid
from store.format.cbor import INT_MAX
from store.format.duration import lifetime_of
from store.format.entries import SEGMENT
from store.format.host import FAMILY_NAMES, objection
from store.format.manifest import AIRCRAFT_ID, FLIGHT_ID, MAX_HOSTS, MAX_ZOOM, MISSION_ID, TIME_MAX
from store.format.manifest import Takeoff as ExactTakeoff

try:
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        PlainValidator,
        ValidationInfo,
        model_validator,
    )
except ImportError as error:
    raise missing_extra("pydantic") from error

MAX_FILE_SEGMENTS = 3
# Views of each zoom that the map is asked for.
SAMPLE = 32
MAX_SAMPLE = 4096
MAX_SIZE = 2**31 - 1
MIN_ALT_M, MAX_ALT_M = -1000, 20000
# Numbers in the value of an input in the mission file, and in its shape; decimal digits before or behind the point.
MAX_VALUES = 4096
MAX_FIXED = 1 << 22
MAX_EXPONENT = 40
AUTO = "auto"
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def _rule(check: Callable[[Any], bool]) -> PlainValidator:
    """A validator that accepts a value unchanged if `check` is true. The description of the field is the message."""

    def validate(value: Any) -> Any:
        if not check(value):
            raise ValueError
        return value

    return PlainValidator(validate)


def _text(pattern: re.Pattern[str]) -> PlainValidator:
    return _rule(lambda value: type(value) is str and pattern.fullmatch(value) is not None)


def _decimal(value: Any) -> Any:
    """An integer as a decimal: TOML has two kinds of number, and people write 47 for 47.0."""
    return Decimal(value) if type(value) is int else value


def is_path(value: Any) -> bool:
    """Whether the value is a string that can be a path."""
    return type(value) is str and 0 < len(value) <= 4096 and "\0" not in value


def _resolve(value: Any, info: ValidationInfo) -> Path:
    if not is_path(value):
        raise ValueError
    assert info.context is not None  # every caller passes the folder
    path: Path = info.context["folder"] / value
    return path


def _resolve_all(value: Any, info: ValidationInfo) -> tuple[Path, ...]:
    """One path, or the paths of an array."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError
    return tuple(_resolve(one, info) for one in values)


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


def _host(value: Any) -> str:
    if type(value) is not str:
        raise ValueError
    if value != AUTO and (wrong := objection(value)):
        raise ValueError(wrong)
    return value


def _is_file_name(value: Any) -> bool:
    if type(value) is not str:
        return False
    segments = value.split("/")
    return len(segments) <= MAX_FILE_SEGMENTS and all(SEGMENT.fullmatch(segment) for segment in segments)


def _is_length(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        lifetime_of(value)
    except Invalid:
        return False
    return True


def _is_time(value: Any) -> bool:
    if type(value) is not datetime.datetime or value.tzinfo is None or value.microsecond:
        return False
    return 0 <= value.timestamp() <= TIME_MAX


_SEGMENT_RIGHT = "1 to 64 characters of a-z 0-9 . _ -, the first and the last a letter or digit"
_FILE_NAME_RIGHT = f"1 to {MAX_FILE_SEGMENTS} parts joined by /, each {_SEGMENT_RIGHT}"
_HOST_RIGHT = (
    f'"auto", or a class like "cpu-x86_64": components of the families {FAMILY_NAMES}, joined by + in ascending order'
)

Name: TypeAlias = Annotated[str, _text(SEGMENT), Field(description=_SEGMENT_RIGHT)]
Number: TypeAlias = Annotated[Decimal, BeforeValidator(_decimal)]
_LAT_RIGHT, _LON_RIGHT = "degrees from -90 to 90", "degrees from -180 to 180"
Latitude: TypeAlias = Annotated[Number, Field(ge=-90, le=90, description=_LAT_RIGHT)]
Longitude: TypeAlias = Annotated[Number, Field(ge=-180, le=180, description=_LON_RIGHT)]
Zoom: TypeAlias = Annotated[int, Field(ge=0, le=MAX_ZOOM, description=f"a whole number from 0 to {MAX_ZOOM}")]
Dim: TypeAlias = Annotated[int | str, _rule(_is_dim), Field(description='a whole number above 0, or a name like "N"')]
Count: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SIZE, description="a whole number above 0")]
Side: TypeAlias = Annotated[int, Field(ge=1, le=4096, description="a whole number of pixels from 1 to 4096")]
Source: TypeAlias = Annotated[
    Path, PlainValidator(_resolve), Field(description="the path of a file, relative to the folder of this one")
]
_SOURCES_RIGHT = "the path of a file or folder, relative to the folder of this file, or an array of paths of GeoTIFFs"
Sources: TypeAlias = Annotated[tuple[Path, ...], PlainValidator(_resolve_all), Field(description=_SOURCES_RIGHT)]
InputName: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=255, description="the name of an input, of 1 to 255 characters")
]
Channel: TypeAlias = Annotated[
    Number, Field(ge=-(10**6), le=10**6, decimal_places=6, description="a number with at most six decimals")
]
Divisor: TypeAlias = Annotated[
    Number, Field(gt=0, le=10**6, decimal_places=6, description="a number above 0 with at most six decimals")
]


_SCHEME_RIGHT = '"tms" if its rows count from the south, or "xyz" if they count from the north'
_METRES_RIGHT = "metres from 0.001, with at most three decimals"
_RATIO_RIGHT = "a number from 0 to 1 with at most six decimals"
Ratio: TypeAlias = Annotated[Number, Field(ge=0, le=1, decimal_places=6, description=_RATIO_RIGHT)]
Metres: TypeAlias = Annotated[
    Number,
    Field(
        ge=Decimal("0.001"), le=10**6, decimal_places=3, description="metres from 0.001, with at most three decimals"
    ),
]


_PLAN_RIGHT = "the path of a QGroundControl plan, a KML or KMZ file, or a MAVLink waypoint file"
_SELECT_RIGHT = 'the name of one feature or placemark, or of a plan "geofence" or "survey"'
Selected: TypeAlias = Annotated[str, Field(min_length=1, max_length=255, description=_SELECT_RIGHT)]


class Section(BaseModel):
    """A table of the mission file: frozen, strict, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Takeoff(Section):
    """The takeoff origin in degrees and metres, or the home position of a plan, whose height `alt_m` replaces."""

    lat: Annotated[Latitude | None, Field(description=_LAT_RIGHT)] = None
    lon: Annotated[Longitude | None, Field(description=_LON_RIGHT)] = None
    alt_m: Annotated[
        Number | None, Field(ge=MIN_ALT_M, le=MAX_ALT_M, description=f"metres from {MIN_ALT_M} to {MAX_ALT_M}")
    ] = None
    plan: Annotated[Source | None, Field(description=_PLAN_RIGHT)] = None
    select: Annotated[Selected | None, Field(description=_SELECT_RIGHT)] = None

    @model_validator(mode="after")
    def _one_way(self) -> Takeoff:
        keys = [key for key, value in self if value is not None]
        if "plan" in keys and "lat" not in keys and "lon" not in keys:
            return self
        if keys != ["lat", "lon", "alt_m"]:
            raise ValueError(f"has {' and '.join(keys) or 'nothing'}, must have lat, lon and alt_m, or plan")
        return self

    @property
    def exact(self) -> ExactTakeoff | None:
        """In 1e-7 degree and millimetres, each rounded half to even; None where a plan states it."""
        if self.lat is None or self.lon is None or self.alt_m is None:
            return None
        return ExactTakeoff(scaled(self.lat, 7), scaled(self.lon, 7), scaled(self.alt_m, 3))


_BBOX_RIGHT = "[west, south, east, north] with south below north; west and east differ, west above east crosses 180"


def _box(bbox: tuple[Decimal, ...]) -> tuple[Decimal, ...]:
    west, south, east, north = (scaled(value, 7) for value in bbox)
    # 180 and -180 are the same meridian: a box from the first to the second is empty.
    if south >= north or west == east or (west, east) == (180 * 10**7, -180 * 10**7):
        raise ValueError
    return bbox


Box: TypeAlias = Annotated[
    tuple[Longitude, Latitude, Longitude, Latitude], AfterValidator(_box), Field(strict=False, description=_BBOX_RIGHT)
]


class Area(Section):
    """The map area, given in one of four ways.

    `bbox` is west, south, east, north in degrees; with west above east it crosses the antimeridian. `geojson` is a file
    with polygons, `plan` a plan with a geofence or surveys, or a KML file. `corridor` is any such file with a line, and
    `width_m` the width of the area along it. `select` names the one thing of a file that is meant.
    """

    bbox: Annotated[Box | None, Field(description=_BBOX_RIGHT)] = None
    geojson: Annotated[Source | None, Field(description="the path of a GeoJSON file with polygons")] = None
    plan: Annotated[Source | None, Field(description=_PLAN_RIGHT)] = None
    corridor: Annotated[
        Source | None, Field(description="the path of a GeoJSON, KML, QGroundControl or waypoint file with a line")
    ] = None
    width_m: Annotated[
        Number | None,
        Field(ge=1, le=200_000, description="the whole width of the corridor in metres, from 1 to 200000"),
    ] = None
    select: Annotated[Selected | None, Field(description=_SELECT_RIGHT)] = None

    @model_validator(mode="after")
    def _one_way(self) -> Area:
        keys = [key for key, value in self if value is not None]
        of_file = keys[:-1] if keys[-1:] == ["select"] else keys
        if keys != ["bbox"] and of_file not in (["geojson"], ["plan"], ["corridor", "width_m"]):
            present = " and ".join(keys) or "nothing"
            raise ValueError(f"has {present}, must have bbox, or geojson, or plan, or corridor and width_m")
        return self

    @property
    def bbox_e7(self) -> tuple[int, int, int, int] | None:
        """West, south, east, north in 1e-7 degree, each rounded half to even; None unless the area is a box."""
        if self.bbox is None:
            return None
        west, south, east, north = (scaled(value, 7) for value in self.bbox)
        return west, south, east, north


AircraftId: TypeAlias = Annotated[
    str,
    _text(AIRCRAFT_ID),
    Field(description="1 to 64 characters of a-z 0-9 . _ -, the first a letter or digit"),
]


_LENGTH_RIGHT = 'a duration in quotes, such as "90m", "72h" or "14d"'
_TIME_RIGHT = "a time without quotes, in whole seconds and with its offset from UTC, such as 2026-12-01T12:00:00Z"
Length: TypeAlias = Annotated[str, _rule(_is_length), Field(description=_LENGTH_RIGHT)]
Time: TypeAlias = Annotated[datetime.datetime, _rule(_is_time), Field(description=_TIME_RIGHT)]


class Mission(Section):
    """The mission: its ids, its aircraft, its takeoff and its area, and its validity.

    The mission is valid from `valid_from` on, for `valid_for` or until `valid_until`. Without either the trust root's
    default counts; where that has none, the mission never expires.
    """

    id: Annotated[
        str, _text(MISSION_ID), Field(description="1 to 64 characters of a-z 0-9 -, the first a letter or digit")
    ]
    flight: Annotated[str, _text(FLIGHT_ID), Field(description="1 to 64 characters of A-Z a-z 0-9 . _ : -")]
    aircraft: Annotated[
        tuple[AircraftId, ...],
        AfterValidator(_unique),
        Field(strict=False, min_length=1, max_length=64, description="an array of 1 to 64 aircraft ids, none twice"),
    ]
    takeoff: Annotated[Takeoff, Field(description="a table with lat, lon and alt_m, or with plan")]
    area: Annotated[Area, Field(description="a table with bbox, or geojson, or plan, or corridor and width_m")]
    sector: Annotated[
        Literal["stable_rear", "active_conflict"], Field(description='"stable_rear" or "active_conflict"')
    ]
    takeoff_outside: Annotated[
        bool, Field(description="true for a takeoff outside the area, where the map shows nothing, or false")
    ] = False
    valid_from: Annotated[Time | None, Field(description=_TIME_RIGHT)] = None
    valid_until: Annotated[Time | None, Field(description=_TIME_RIGHT)] = None
    valid_for: Annotated[Length | None, Field(description=_LENGTH_RIGHT)] = None

    @model_validator(mode="after")
    def _one_end(self) -> Mission:
        if self.valid_for is not None and self.valid_until is not None:
            raise ValueError("has valid_for and valid_until, must have at most one of them")
        if self.valid_from is not None and self.valid_until is not None and self.valid_from > self.valid_until:
            raise ValueError(f"has valid_from {self.valid_from}, which is after valid_until {self.valid_until}")
        return self

    @property
    def start(self) -> int | None:
        """The first second of the validity, in unix seconds; None where it is valid at once."""
        return None if self.valid_from is None else int(self.valid_from.timestamp())

    @property
    def end(self) -> int | None:
        """The last second of the validity, in unix seconds; None where the file fixes none."""
        return None if self.valid_until is None else int(self.valid_until.timestamp())

    @property
    def length(self) -> int | None:
        """The length of the validity in seconds; None where the file gives none."""
        return None if self.valid_for is None else lifetime_of(self.valid_for)

    @property
    def aircraft_ids(self) -> tuple[str, ...]:
        """The aircraft in ascending order, as the manifest lists them."""
        return tuple(sorted(self.aircraft))


BackendName: TypeAlias = Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]
_BACKEND_RIGHT = '"onnxruntime", "tensorrt" or "tensorrt-rtx"'


class Target(Section):
    """A host class that the engines are compiled for. `backend` compiles them for it, in the place of those that the
    backbones name.

    `proof` says what becomes of an engine that no machine has held against the map: with "required" no mission has it,
    with "aboard" each aircraft proves it before its first flight.
    """

    host: Annotated[
        str,
        PlainValidator(_host),
        Field(description=_HOST_RIGHT),
    ]
    backend: Annotated[BackendName | None, Field(description=_BACKEND_RIGHT)] = None
    proof: Annotated[Literal["required", "aboard"], Field(description='"required" or "aboard"')] = "required"


_BANDS_RIGHT = "[red, green, blue] or [grey]: different numbers of bands, from 1"


def _colours(bands: tuple[int, ...]) -> tuple[int, ...]:
    if len(bands) not in (1, 3) or len(set(bands)) < len(bands):
        raise ValueError
    return bands


Bands: TypeAlias = Annotated[
    tuple[Annotated[int, Field(ge=1, le=65535, description=_BANDS_RIGHT)], ...],
    AfterValidator(_colours),
    Field(strict=False, description=_BANDS_RIGHT),
]


_STRETCH_RIGHT = "[low, high]: whole numbers from -32768 to 65535, low below high"


def _range(stretch: tuple[int, int]) -> tuple[int, int]:
    if stretch[0] >= stretch[1]:
        raise ValueError
    return stretch


Deep: TypeAlias = Annotated[int, Field(ge=-32768, le=65535, description=_STRETCH_RIGHT)]
Stretch: TypeAlias = Annotated[
    tuple[Deep, Deep], AfterValidator(_range), Field(strict=False, description=_STRETCH_RIGHT)
]


class Tiles(Section):
    """One tile source, the zooms that the mission uses of it, and its capture dates.

    Several rasters are one source: `source` is then an array, a folder, or a VRT.
    `captured` is the date of all imagery, except inside `footprints`, a GeoJSON file of dated polygons. `resolution_m`
    is the ground resolution of the imagery, if the tiles have finer pixels than their imagery. `scheme` is the order of
    the rows of an MBTiles file or a folder: from the south (`tms`) or from the north (`xyz`). `bands` are the bands of
    red, green and blue in a GeoTIFF, or the one of grey, if the file does not label them; no other band is a mask then.
    `stretch` are the values of 16 bits that become black and full brightness.
    """

    source: Sources
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
    footprints: Annotated[
        Source | None, Field(description="the path of a GeoJSON file with polygons that have a datetime")
    ] = None
    resolution_m: Annotated[Metres | None, Field(description=_METRES_RIGHT)] = None
    scheme: Annotated[Literal["tms", "xyz"] | None, Field(description=_SCHEME_RIGHT)] = None
    bands: Annotated[Bands | None, Field(description=_BANDS_RIGHT)] = None
    stretch: Annotated[Stretch | None, Field(description=_STRETCH_RIGHT)] = None


_VALUE_RIGHT = f"a number, true or false, or an array of 1 to {MAX_VALUES} of these"


def _values(value: Any) -> tuple[Decimal, ...]:
    """The numbers of a fixed input: TOML has integers, decimals and booleans."""
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MAX_VALUES or not all(type(one) in (int, bool, Decimal) for one in values):
        raise ValueError
    numbers = tuple(Decimal(one) for one in values)
    if not all(number.is_finite() and abs(number.adjusted()) < MAX_EXPONENT for number in numbers):
        raise ValueError
    return numbers


class Input(Section):
    """One input of a backbone. `min`, `opt` and `max` are the range of the symbol in `shape`, if it has one. An input
    with a `value` has it for every image: one number for all, or the numbers in the order of C, those of one image
    where the first dimension is a name."""

    shape: Annotated[
        tuple[Dim, ...],
        AfterValidator(_one_symbol),
        Field(
            strict=False,
            max_length=8,
            description="an array of 1 to 8 whole numbers above 0, of which one may be a name; where a model leaves "
            "more of them open, numbers stand for the others",
        ),
    ]
    value: Annotated[tuple[Decimal, ...] | None, PlainValidator(_values), Field(description=_VALUE_RIGHT)] = None
    min: Annotated[Count | None, Field(description="a whole number above 0")] = None
    opt: Annotated[Count | None, Field(description="a whole number above 0")] = None
    max: Annotated[Count | None, Field(description="a whole number above 0")] = None

    @property
    def symbol(self) -> str | None:
        """The name in `shape`, None if every dimension is fixed."""
        return next((dim for dim in self.shape if isinstance(dim, str)), None)

    @model_validator(mode="after")
    def _range(self) -> Input:
        limits = [value for value in (self.min, self.opt, self.max) if value is not None]
        if self.value is not None:
            self._check_value(limits)
            return self
        if not self.shape:
            raise ValueError("has an empty shape, which only an input with a value has")
        if self.symbol is None and limits:
            raise ValueError("has min, opt or max and a fixed shape; leave them out, or name a dimension in shape")
        if self.symbol is not None and (len(limits) != 3 or limits != sorted(limits)):
            values = ", ".join(f"{key} {value}" for key, value in self if key != "shape" and value is not None)
            raise ValueError(
                f"has {values or 'no range'} for {self.symbol!r}; give min, opt and max with min <= opt <= max"
            )
        return self

    def _check_value(self, limits: list[int]) -> None:
        assert self.value is not None
        sizes = self.shape[1:] if self.symbol is not None else self.shape
        if limits:
            raise ValueError(
                "has a value and min, opt or max; leave these out: the name in shape is that of the images"
            )
        if not all(isinstance(size, int) for size in sizes):
            raise ValueError(
                "has a value and a name in shape that is not the first; the first one stands for the images"
            )
        numbers = math.prod(size for size in sizes if isinstance(size, int))
        if numbers > MAX_FIXED:
            raise ValueError(f"has a value for {numbers} numbers, more than {MAX_FIXED}")
        if len(self.value) not in (1, numbers):
            raise ValueError(
                f"has {len(self.value)} numbers as value for a shape of {numbers}; give one, or all of them"
            )


class Calibration(Section):
    """The calibration of an int8 network: the number of tiles, evenly spread over the area, and the method."""

    tiles: Annotated[int, Field(ge=1, le=4096, description="a whole number of tiles from 1 to 4096")] = 64
    method: Annotated[
        Literal["minmax", "entropy", "percentile"], Field(description='"minmax", "entropy" or "percentile"')
    ] = "minmax"


class TensorRtRtx(Section):
    """The options of the backend "tensorrt-rtx". All of them are in the build key."""

    workspace_mib: Annotated[
        int, Field(ge=1, le=2**20, description="MiB of GPU memory that one layer may use while it runs, from 1")
    ] = 4096
    tactic_shared_memory_kib: Annotated[
        int, Field(ge=0, lt=2**20, description="KiB of shared memory per kernel, 0 for the limit of TensorRT")
    ] = 0


class TensorRt(TensorRtRtx):
    """The options of the backend "tensorrt", which has more. All of them are in the build key."""

    tactic_dram_mib: Annotated[
        int, Field(ge=0, le=2**20, description="MiB of memory for trying tactics, 0 for the limit of TensorRT")
    ] = 0
    optimisation_level: Annotated[int, Field(ge=0, le=5, description="a whole number from 0 to 5")] = 3
    compatibility: Annotated[
        Literal["none", "same_compute_capability", "ampere_plus"],
        Field(description='"none", "same_compute_capability" or "ampere_plus"'),
    ] = "none"
    version_compatible: Annotated[
        bool, Field(description="true for an engine that later versions of the same major load too, or false")
    ] = False
    plugins: Annotated[
        tuple[Source, ...], Field(strict=False, max_length=64, description="an array of paths of plug-in libraries")
    ] = ()


class Backbone(Section):
    """One network and its compilation. `salt` is in the build keys of everything that depends on the network, and has
    no other effect. `compare` names the outputs by which its engine is checked, by default all. `reference` holds
    inputs of the network, and what its author's framework made of them."""

    name: Name
    model: Source
    backend: Annotated[BackendName, Field(description=_BACKEND_RIGHT)]
    precision: Annotated[Literal["fp32", "fp16", "int8"], Field(description='"fp32", "fp16" or "int8"')]
    inputs: Annotated[
        Mapping[InputName, Annotated[Input, Field(description="a table with shape, and min, opt, max")]],
        Field(min_length=1, max_length=64, description="a table with each input's name and shape"),
    ]
    mode: Annotated[Literal["portable", "fast"] | None, Field(description='"portable" or "fast"')] = None
    salt: Annotated[str, Field(max_length=255, description="text of at most 255 characters")] = ""
    compare: Annotated[
        tuple[InputName, ...],
        AfterValidator(_unique),
        Field(strict=False, max_length=64, description="an array of names of outputs of the model, each once"),
    ] = ()
    reference: Annotated[Source | None, Field(description="the path of an .npz file with inputs and outputs")] = None
    calibration: Annotated[Calibration | None, Field(description="a table with tiles and method")] = None
    tensorrt: Annotated[TensorRt | None, Field(description="a table with options of TensorRT")] = None
    tensorrt_rtx: Annotated[TensorRtRtx | None, Field(description="a table with options of TensorRT for RTX")] = None


_CHANNELS_RIGHT = (
    "an array of three numbers with at most six decimals, one a channel, or of one for grey; those of std above 0"
)


class PreprocessKeys(Section):
    """The preprocessing that turns a tile into an input. All of these keys are in the build key."""

    resize: Annotated[tuple[Side, Side], Field(strict=False, description="[height, width] in pixels")]
    colour: Annotated[Literal["RGB", "BGR", "grey"], Field(description='"RGB", "BGR", or "grey" for one channel')]
    scale: Annotated[Literal["0..1", "0..255", "-1..1"], Field(description='"0..1", "0..255" or "-1..1"')]
    mean: Annotated[tuple[Channel, ...], Field(strict=False, max_length=3, description=_CHANNELS_RIGHT)] = ()
    std: Annotated[tuple[Divisor, ...], Field(strict=False, max_length=3, description=_CHANNELS_RIGHT)] = ()
    layout: Annotated[
        Literal["NCHW", "NHWC"] | None,
        Field(description='"NCHW" or "NHWC", or absent where the shape of the input tells'),
    ] = None
    filter: Annotated[
        Literal["nearest", "bilinear", "bicubic", "lanczos"],
        Field(description='"nearest", "bilinear", "bicubic" or "lanczos"'),
    ] = "bilinear"

    def layouts(self, shape: Sequence[int | str]) -> tuple[str, ...]:
        """Return the layouts that an input of this shape has with so many channels: one, none, or several where the
        shape does not tell. A dimension with a name fits where no other one has the number."""
        if len(shape) != len("NCHW"):
            return ()
        sizes = {layout: shape[layout.index("C")] for layout in ("NCHW", "NHWC")}
        exact = tuple(layout for layout, size in sizes.items() if size == self.channels)
        return exact or tuple(layout for layout, size in sizes.items() if isinstance(size, str))

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    @model_validator(mode="after")
    def _channels(self) -> PreprocessKeys:
        count = self.channels
        for key, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (0, count):
                right = "one number" if count == 1 else "three numbers"
                raise ValueError(f"has {len(numbers)} numbers as {key}; {self.colour} has {right}, one a channel")
        return self


class View(Section):
    """The view of a descriptor: a square of `tiles` by `tiles` tiles, one every `stride` tiles; or a square of `metres`
    on the ground, which shares the fraction `overlap` of its side with the next one."""

    tiles: Annotated[int | None, Field(ge=1, le=16, description="a whole number of tiles from 1 to 16")] = None
    stride: Annotated[int | None, Field(ge=1, le=16, description="a whole number of tiles from 1 to 16")] = None
    metres: Annotated[Metres | None, Field(description=_METRES_RIGHT)] = None
    overlap: Annotated[Number | None, Field(ge=0, lt=1, description="a number from 0, below 1")] = None

    @model_validator(mode="after")
    def _one_way(self) -> View:
        keys = [key for key, value in self if value is not None]
        if keys not in (["tiles", "stride"], ["metres", "overlap"]):
            present = " and ".join(keys) or "nothing"
            raise ValueError(f"has {present}, must have tiles and stride, or metres and overlap")
        if self.stride is not None and self.tiles is not None and self.stride > self.tiles:
            raise ValueError(f"has a stride of {self.stride}, which leaves gaps between views of {self.tiles} tiles")
        return self


_DEVICE_RIGHT = (
    'the name of an execution provider of ONNX Runtime in lower case, such as "cpu", "cuda", "tensorrt" or "openvino"'
)


class Descriptors(Section):
    """One descriptor set: a backbone and its output, the number format, the preprocessing, and the views. `pool` makes
    one row of the tokens of an image. `device` describes them; with `numeric` "any" the map counts as the same whatever
    device made it."""

    name: Name
    backbone: Annotated[str, Field(description="the name of one of the backbones")]
    output: Annotated[
        str, Field(min_length=1, max_length=255, description="the name of an output of the backbone's model")
    ]
    dtype: Annotated[Literal["float16", "float32"], Field(description='"float16" or "float32"')]
    preprocess: Annotated[PreprocessKeys, Field(description="a table with resize, colour and scale")]
    pool: Annotated[
        Literal["cls", "mean", "gem"] | None,
        Field(description='"cls", "mean" or "gem", for an output with tokens [N, T, d]'),
    ] = None
    normalise: Annotated[Literal["none", "l2"], Field(description='"none" or "l2"')] = "none"
    view: Annotated[View | None, Field(description="a table with tiles and stride, or metres and overlap")] = None
    device: Annotated[str, _text(re.compile(r"[a-z0-9]{1,32}")), Field(description=_DEVICE_RIGHT)] = "cpu"
    numeric: Annotated[Literal["exact", "any"], Field(description='"exact" or "any"')] = "exact"


class IndexKeys(Section):
    """An approximate index over a descriptor set, in addition to the exact search that every set has."""

    name: Name
    set: Annotated[str, Field(description="the name of one of the descriptor sets")]
    method: Annotated[Literal["ivf", "hnsw"], Field(description='"ivf" or "hnsw"')]


class CoverageKeys(Section):
    """The coverage policy: the fraction of tiles that the mission must describe (all by default), and their size and
    resolution. A tile with the bytes of another one, such as a placeholder of a server, is missing unless `repeated`
    allows it."""

    at_least: Annotated[Ratio, Field(description=_RATIO_RIGHT)] = Decimal(1)
    tile_size: Annotated[int, Field(ge=8, le=4096, description="a tile's pixels a side, from 8 to 4096")] = 256
    min_resolution_m: Annotated[Metres | None, Field(description=_METRES_RIGHT)] = None
    repeated: Annotated[Literal["refused", "allowed"], Field(description='"refused" or "allowed"')] = "refused"


class Freshness(Section):
    """The greatest age of imagery: when the mission is issued, and at takeoff."""

    max_age_days: Annotated[int, Field(ge=0, le=10**6, description="a whole number of days from 0")]


class Quality(Section):
    """How recall is measured before a mission is published, and the least recall that it may have: for each
    perturbation, and for imagery of another source; and the landmarks that must be found."""

    sample: Annotated[
        int, Field(ge=0, le=MAX_SAMPLE, description=f"a whole number of views of each zoom, from 0 to {MAX_SAMPLE}")
    ] = SAMPLE
    recall_at_1: Annotated[Ratio | None, Field(description=_RATIO_RIGHT)] = None
    recall_at_5: Annotated[Ratio | None, Field(description=_RATIO_RIGHT)] = None
    against: Annotated[Source | None, Field(description="the path of another tile source")] = None
    against_scheme: Annotated[Literal["tms", "xyz"] | None, Field(description=_SCHEME_RIGHT)] = None
    against_recall_at_1: Annotated[Ratio | None, Field(description=_RATIO_RIGHT)] = None
    against_recall_at_5: Annotated[Ratio | None, Field(description=_RATIO_RIGHT)] = None
    landmarks: Annotated[
        Source | None, Field(description="the path of a GeoJSON file of points with a property image")
    ] = None
    landmarks_within_m: Annotated[Metres | None, Field(description=_METRES_RIGHT)] = None

    @model_validator(mode="after")
    def _landmarks(self) -> Quality:
        if (self.landmarks is None) != (self.landmarks_within_m is None):
            raise ValueError("must have both or none of landmarks and landmarks_within_m")
        return self

    @model_validator(mode="after")
    def _against(self) -> Quality:
        values = (self.against, self.against_recall_at_1, self.against_recall_at_5)
        if any(value is None for value in values) and any(value is not None for value in values):
            raise ValueError("must have all or none of against, against_recall_at_1 and against_recall_at_5")
        bounds = (self.recall_at_1, self.recall_at_5, self.against)
        if not self.sample and any(value is not None for value in bounds):
            raise ValueError("has a sample of 0, so no recall is measured: must have a larger one, or no bounds")
        if self.against_scheme is not None and self.against is None:
            raise ValueError("has against_scheme and no against")
        return self


class File(Section):
    """A file that the build stores unchanged, as the entry files/<name>.

    A store is not encrypted, and a mission file may come from somebody else: a file that lies outside the folder of the
    mission file is stored only where `outside` says so.
    """

    name: Annotated[str, _rule(_is_file_name), Field(description=_FILE_NAME_RIGHT)]
    path: Source
    outside: Annotated[bool, Field(description="true for a file outside the folder of the mission file, or false")] = (
        False
    )


class Limits(Section):
    """The storage limit of the aircraft."""

    max_bytes: Annotated[
        int, Field(gt=0, le=INT_MAX, description="a whole number of bytes above 0, for all that the mission needs")
    ]


class Compile(Section):
    """The limits of the processes of a build: the memory of each, and the time of a compilation, or of other work that
    makes no progress. They are in no build key."""

    memory_mib: Annotated[
        int | None,
        Field(ge=512, le=2**24, description="a whole number of MiB from 512, or absent for the memory of the machine"),
    ] = None
    timeout_s: Annotated[int, Field(ge=1, le=7 * 86400, description="a whole number of seconds from 1")] = 4 * 3600


class Tolerances(Section):
    """The greatest error of an engine of one precision, against its source network, and the least share of the map's
    own views that it must find first."""

    relative_error: Annotated[
        Number, Field(ge=0, le=1, description="a fraction of the greatest value of the reference, from 0 to 1")
    ]
    cosine: Annotated[Number, Field(ge=0, le=1, description="a number from 0 to 1")]
    self_retrieval: Annotated[
        Number | None,
        Field(ge=0, le=1, description="a number from 0 to 1, the share of the map's views that the engine finds first"),
    ] = None


def one_or_more(value: Any) -> Any:
    """The value as an array of tables, if it is one table."""
    return [value] if isinstance(value, dict) else value


def _tables(of: str) -> str:
    return f"at least one table [[{of}]]"


class MissionFile(Section):
    """A mission file whose sections fit together. `load_mission` also checked that every path in it exists."""

    mission: Annotated[Mission, Field(description="a table [mission]")]
    target: Annotated[
        tuple[Target, ...],
        BeforeValidator(one_or_more),
        Field(
            strict=False,
            min_length=1,
            max_length=MAX_HOSTS,
            description=f"a table [target], or up to {MAX_HOSTS} tables [[target]]",
        ),
    ]
    tiles: Annotated[tuple[Tiles, ...], Field(strict=False, min_length=1, description=_tables("tiles"))]
    backbones: Annotated[tuple[Backbone, ...], Field(strict=False, min_length=1, description=_tables("backbones"))]
    descriptors: Annotated[
        tuple[Descriptors, ...], Field(strict=False, min_length=1, description=_tables("descriptors"))
    ]
    files: Annotated[tuple[File, ...], Field(strict=False, description="tables [[files]]")] = ()
    indexes: Annotated[tuple[IndexKeys, ...], Field(strict=False, description="tables [[indexes]]")] = ()
    coverage: Annotated[CoverageKeys, Field(description="a table [coverage]")] = CoverageKeys()
    freshness: Annotated[Freshness | None, Field(description="a table [freshness] with max_age_days")] = None
    quality: Annotated[Quality, Field(description="a table [quality]")] = Quality()
    limits: Annotated[Limits | None, Field(description="a table [limits] with max_bytes")] = None
    compile: Annotated[Compile, Field(description="a table [compile]")] = Compile()
    tolerances: Annotated[
        Mapping[
            Literal["fp32", "fp16", "int8"],
            Annotated[Tolerances, Field(description="a table with relative_error and cosine")],
        ],
        Field(description="tables [tolerances.fp32], [tolerances.fp16] or [tolerances.int8]"),
    ] = {}


def scaled(value: Decimal, places: int) -> int:
    """`value * 10**places` as an integer, rounded half to even; exact, however many digits are given."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # validated: neither infinite nor NaN
    return int(Decimal((sign, digits, exponent + places)).to_integral_value(ROUND_HALF_EVEN))
