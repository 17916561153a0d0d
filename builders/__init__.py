"""Building missions on the ground, and in `builders.onboard` what a flight computer runs of them.

Building needs the extra `build`.

    >>> from builders import build
    >>> from store.trust.keys import PrivateKey
    >>> key = PrivateKey.of_pem(key_file.read_bytes(), None)
    >>> report = build(mission_file, folder, [key], cache=cache)
    >>> report.outcome, report.mission
    ('built', 'left')
    >>> build(mission_file, folder, [key], cache=cache).outcome
    'unchanged'

`build` reads the imagery and runs the models in a process of its own, which has no key and ends before `build` signs.
`mission_file` is the path of a mission file, `folder` that of a store that has a trust root with this key, `cache` that
of a folder for what the next build reuses.

Importing `builders` loads no library; `from builders import onboard` loads nothing of the ground.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from builders.extras import require_build_extra, require_onboard_extra

if TYPE_CHECKING:
    from builders import onboard
    from builders.publication import build_mission as build
else:

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used: a flight computer has no library that `build` needs.

        Raises Unavailable, naming the extra, where one of its libraries is not installed.
        """
        if name == "build":
            require_build_extra()
            return importlib.import_module("builders.publication").build_mission
        if name == "onboard":
            require_onboard_extra()
            return importlib.import_module("builders.onboard")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["build", "onboard"]
