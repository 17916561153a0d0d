"""Host classes (FORMAT.md 4.5): the hardware and runtime that an engine needs, and whether an aircraft has them.

A class is one or more components joined by `+`, strictly ascending: `cpu-x86_64`, `cpu-aarch64+trt10.3-sm87`. A
component narrows from left to right at hyphens: every `cpu-x86_64-avx2` is a `cpu-x86_64`, and every `cpu-x86_64` is a
`cpu`. Classes know no order: `trt10.3` does not meet `trt10.2`. This module detects no hardware.

Law: `meets` is reflexive and transitive.
"""

from __future__ import annotations

import itertools
import re

COMPONENT = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
HOST_CLASS = re.compile(rf"(?=.{{1,255}}\Z){COMPONENT}(?:\+{COMPONENT})*")


def is_host_class(text: str) -> bool:
    """Whether `text` is a host class in its only form: components strictly ascending, at most 255 characters."""
    parts = text.split("+")
    return bool(HOST_CLASS.fullmatch(text)) and all(a < b for a, b in itertools.pairwise(parts))


def meets(have: str, need: str) -> bool:
    """Whether a host of class `have` can run an engine that needs the class `need`.

    Each component of `need` must equal a component of `have`, or be a prefix of one up to a hyphen.
    """
    components = have.split("+")
    return all(any(h == n or h.startswith(n + "-") for h in components) for n in need.split("+"))
