"""Reads a mission file: TOML in, a frozen `MissionFile` and its area out, or one error that lists all problems.

Three passes add to one list of problems. The first checks the shape of the file and each value by itself (pydantic).
The second checks what ties sections together: names that must match, a takeoff inside the area. The third checks that
the files that the mission names exist. A section with a problem is left out of the later passes, so the error lists
each mistake once. Size and shape are bounded before the file is parsed, and numbers stay decimal: 47.0201 is exactly
470201000 units of 1e-7 degree.

Of the named files, only those of the area and the takeoff are read here, each once: `load_mission` returns both with
the mission.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, DecimalException
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from builders.files import MAX_MISSION_FILE, lies_in, read_regular
from builders.mission.schema import (
    MAX_ALT_M,
    MIN_ALT_M,
    Area,
    Backbone,
    File,
    Input,
    InputName,
    Mission,
    MissionFile,
    PreprocessKeys,
    Quality,
    Section,
    Takeoff,
    Target,
    is_path,
    one_or_more,
    scaled,
)
from store.disk.opening import nearest
from store.errors import FlightbagError, Invalid, Unavailable, either
from store.format.area import Area as ExactArea
from store.format.manifest import Takeoff as ExactTakeoff
from store.format.toml import TomlError, parse_toml

if TYPE_CHECKING:
    from builders.areas.geometry import GeometryFile

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MAX_TEXT = 80
_MAX_PROBLEMS = 100

Key: TypeAlias = tuple[str | int, ...]
Model = TypeVar("Model", bound=Section)
At = TypeVar("At")


class LoadedMission(NamedTuple):
    """A checked mission file, with its area and its takeoff as the manifest holds them. `notes` say what was passed
    over in the files of the two."""

    file: MissionFile
    area: ExactArea
    takeoff: ExactTakeoff
    notes: tuple[str, ...]


def load_mission(path: Path, stated: Callable[[MissionFile], None] = lambda _file: None) -> LoadedMission:
    """The mission file at `path`, complete and checked, with its area and its takeoff. `stated` gets the mission before
    any file that it names is opened, if each of its values is right by itself.

    Raises Invalid with one line for each problem (`file: key is value, must be ...`), which are its `problems` too, or
    with line and column if the file is not TOML. Raises Unavailable if the system cannot read the file, or cannot look
    up or read a file that it names; its `problems` are those files.
    """
    data = _parse(path, read_regular(path, MAX_MISSION_FILE, "mission file"))
    report = _Report(path, data)
    folder = Path(os.path.abspath(path)).parent
    mission: MissionFile | None = None
    try:
        mission = MissionFile.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        report.add_validation(error)
    if mission is not None:
        stated(mission)
    sections = _Sections(data, folder)
    drawings = _Drawings()
    area, takeoff = _check_area(sections, report, drawings)
    _check_names(sections, report)
    _check_targets(sections, report)
    _check_backbones(sections, report)
    _check_layouts(sections, report)
    _check_paths(sections, report)
    report.finish()
    assert mission is not None  # otherwise the report has problems
    assert area is not None
    assert takeoff is not None
    return LoadedMission(mission, area, takeoff, drawings.notes)


def mission_of(path: Path, data: bytes) -> Mission:
    """The section `mission` of the bytes of a mission file, `path` in messages. Opens nothing. Raises Invalid."""
    section = _Sections(_parse(path, data), Path(os.path.abspath(path)).parent).section(Mission, "mission")
    if section is None:
        raise Invalid(f"{path}: mission is missing or wrong", remedy="correct the file", path=str(path))
    return section


def targets_of(path: Path, data: bytes) -> tuple[Target, ...]:
    """The targets of the bytes of a mission file, `path` in messages. Opens nothing. Raises Invalid."""
    tables = one_or_more(_parse(path, data).get("target"))
    try:
        return tuple(Target.model_validate(table) for table in tables)
    except (ValidationError, TypeError):
        raise Invalid(f"{path}: target is missing or wrong", remedy="correct the file", path=str(path)) from None


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    """The TOML tables of `data`. Raises Invalid, with line and column."""
    try:
        return parse_toml(data, _parse_float)
    except TomlError as error:
        raise Invalid(
            f"{path}: {error}",
            remedy="correct the file there",
            path=str(path),
            line=error.line,
            column=error.column,
            reason=error.reason,
        ) from None


def _parse_float(text: str) -> Decimal:
    try:
        return Decimal(text)
    except DecimalException:
        raise ValueError(text) from None


@dataclass
class _Report:
    """Collects the problems of a mission file, in the order of the checks."""

    path: Path
    data: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def add(self, key: Key, predicate: str) -> None:
        """Adds a problem at `key`; `predicate` completes the sentence that the key begins."""
        self.problems.append(f"{self.path}: {toml_key(self._written(key))} {predicate}")

    def add_wrong(self, key: Key, expected: str) -> None:
        """Adds that the value at `key` is wrong; `expected` completes 'must be'."""
        self.add(key, f"is {_toml_text(_value_at(self.data, self._written(key)))}, must be {expected}")

    def _written(self, key: Key) -> Key:
        """The key as the file has it: a table [target] has no number."""
        lone = key[:2] == ("target", 0) and isinstance(self.data["target"], dict)
        return ("target", *key[2:]) if lone else key

    def add_validation(self, error: ValidationError) -> None:
        """Adds each problem that pydantic reports, in the words of the schema's descriptions."""
        for item in error.errors(include_url=False, include_input=False):
            # Pydantic marks a wrong name in a table with "[key]"; the part before the mark is the name.
            is_name = item["loc"][-1:] == ("[key]",)
            key = item["loc"][:-1] if is_name else item["loc"]
            model, expected = _expected_at(key[:-1]) if is_name else _expected_at(key)
            details = item.get("ctx", {})
            if item["type"] == "too_short" and len(_value_at(self.data, key)) >= details["min_length"]:
                continue  # pydantic counts right elements only; each wrong one is a problem of its own
            own_words = str(details.get("error", "")) if item["type"] == "value_error" else ""
            if is_name:
                # A model may give an input any name; the names in other tables are a closed list.
                names = get_args(InputName)[1].description if "inputs" in key else expected
                self.add(key, f"is not a valid name, must be {names}")
            elif item["type"] == "extra_forbidden":
                self._add_unknown(key)
            elif item["type"] == "missing":
                self.add(key, f"is missing, must be {expected}")
            elif model is not None and own_words:
                self.add(key, own_words)
            else:
                self.add_wrong(key, f"{expected}; {own_words}" if own_words else expected)

    def _add_unknown(self, key: Key) -> None:
        model, _ = _expected_at(key[:-1])
        assert model is not None  # only tables have unknown keys
        word = str(key[-1])
        if near := _nearest(word, model.model_fields):
            self.add(key, f"is not a known key, did you mean {near!r}?")
        elif tables := [name for name, table in _tables() if word in table.model_fields]:
            self.add(key, f"is not a known key, {' and '.join(tables)} has it")
        else:
            self.add(key, f"is not a known key, known: {', '.join(model.model_fields)}")

    def add_unreadable(self, key: Key, sentence: str) -> None:
        """Adds that the system cannot look up or read the file that `key` names."""
        self.unreadable.append(f"{self.path}: {toml_key(key)}: {sentence}")

    def finish(self) -> None:
        """Raises Invalid if there are problems, else Unavailable if a named file cannot be read."""
        if self.problems:
            listed = self.problems[:_MAX_PROBLEMS]
            if more := len(self.problems) - len(listed):
                listed.append(f"{self.path}: {more} more problems are not listed")
            remedy = "correct the file; `flightbag new` writes one in which every key is explained"
            raise Invalid("\n".join(listed), remedy=remedy, path=str(self.path), problems=tuple(listed))
        if self.unreadable:
            remedy = "check who may read the file, and that its medium is mounted"
            raise Unavailable(
                "\n".join(self.unreadable), remedy=remedy, path=str(self.path), problems=tuple(self.unreadable)
            )


