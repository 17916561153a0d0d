"""A new mission file from a tile source and a model: read in the confined process, written once, never over another."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

from builders import confinement
from builders.confinement import Progress
from builders.imagery.roworder import SourcePath
from builders.inspection import Inspected
from builders.mission.template import Facts, template
from store.disk.durable import Disk, write_new_file
from store.errors import NO_SPACE, Invalid, Unavailable
from store.format.entries import SEGMENT
from store.format.manifest import MISSION_ID


def write_new(path: Path, imagery: str, model: Path, *, today: datetime.date, progress: Progress) -> tuple[str, ...]:
    """Write a mission file for this imagery (PATH, tms:PATH or xyz:PATH) and this model, ready to plan. Return what
    somebody has to decide or correct in it.

    Raise Invalid where there is a file already, where the files are none of their kind, and where their names are no
    text.
    """
    _check_free(path)
    for name in (imagery, str(model)):
        if not name.isprintable():  # a surrogate, which stands for a byte that is no UTF-8, among others
            raise Invalid(f"{name!r} cannot stand in a mission file", remedy="rename it, or make a link to it")
    try:
        seen = confinement.inspect(imagery, model, progress=progress)
    except Invalid as error:
        if Path(imagery).suffix != ".onnx":
            raise
        remedy = f"give the network as --model, and the imagery as --imagery: --imagery {model} --model {imagery}"
        raise error.restated(error.message, remedy=remedy) from error
    text, open_points = template(_facts(path, SourcePath.parse(imagery).path, model, seen, today))
    try:
        write_new_file(Disk(), os.path.abspath(path), text.encode(), 0o644)
    except Unavailable as error:
        _check_free(path)  # somebody else made one meanwhile
        if error.errno in NO_SPACE:
            raise
        remedy = "give a path in a folder that exists, and in which you may write"
        raise error.restated(error.message, remedy=remedy) from error
    return open_points


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        text = f"{path} exists already, and no mission file is written over another"
        raise Invalid(text, remedy="give another name, or remove it", path=str(path))


def _facts(path: Path, source: Path, model: Path, seen: Inspected, today: datetime.date) -> Facts:
    image = seen.imagery
    about = [f"The source has the zooms {image.first} to {image.last}"]
    about += [f"{image.tile_size} pixels a side"] + [image.format] * bool(image.format)
    about += [f"{image.resolution_m:.2f} m a pixel"] * (image.resolution_m > 0)
    return Facts(
        id=_named(path.stem, MISSION_ID, "-", "mission"),
        source=_relative(source, path),
        zooms=image.zooms,
        bbox=image.bbox,
        captured=_date_of(source, today),
        tile_size=image.tile_size,
        scheme=image.scheme or "",
        about_source=", ".join([*about, *image.notes]) + ".",
        model=_relative(model, path),
        backbone=_named(model.stem, SEGMENT, "._-", "backbone"),
        inputs=seen.inputs,
        outputs=seen.outputs,
        today=today,
    )


def _date_of(path: Path, today: datetime.date) -> datetime.date:
    """Return the date of a file, today for one that has none or a later one."""
    try:
        return min(today, datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc).date())
    except (OSError, ValueError, OverflowError):
        return today


def _named(stem: str, pattern: re.Pattern[str], marks: str, otherwise: str) -> str:
    """Return a name after that of a file."""
    name = re.sub(rf"[^a-z0-9{re.escape(marks)}]+", "-", stem.lower()).strip("._-")[:64].strip("._-")
    return name if pattern.fullmatch(name) else otherwise


def _relative(path: Path, mission_file: Path) -> str:
    """Return a path as the mission file has it: relative where it lies in its folder or below."""
    folder, real = os.path.abspath(mission_file.parent), os.path.abspath(path)
    return os.path.relpath(real, folder) if os.path.commonpath([folder, real]) == folder else real
