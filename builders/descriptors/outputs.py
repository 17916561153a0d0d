"""From the output of a network to one row for each image, on the ground and aboard.

Needs numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.recipe import POOLS
from store.errors import Invalid

# Radenović, Tolias and Chum, Fine-tuning CNN Image Retrieval with No Human Annotation (2018), 3.2: the exponent from
# which it is trained, and the least value of their code.
_GEM_P = 3
_GEM_LEAST = 1e-6
_RIGHT = "name an output that holds one descriptor for each image, [N, d], or one with tokens, [N, T, d], and pool"


def rows_of(output: NDArray[Any], name: str, images: int, pool: str) -> NDArray[np.float32]:
    """Return float32 [images, d] of an output `name` of a run of so many images.

    With `pool` "none" the output is [images, d], or has more dimensions of which one at most is above 1: [images, d, 1,
    1], [images, 1, 1, d]. Else it is [images, T, d], T tokens of d numbers for each image, of which the row is the
    first ("cls"), the mean, or the generalised mean with the exponent 3 ("gem"; numbers below 1e-6 count as 1e-6).

    Raises Invalid for an output of another shape or without numbers.
    """
    shape = f"the output {name} has shape {list(output.shape)} for {images} images"
    if output.dtype.kind != "f":
        raise Invalid(f"the output {name} is {output.dtype}, not numbers with a fraction", key="output", remedy=_RIGHT)
    if output.ndim < 2 or len(output) != images or not output.size:
        raise Invalid(f"{shape}, not [N, d]", key="output", value=name, remedy=_RIGHT)
    is_row = sum(size > 1 for size in output.shape[1:]) <= 1
    if pool == "none":
        if not is_row:
            others = ", ".join(f'"{one}"' for one in POOLS[1:])
            tokens = f"; of tokens [N, T, d], set pool to one of {others}" if output.ndim == 3 else ""
            raise Invalid(f"{shape}, not [N, d]", key="output", value=name, remedy=_RIGHT.partition(", or")[0] + tokens)
        return np.asarray(output.reshape(images, -1), np.float32)
    if output.ndim != 3:
        raise Invalid(
            f"{shape}, not [N, T, d], and pool is {pool}",
            key="pool",
            value=pool,
            remedy="leave out pool" if is_row else "name an output with tokens, [N, T, d]",
        )
    if pool == "cls":
        return np.asarray(output[:, 0], np.float32)
    wide: NDArray[np.float64] = output.astype(np.float64)
    if pool == "mean":
        return np.asarray(wide.mean(axis=1), np.float32)
    with np.errstate(over="ignore"):  # what is not finite is refused with the rows
        means: NDArray[np.float64] = (np.maximum(wide, _GEM_LEAST) ** _GEM_P).mean(axis=1)
    return np.asarray(means ** (1 / _GEM_P), np.float32)