def _nearest(word: str, known: Iterable[str]) -> str | None:
    """The known key that a word is probably meant to be: spelled in another way, cut, continued, or mistyped."""

    def plain(key: str) -> str:
        return re.sub(r"(?<=[a-z])(?=[A-Z])|[-. ]", "_", key).lower()

    by_plain = {plain(key): key for key in known}
    wanted = plain(word)
    near = difflib.get_close_matches(wanted, by_plain, n=1)
    near = near or [one for one in by_plain if wanted.startswith(one) or (len(wanted) > 2 and one.startswith(wanted))]
    return by_plain[near[0]] if near else None


def _tables() -> Iterator[tuple[str, type[Section]]]:
    """Every table of a mission file at its top, and those of [mission], by the way it is written."""
    for model, prefix in ((MissionFile, ""), (Mission, "mission.")):
        for name, model_field in model.model_fields.items():
            kind = _required(model_field.annotation)
            element = _element(kind, 0)[0] if get_origin(kind) is tuple else kind
            if isinstance(element, type) and issubclass(element, Section):
                yield (f"[[{name}]]" if element is not kind else f"[{prefix}{name}]"), element


def _expected_at(key: Key) -> tuple[type[Section] | None, str]:
    """(the section at `key`, None for a value; the schema's description of a right value there)."""
    kind: Any = MissionFile
    description = ""
    for part in key:
        if isinstance(kind, type) and issubclass(kind, Section):
            if part not in kind.model_fields:
                return None, ""
            model_field = kind.model_fields[str(part)]
            kind, description = _required(model_field.annotation), model_field.description or ""
        else:
            kind, inner = _element(kind, part)
            description = inner or description
    return (kind if isinstance(kind, type) and issubclass(kind, Section) else None), description


