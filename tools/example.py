"""The command `example`: what a first mission needs, to try the program with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from builders.extras import require_build_extra
from tools.arguments import Json, print_lines
from tools.parameters import Argument
from tools.status import OK, action, print_json


@action
def run(
    folder: Annotated[Path, Argument(metavar="DIR", help="A folder that does not exist yet or is empty.")],
    as_json: Json = False,
) -> int:
    """Write an example to try the program with: terrain, a small backbone, a frame, and two mission files that overlap.

    The terrain shows no real place, and nobody trained the backbone. The command needs the extra `build`.

    Example: flightbag example first
    """
    require_build_extra()
    from builders.example.files import write_example

    names = write_example(folder)
    if as_json:
        print_json({"folder": str(folder), "files": list(names)})
    else:
        print_lines((f"wrote into {folder}:", *(f"  {name}" for name in names)))
    return OK
