"""Host classes: what hardware and runtime an engine needs, and whether an aircraft has it.

A class is one or more components joined by `+`, strictly ascending: `cpu-x86_64`, `cpu-aarch64+trt10.3-sm87`.
A component narrows from left to right at hyphens, so `cpu-x86_64-avx2` is a `cpu-x86_64` is a `cpu`.

Law: `meets` is reflexive and transitive.
"""

from __future__ import annotations

import itertools
import re

COMPONENT = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
HOST_CLASS = re.compile(rf"(?=.{{1,255}}\Z){COMPONENT}(?:\+{COMPONENT})*")


def is_host_class(text: str) -> bool:
    """Whether `text` is a host class in its one form (components strictly ascending)."""
    parts = text.split("+")
    return bool(HOST_CLASS.fullmatch(text)) and all(a < b for a, b in itertools.pairwise(parts))


def meets(have: str, need: str) -> bool:
    """Whether a host of class `have` can run what needs class `need`.

    Every component needed is some component at hand, or a less narrow name of it.
    """
    at_hand = have.split("+")
    return all(any(h == n or h.startswith(n + "-") for h in at_hand) for n in need.split("+"))
