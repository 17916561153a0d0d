"""Where this package was installed from, and so which command adds an extra: `pip install 'flightbag[build]'` is right
only where the package came from an index.

What installed the package wrote down where it came from (PEP 610). This module reads that and nothing else. Only a
missing extra needs it, so that what it reads with is imported when it is called.
"""

from __future__ import annotations

import os
import sys

_NAME = "flightbag"


def install_remedy(extra: str = "") -> str:
    """Return the command, in backquotes, that installs this package with an extra of it, "" for none, from where it was
    installed, for the Python that runs. Where the folder or the file that it came from is gone, the text says so."""
    import json
    from importlib import metadata
    from urllib.parse import unquote, urlsplit

    brackets = f"[{extra}]" if extra else ""
    try:
        distribution = metadata.distribution(_NAME)
    except metadata.PackageNotFoundError:  # a checkout that runs without being installed
        checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        return _command([*_installer(""), "-e", f"{checkout}{brackets}"])
    install = _installer((distribution.read_text("INSTALLER") or "").strip())
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = origin.get("url", "")
    if not url:
        return _command([*install, f"{_NAME}{brackets}"])
    vcs, subfolder = origin.get("vcs_info"), origin.get("subdirectory")
    if vcs or subfolder or urlsplit(url).scheme != "file":
        place = f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else url
        place += f"#subdirectory={subfolder}" if subfolder else ""
        return _command([*install, f"{_NAME}{brackets} @ {place}"])
    path = unquote(urlsplit(url).path)
    if not os.path.exists(path):
        wanted = f" with the extra {extra}" if extra else ""
        return f"{_NAME} was installed from {path}, which is gone: get it again, and install it{wanted}"
    editable = ["-e"] if origin.get("dir_info", {}).get("editable") else []
    return _command([*install, *editable, f"{path}{brackets}"])


def _command(words: list[str]) -> str:
    from shlex import join

    return f"`{join(words)}`"


def _installer(name: str) -> list[str]:
    """Return the command that installs into the environment of the Python that runs."""
    from importlib.util import find_spec
    from shutil import which

    if name == "uv" and find_spec("pip") is None:  # an environment of uv has no pip
        return ["uv", "pip", "install", "--python", sys.executable]
    pip = which("pip")
    return ["pip", "install"] if pip is not None and _runs_here(pip) else [sys.executable, "-m", "pip", "install"]


def _runs_here(script: str) -> bool:
    """Whether the Python that runs is the one that runs a script."""
    try:
        with open(script, "rb") as file:
            head = os.fsdecode(file.readline(4096)).strip().removeprefix("#!")
    except OSError:
        return False
    same_folder = os.path.dirname(head) == os.path.dirname(sys.executable)
    return same_folder and os.path.realpath(head) == os.path.realpath(sys.executable)