def _required(kind: Any) -> Any:
    """The type of an optional field's value, without None."""
    if get_origin(kind) in (Union, UnionType):  # typing gives either, depending on the members
        kind = next((member for member in get_args(kind) if member is not NoneType), kind)
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _element(kind: Any, part: str | int) -> tuple[Any, str]:
    """(type, description) of the element `part` of an array or a table with the annotation `kind`."""
    arguments = get_args(kind)
    if get_origin(kind) is not tuple:
        element = arguments[-1]  # a table: key, value
    elif Ellipsis in arguments:
        element = arguments[0]
    else:
        element = arguments[int(part)]
    if get_origin(element) is not Annotated:
        return element, ""
    inner, *metadata = get_args(element)
    described = [item.description for item in metadata if isinstance(item, FieldInfo) and item.description]
    return inner, described[-1] if described else ""


class _Sections:
    """The sections and values of a mission file that are right by themselves, whatever is wrong beside them."""

    def __init__(self, data: Mapping[str, Any], folder: Path) -> None:
        self._data = {**data, "target": one_or_more(data.get("target"))}
        self._context = {"folder": folder}

    def section(self, model: type[Model], *key: str | int) -> Model | None:
        """The section at `key`, None if it is absent or wrong."""
        try:
            return model.model_validate(_value_at(self._data, key), context=self._context)
        except (ValidationError, LookupError, TypeError):
            return None

    def flag(self, *key: str | int) -> bool:
        """Whether the value at `key` is true."""
        try:
            return _value_at(self._data, key) is True
        except (LookupError, TypeError):
            return False

    def column(self, table: str, key: str) -> dict[int, str]:
        """The strings at `table[i].key`, by the index i."""
        tables = self._data.get(table)
        rows = enumerate(tables if isinstance(tables, list) else [])
        return {i: row[key] for i, row in rows if isinstance(row, dict) and isinstance(row.get(key), str)}

    def paths(self, table: str, key: str) -> dict[int, Path]:
        """The absolute paths at `table[i].key`, by the index i."""
        folder = self._context["folder"]
        return {i: folder / text for i, text in self.column(table, key).items() if is_path(text)}

    def sources(self) -> list[tuple[Key, Path]]:
        """The key and the absolute path of each tile source, and of each raster of one that is an array."""
        tables = self._data.get("tiles")
        rows = enumerate(tables if isinstance(tables, list) else [])
        values: list[tuple[Key, Any]] = []
        for i, source in ((i, row.get("source")) for i, row in rows if isinstance(row, dict)):
            key: Key = ("tiles", i, "source")
            values += (
                [((*key, n), one) for n, one in enumerate(source)] if isinstance(source, list) else [(key, source)]
            )
        return [(key, self._context["folder"] / value) for key, value in values if is_path(value)]


class _Drawings:
    """The files of the area and the takeoff. Each is read once: both may name the same one."""

    def __init__(self) -> None:
        self._open: dict[Path, GeometryFile] = {}
        self._notes: list[str] = []

    def open(self, path: Path) -> GeometryFile:
        # Boxes do without the geometry library.
        from builders.areas.drawing import open_drawing

        if path not in self._open:
            self._open[path] = open_drawing(path)
        return self._open[path]

    def note(self, text: str) -> None:
        self._notes.append(text)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*(note for file in self._open.values() for note in file.notes), *self._notes)


