"""The command `new`: a mission file from imagery and a model."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

from builders.extras import require_build_extra
from tools.arguments import Json, MissionFilePath
from tools.parameters import Option
from tools.progress import work_bars
from tools.status import OK, action, print_json, say


@action
def new(
    mission_file: MissionFilePath,
    imagery: Annotated[
        str,
        Option(metavar="SOURCE", help="The tile source: PATH, or tms:PATH or xyz:PATH."),
    ],
    model: Annotated[Path, Option(metavar="MODEL.onnx", help="The ONNX model.")],
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
    say(f"then: flightbag plan {mission_file} --store STORE; `flightbag init STORE` creates a store")
    return OK
