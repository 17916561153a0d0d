# PLACEHOLDER until the real module is written: overwrite me.
from typing import Any

import numpy as np

Block = tuple[Any, Any]


def search(blocks, queries, top, keep=None):
    ids = []
    rows = []
    for i, r in blocks:
        if keep is not None:
            k = keep(i)
            i = i[k]
            r = r[k]
        ids.append(i)
        rows.append(r.astype(np.float32))
    ids = np.concatenate(ids)
    rows = np.concatenate(rows)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    s = q @ rows.T
    oi = np.full((len(q), top), 2**64 - 1, np.uint64)
    os_ = np.full((len(q), top), -np.inf, np.float32)
    for n in range(len(q)):
        o = np.lexsort((ids, -s[n]))[:top]
        oi[n, : len(o)] = ids[o]
        os_[n, : len(o)] = s[n, o]
    return oi, os_