def _check_area(
    sections: _Sections, report: _Report, drawings: _Drawings
) -> tuple[ExactArea | None, ExactTakeoff | None]:
    """The area and the takeoff, each None if it has a problem. Checks that the takeoff is in the area, or is said to be
    outside."""
    area = sections.section(Area, "mission", "area")
    takeoff = sections.section(Takeoff, "mission", "takeoff")
    exact_area = exact_takeoff = None
    with _about(report, ("mission", "area")):
        exact_area = _exact_area(area, drawings) if area else None
    with _about(report, ("mission", "takeoff")):
        exact_takeoff = _exact_takeoff(takeoff, drawings) if takeoff else None
    if area and exact_area and exact_takeoff:
        inside = exact_area.contains(exact_takeoff.lat, exact_takeoff.lon)
        outside = sections.flag("mission", "takeoff_outside")
        if outside and inside:
            report.add(("mission", "takeoff_outside"), "is true, and the takeoff is inside mission.area: leave it out")
        elif not outside and not inside:
            where = f"mission.area.bbox [{', '.join(map(str, area.bbox))}]" if area.bbox else "mission.area"
            lat, lon = (Decimal(value).scaleb(-7).normalize() for value in (exact_takeoff.lat, exact_takeoff.lon))
            away = exact_area.distance_m(exact_takeoff.lat, exact_takeoff.lon)
            report.add(
                ("mission", "takeoff"),
                f"is at lat {lat:f}, lon {lon:f}, must be inside {where}: it is about {away:.0f} m outside; if the "
                "aircraft can do without the map up to there, set takeoff_outside = true in [mission]",
            )
    return exact_area, exact_takeoff


@contextmanager
def _about(report: _Report, key: Key) -> Iterator[None]:
    """Adds what the block raises as a problem of `key`."""
    try:
        yield
    except Unavailable as error:
        report.add_unreadable(key, error.message)
    except FlightbagError as error:
        report.add(key, f"cannot be used: {error}")


def _exact_area(area: Area, drawings: _Drawings) -> ExactArea:
    """The area as the manifest holds it. Reads the file that the section names, if it names one: raises Invalid if that
    file has no area, Unavailable if the system cannot read it."""
    if area.bbox_e7 is not None:
        return ExactArea(area.bbox_e7)
    path = area.geojson or area.plan or area.corridor
    assert path is not None
    file = drawings.open(path)
    if area.corridor is not None:
        from builders.areas.corridor import read_corridor

        assert area.width_m is not None
        return read_corridor(file, area.width_m, area.select)
    from builders.areas.drawing import read_area, require_kind

    key, other = ("geojson", "plan") if area.geojson is not None else ("plan", "geojson")
    require_kind(file, key, f"write {other} for {key}")
    return read_area(file, area.select)


def _exact_takeoff(takeoff: Takeoff, drawings: _Drawings) -> ExactTakeoff:
    """The takeoff as the manifest holds it; raises as `_exact_area`."""
    if takeoff.exact is not None:
        return takeoff.exact
    assert takeoff.plan is not None
    file = drawings.open(takeoff.plan)
    home = file.home(takeoff.select)
    altitude = takeoff.alt_m if takeoff.alt_m is not None else home.altitude
    if altitude is None:
        file.refuse("", "states no height above sea level for the takeoff", "add alt_m to takeoff")
    if not MIN_ALT_M <= altitude <= MAX_ALT_M:
        file.refuse(
            "",
            f"has a takeoff at {altitude} m, must be {MIN_ALT_M} to {MAX_ALT_M} m",
            "set home again in the plan, or add the right alt_m to takeoff",
        )
    if takeoff.alt_m is not None and home.altitude is not None and scaled(home.altitude, 3) != scaled(altitude, 3):
        drawings.note(f"{takeoff.plan}: home is at {home.altitude} m there, alt_m says {altitude} m, which counts")
    return ExactTakeoff(home.lat, home.lon, scaled(altitude, 3))


