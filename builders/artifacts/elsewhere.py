"""Figures that a device measured: those of accepted results (FORMAT.md 5.3), whose signatures hold under the trust root
of the build."""

from __future__ import annotations

from collections.abc import Sequence

from store.disk.layout import RESULTS
from store.errors import FlightbagError, Unavailable
from store.format.ids import BuildKey, ObjectId
from store.ground.orders import accepted_result, is_taken, keys_in, read_result
from store.ground.repository import Repository
from store.trust.root import TrustRoot


def measured_elsewhere(
    repository: Repository, root: TrustRoot, engine: Sequence[ObjectId], probe: ObjectId, recipe: bytes
) -> tuple[int, int] | None:
    """Return (value in parts per million, queries) of a figure that a device measured of exactly this engine (the
    objects of model[, weights]) on exactly this probe, with this recipe; None where no result says so.

    Only a result that the role builder of `root` has signed says anything.
    """
    for key in keys_in(repository.media, RESULTS):
        try:
            result = read_result(repository.evidence, key, root)
            if [id_ for id_, _ in result.engine] != list(engine) or not is_taken(repository.media, result):
                continue
        except Unavailable:
            raise
        except FlightbagError:
            continue  # an audit reports it; here it says nothing
        for figure in result.figures:
            if (figure.probe, figure.recipe) == (probe, recipe):
                return figure.value, figure.queries
    return None


def measured_by_device(
    repository: Repository, key: BuildKey, engine: Sequence[tuple[ObjectId, int]], recipe: bytes
) -> bool:
    """Return whether the accepted result of a key is of this engine and has the figure of this recipe. Of its probe it
    says nothing: a plan asks, before the probe is made."""
    try:
        result = accepted_result(repository.evidence, key, repository.trust_root().root)
    except Unavailable:
        raise
    except FlightbagError:
        return False
    return list(result.engine) == list(engine) and recipe in {figure.recipe for figure in result.figures}
