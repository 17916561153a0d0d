"""Reading a mission file: TOML in, a frozen `MissionFile` out, or one error that lists everything wrong with it.

Three passes, each adding to one list of problems: the shape of the file and each value by itself (pydantic),
then what ties sections together (names that meet, a takeoff inside the area), then the files that it names.
A part that is wrong takes no part in the later passes, so one mistake is told once. Sizes are bounded before
anything is parsed, and numbers stay decimal, so 47.0201 is exactly 470201000 units of 1e-7 degree.

That the files exist is checked here; what is in them is not.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, DecimalException
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from builders.files import read_regular
from builders.mission.schema import Area, Backbone, Input, InputName, MissionFile, Quality, Section, Takeoff, is_path
from store.errors import FlightbagError, Invalid, Unavailable
from store.format.area import Area as ExactArea

MAX_BYTES = 2**20
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_POSITION = re.compile(r"\(at line (\d+), column (\d+)\)\Z")
_SHOWN = 80

Key: TypeAlias = tuple[str | int, ...]
Model = TypeVar("Model", bound=Section)


def load_mission(path: Path) -> MissionFile:
    """The mission file at `path`, complete and checked.

    Raises Invalid with every problem on a line of its own (`file: key is value, must be ...`; the same in
    `problems`), or with line and column where the file is no TOML. Raises Unavailable where the
    file, or one that it names, could not be looked at.
    """
    data = _parse(path, read_regular(path, MAX_BYTES, "mission file"))
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
                # Inputs are called as the model calls them; the names of other tables are a closed list.
                names = get_args(InputName)[1].description if "inputs" in key else right
                self.add(key, f"is no name, must be {names}")
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


def _right(key: Key) -> tuple[type[Section] | None, str]:
    """(the section at `key`, or None where it is a value; what its description says that would be right)."""
    kind: Any = MissionFile
    description = ""
    for part in key:
        if isinstance(kind, type) and issubclass(kind, Section):
            if part not in kind.model_fields:
                return None, ""
            known = kind.model_fields[str(part)]
            kind, description = _present(known.annotation), known.description or ""
        else:
            kind, inner = _element(kind, part)
            description = inner or description
    return (kind if isinstance(kind, type) and issubclass(kind, Section) else None), description


def _present(kind: Any) -> Any:
    """What an optional field holds where it is there."""
    if get_origin(kind) in (Union, UnionType):  # which of the two depends on what is in it
        kind = next((one for one in get_args(kind) if one is not NoneType), kind)
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


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
        return {i: folder / text for i, text in self.column(table, key).items() if is_path(text)}


def _check_takeoff(parts: _Parts, report: _Report) -> None:
    takeoff = parts.section(Takeoff, "mission", "takeoff")
    area = parts.section(Area, "mission", "area")
    if area is None:
        return
    try:
        exact = exact_area(area)
    except Unavailable as error:
        report.add_unreadable(("mission", "area"), error.message)
    except FlightbagError as error:
        report.add(
            ("mission", "area"), f"does not serve: {error.message}" + (f"; {error.remedy}" if error.remedy else "")
        )
    else:
        if takeoff and not exact.contains(takeoff.lat_e7, takeoff.lon_e7):
            where = f"mission.area.bbox [{', '.join(map(str, area.bbox))}]" if area.bbox else "mission.area"
            report.add(("mission", "takeoff"), f"is at lat {takeoff.lat}, lon {takeoff.lon}, must be inside {where}")


def exact_area(area: Area) -> ExactArea:
    """The area as the manifest has it. Raises Invalid for a file that holds none, Unavailable for one that cannot be
    read."""
    if area.bbox_e7 is not None:
        return ExactArea(area.bbox_e7)
    # Only areas that are no box need the geometry library.
    from builders.areas.corridor import read_corridor
    from builders.areas.geojson import read_geojson_area

    if area.geojson is not None:
        return read_geojson_area(area.geojson)
    assert area.corridor is not None
    assert area.width_m is not None
    return read_corridor(area.corridor, area.width_m)


def _check_names(parts: _Parts, report: _Report) -> None:
    for table in ("backbones", "descriptors", "files", "indexes"):
        for i, first in _repeated(parts.column(table, "name")):
            report.add_wrong((table, i, "name"), f"another name than that of {table}[{first}]")
    files = {name: i for i, name in parts.column("files", "name").items()}
    for name, i in files.items():
        for end in (at for at, letter in enumerate(name) if letter == "/"):
            if (outer := name[:end]) in files:
                report.add_wrong(("files", i, "name"), f"outside {outer!r}, which files[{files[outer]}] makes a file")
    for table, key, named, what in (
        ("descriptors", "backbone", "backbones", "backbones"),
        ("indexes", "set", "descriptors", "descriptor sets"),
    ):
        known = list(parts.column(named, "name").values())
        for i, name in parts.column(table, key).items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1) or known
                report.add_wrong(
                    (table, i, key), f"the name of one of the {what}" + (f", such as {near[0]!r}" if near else "")
                )


def _check_backbones(parts: _Parts, report: _Report) -> None:
    precisions = parts.column("backbones", "precision")
    for i, backend in parts.column("backbones", "backend").items():
        if backend == "onnxruntime" and precisions.get(i) == "fp16":
            right = '"fp32" or "int8": the backend "onnxruntime" has no more on a CPU'
            report.add_wrong(("backbones", i, "precision"), right)
        backbone = parts.section(Backbone, "backbones", i)
        if backbone is not None:
            _check_options(backbone, i, parts, report)
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


def _check_options(backbone: Backbone, i: int, parts: _Parts, report: _Report) -> None:
    """Options are given where they mean something, and int8 has something to be calibrated with."""
    for key, given, has_it in (
        ("mode", backbone.mode, backbone.backend == "onnxruntime"),
        ("tensorrt", backbone.tensorrt, backbone.backend == "tensorrt"),
        ("calibration", backbone.calibration, backbone.precision == "int8"),
    ):
        if given is not None and not has_it:
            report.add(("backbones", i, key), f"means nothing for {backbone.backend} and {backbone.precision}")
    if backbone.precision == "int8" and backbone.name not in parts.column("descriptors", "backbone").values():
        report.add(
            ("backbones", i, "precision"),
            'is "int8", which is calibrated with tiles as a descriptor set takes them: no descriptor set has this '
            "backbone",
        )


def _check_paths(parts: _Parts, report: _Report) -> None:
    """Every path names a regular file, or a folder of tiles, and no tile source is listed twice."""
    named: list[tuple[Key, Path]] = [
        ((table, i, name), path)
        for table, name in (("tiles", "source"), ("tiles", "footprints"), ("backbones", "model"), ("files", "path"))
        for i, path in parts.paths(table, name).items()
    ]
    quality = parts.section(Quality, "quality")
    if quality is not None and quality.against is not None:
        named.append((("quality", "against"), quality.against))
    for key, path in named:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                report.add_wrong(key, f"the path of a file; there is no {path}")
            else:
                report.add_unreadable(key, f"{path} cannot be read: {error.strerror}")
            continue
        # Tiles may lie in a folder, as z/x/y.
        if not stat.S_ISREG(mode) and not (stat.S_ISDIR(mode) and key[-1] in ("source", "against")):
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