def _check_names(sections: _Sections, report: _Report) -> None:
    """Checks that no name repeats, no file lies in another, and every name that refers to a table exists."""
    for table in ("backbones", "descriptors", "files", "indexes"):
        for i, first in _repeated(sections.column(table, "name")):
            report.add_wrong((table, i, "name"), f"another name than that of {table}[{first}]")
    files = {name: i for i, name in sections.column("files", "name").items()}
    for name, i in files.items():
        for end in (at for at, letter in enumerate(name) if letter == "/"):
            if (outer := name[:end]) in files:
                report.add_wrong(("files", i, "name"), f"outside {outer!r}, which is the file files[{files[outer]}]")
    for table, key, target, what in (
        ("descriptors", "backbone", "backbones", "backbones"),
        ("indexes", "set", "descriptors", "descriptor sets"),
    ):
        names = list(sections.column(target, "name").values())
        for i, name in sections.column(table, key).items():
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1) or names
                report.add_wrong(
                    (table, i, key), f"the name of one of the {what}" + (f", such as {near[0]!r}" if near else "")
                )


def _check_targets(sections: _Sections, report: _Report) -> None:
    """Checks that no two targets are one class, and that each backend of a target has the precision of each
    backbone."""
    for i, first in _repeated(sections.column("target", "host")):
        report.add_wrong(("target", i, "host"), f"another class than that of target[{first}]")
    own = sections.column("backbones", "backend")
    for i, backend in sections.column("target", "backend").items():
        for at, precision in sections.column("backbones", "precision").items():
            if backend == "onnxruntime" != own.get(at) and precision == "fp16":
                others = '"tensorrt" or "tensorrt-rtx"'
                expected = f'{others}: backbones[{at}] is in fp16, which "onnxruntime" does not have on a CPU'
                report.add_wrong(("target", i, "backend"), expected)


def _backends_of(own: str, sections: _Sections) -> set[str]:
    """The backends that compile a backbone for the targets, if its own is this one."""
    targets = sections.column("target", "host")
    return {sections.column("target", "backend").get(i, own) for i in targets} or {own}


def _check_backbones(sections: _Sections, report: _Report) -> None:
    """Checks that each backbone has a precision and options of its backend, and one range for each symbol."""
    precisions = sections.column("backbones", "precision")
    for i, backend in sections.column("backbones", "backend").items():
        own = backend in _backends_of(backend, sections)
        if own and backend == "onnxruntime" and precisions.get(i) == "fp16":
            expected = '"fp32" or "int8": the backend "onnxruntime" has no other precision on a CPU'
            report.add_wrong(("backbones", i, "precision"), expected)
        backbone = sections.section(Backbone, "backbones", i)
        if backbone is not None:
            _check_options(backbone, i, sections, report)
        first_input: dict[str, tuple[str, Input]] = {}
        if backbone is not None and all(spec.value is not None for spec in backbone.inputs.values()):
            report.add(("backbones", i, "inputs"), "has a value for each input, must leave out that of the images")
        for name, spec in backbone.inputs.items() if backbone else ():
            if spec.symbol is None or spec.value is not None:
                continue
            other_name, other = first_input.setdefault(spec.symbol, (name, spec))
            if (spec.min, spec.opt, spec.max) != (other.min, other.opt, other.max):
                report.add(
                    ("backbones", i, "inputs", name),
                    f"gives {spec.symbol!r} another range than {other_name!r} does, must be the same",
                )


def _check_options(backbone: Backbone, i: int, sections: _Sections, report: _Report) -> None:
    """Checks that a backbone has only options of its backends and precision, and that int8 can be calibrated."""
    backends = _backends_of(backbone.backend, sections)
    for key, option, applies in (
        ("mode", backbone.mode, "onnxruntime" in backends),
        ("tensorrt", backbone.tensorrt, "tensorrt" in backends),
        ("tensorrt_rtx", backbone.tensorrt_rtx, "tensorrt-rtx" in backends),
        ("calibration", backbone.calibration, backbone.precision == "int8"),
    ):
        if option is not None and not applies:
            named = either(sorted(backends))
            report.add(("backbones", i, key), f"means nothing for {named} and {backbone.precision}")
    if backbone.precision == "int8" and backbone.name not in sections.column("descriptors", "backbone").values():
        report.add(
            ("backbones", i, "precision"),
            'is "int8", which is calibrated with the tiles of a descriptor set: no descriptor set has this backbone',
        )


