"""Indexes that this FAISS builds are read by the oldest one that their need allows, in an environment of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from builders.onboard import ann
from store.errors import Refused, Unavailable
from store.format.host import is_host_class, objection, with_least
from tests.support import runtimes

OLDEST = "faiss-1.11.0"
ROWS, DIM = 2000, 32
# Runs there: opens both indexes, and prints the nearest row of each of the first rows.
_SEARCH = """
import json, sys
from pathlib import Path
import numpy as np
from builders.onboard import ann
queries = np.load(sys.argv[2])
found = {"class": ann.host_component()}
for method in ("ivf", "hnsw"):
    index = ann.open_index(Path(sys.argv[1]) / method, method, 32, 2000)
    found[method] = index.search(queries, 1)[0][:, 0].tolist()
print(json.dumps(found))
"""


def test_an_index_is_read_by_the_oldest_version_of_its_need(tmp_path: Path) -> None:
    if why := runtimes.environment(OLDEST)[1]:
        pytest.skip(why)
    rows = np.random.default_rng(7).normal(size=(ROWS, DIM)).astype(np.float16)
    ids = np.arange(ROWS, dtype=np.uint64) * 3
    quantiser = ann.train_quantiser(lambda: [(ids, rows)], DIM, 16)
    (tmp_path / "ivf").write_bytes(ann.build_ivf(quantiser, [(ids, rows)], DIM))
    (tmp_path / "hnsw").write_bytes(ann.build_hnsw([(ids, rows)], DIM))
    np.save(tmp_path / "queries.npy", rows[:20].astype(np.float32))
    found = json.loads(runtimes.python(OLDEST, "-c", _SEARCH, str(tmp_path), str(tmp_path / "queries.npy")))
    assert found == {"class": OLDEST, "ivf": ids[:20].tolist(), "hnsw": ids[:20].tolist()}
    assert ann.least_version() == "1.11"


def test_a_newer_library_than_those_tried_needs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(faiss, "__version__", "1.16.2")
    assert ann.least_version() == "1.16.2"
    assert objection(with_least("cpu", "faiss", ann.least_version()), need=True) == ""
    assert is_host_class(ann.host_component())


def test_a_library_that_is_too_old_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    ann.require_reader("cpu+faiss>=1.11")
    monkeypatch.setattr(faiss, "__version__", "1.12.0")
    ann.require_reader("cpu+faiss>=1.11")
    with pytest.raises(Refused, match=r"needs faiss>=1\.16, this machine has faiss-1\.12\.0") as caught:
        ann.require_reader("cpu+faiss>=1.16")
    assert caught.value.kind == "wrong-host"
    with pytest.raises(Unavailable, match=r"older than 1\.15\.1"):
        ann.version()
    monkeypatch.setattr(faiss, "__version__", "1.10.0")
    with pytest.raises(Unavailable, match=r"older than 1\.11"):
        ann.require_reader("cpu+faiss>=1.9")
