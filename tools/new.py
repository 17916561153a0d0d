"""The command `new`: a mission file from imagery and a model."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from builders.extras import require_build_extra
from tools.arguments import Json, MissionFilePath
from tools.progress import work_bars
from tools.status import OK, command, print_json, say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("new")(new)


@command
def new(
    mission_file: MissionFilePath,
    imagery: Annotated[
        str,
        typer.Option(metavar="SOURCE", help="The tile source: PATH, or tms:PATH or xyz:PATH.", show_default=False),
    ],
    model: Annotated[
        Path, typer.Option(readable=False, metavar="MODEL.onnx", help="The ONNX model.", show_default=False)
    ],
    as_json: Json = False,
) -> int:
    """Write a mission file for some imagery and a model, ready to plan. Every key has a line that explains it.

    The area is all that the imagery covers. Never writes over a file.

    Example: flightbag new north-ridge.toml --imagery naip.mbtiles --model net.onnx
    """
    require_build_extra()
    from builders.new_mission import write_new

    with work_bars() as progress:
        today = datetime.datetime.now(datetime.timezone.utc).date()
        open_points = write_new(mission_file, imagery, model, today=today, progress=progress)
    if as_json:
        print_json({"mission_file": str(mission_file), "open": list(open_points)})
        return OK
    say(f"wrote {mission_file}; before you build, correct in it")
    for text in open_points:
        say(f"  {text}")
    say(f"then: flightbag plan {mission_file} --store STORE")
    return OK