def _check_layouts(sections: _Sections, report: _Report) -> None:
    """Checks that the images of each descriptor set have the layout and channels of the one input that takes them."""
    backbones = sections.column("backbones", "name")
    for i, name in sections.column("descriptors", "backbone").items():
        keys = sections.section(PreprocessKeys, "descriptors", i, "preprocess")
        at = next((at for at, other in backbones.items() if other == name), None)
        backbone = sections.section(Backbone, "backbones", at) if at is not None else None
        if keys is None or backbone is None:
            continue
        shapes = [spec.shape for spec in backbone.inputs.values() if spec.value is None]
        if len(shapes) != 1 or len(shapes[0]) != len("NCHW"):
            continue  # the network itself is asked, and says what it takes
        layouts = keys.layouts(shapes[0])
        key = ("descriptors", i, "preprocess")
        if not layouts:
            other = "RGB" if keys.colour == "grey" else "grey"
            hint = (
                f', or set colour = "{other}"' if keys.model_copy(update={"colour": other}).layouts(shapes[0]) else ""
            )
            report.add(
                (*key, "colour"),
                f'is "{keys.colour}" and the input of {name} has the shape {_toml_text(list(shapes[0]))}, must be the '
                f"channels of one of its dimensions{hint}",
            )
        elif keys.layout is None and len(layouts) > 1:
            report.add((*key, "layout"), f"is missing, must be one of {' and '.join(layouts)}: the shape fits both")
        elif keys.layout is not None and keys.layout not in layouts:
            report.add_wrong((*key, "layout"), f'"{layouts[0]}", as the shape {_toml_text(list(shapes[0]))} has it')


def _check_paths(sections: _Sections, report: _Report) -> None:
    """Checks that every path names a regular file, or a folder of tiles, that no file to be stored lies outside the
    folder of the mission file unless it says so, and that no tile source is listed twice."""
    paths: list[tuple[Key, Path]] = sections.sources() + [
        ((table, i, name), path)
        for table, name in (
            ("tiles", "footprints"),
            ("backbones", "model"),
            ("backbones", "reference"),
            ("files", "path"),
        )
        for i, path in sections.paths(table, name).items()
    ]
    quality = sections.section(Quality, "quality")
    if quality is not None and quality.against is not None:
        paths.append((("quality", "against"), quality.against))
    if quality is not None and quality.landmarks is not None:
        paths.append((("quality", "landmarks"), quality.landmarks))
    for key, path in paths:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                near = nearest(path)
                meant = f", did you mean {os.path.basename(near)}?" if near else ""
                report.add_wrong(key, f"the path of a file; {path} does not exist{meant}")
            else:
                report.add_unreadable(key, f"{path} cannot be read: {error.strerror}")
            continue
        # A tile source may be a folder of tiles z/x/y.
        if not stat.S_ISREG(mode) and not (stat.S_ISDIR(mode) and {"source", "against"} & set(key)):
            what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            report.add_wrong(key, f"the path of a file; {path} is {what}")
    for i, path in sections.paths("files", "path").items():
        file = sections.section(File, "files", i)
        if file is not None and not file.outside and not lies_in(path, report.path.absolute().parent):
            report.add_wrong(
                ("files", i, "path"),
                f"in the folder of the mission file; {os.path.realpath(path)} is outside: copy it into the folder, or, "
                "if everybody who gets the store may read it, add outside = true",
            )
    for key, first in _repeated({key: os.path.realpath(path) for key, path in sections.sources()}):
        report.add_wrong(key, f"another file than that of {toml_key(first if len(first) > 3 else first[:2])}")


def _repeated(values: Mapping[At, str]) -> Iterator[tuple[At, At]]:
    """(index, index of the first one) of each value that repeats an earlier one."""
    first: dict[str, At] = {}
    for i, value in values.items():
        if first.setdefault(value, i) != i:
            yield i, first[value]


def toml_key(key: Iterable[str | int]) -> str:
    """A key path as TOML writes it, such as `tiles[0].zooms[1]`; parts that cannot be bare keys are quoted."""
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


def _toml_text(value: Any) -> str:
    """The value as TOML writes it, cut at 80 characters; nested arrays and tables become `...`."""
    if isinstance(value, list):
        items = ("..." if isinstance(item, list | dict) else _toml_text(item) for item in value[:16])
        text = "[" + ", ".join(items) + "]"
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, str | bool):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
