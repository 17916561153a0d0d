"""The bounds of the code are those that FORMAT.md states, each in the words that state it."""

from __future__ import annotations

import pytest

from store.disk import layout, log, media
from store.format import (
    area,
    cbor,
    cose,
    entries,
    host,
    manifest,
    missing,
    order,
    receipt,
    ref,
    release,
    result,
    withdrawal,
)
from store.ground import receipts
from store.takeoff import evidence, proof
from store.trust import aircraft_state, draft, key_file, root
from tests.support.stores import REPOSITORY_ROOT

TEXT = " ".join((REPOSITORY_ROOT / "store" / "FORMAT.md").read_text().split())
KIB, MIB = 1024, 1024 * 1024
BOUNDS = [
    ("flightbag.toml 4 KiB", layout.TOML_LIMIT, 4 * KIB),
    ("a ref 65 bytes", ref.REF_SIZE, 65),
    ("a root file 66 KiB", root.ROOT_FILE_LIMIT, 66 * KIB),
    ("an envelope 66 KiB", manifest.ENVELOPE_LIMIT, 66 * KIB),
    ("a receipt 8 KiB", receipt.RECEIPT_LIMIT, 8 * KIB),
    ("a file of at most 8 KiB. Payload, at most 6 KiB", receipt.PAYLOAD_LIMIT, 6 * KIB),
    ("of more than 64 the first 64", receipt.MAX_PROOFS, 64),
    ("at most 10,000 receipts", receipts.MAX_RECEIPTS, 10_000),
    ("no store has taken yet, at most 1,000", receipts.MAX_KEPT, 1_000),
    ("an entry table 16 MiB", entries.TABLE_LIMIT, 16 * MIB),
    ("each file of the log 64 MiB", log.LOG_LIMIT, 64 * MIB),
    ("Names: at most 10,000 in a folder, so 10,000 missions", media.FOLDER_LIMIT, 10_000),
    ("and 65,536 in one of", media.SHARD_LIMIT, 65_536),
    ("and at most 10,000 in all", evidence.MAX_ROOTS, 10_000),
    ("integers in -2^63..2^63-1", (cbor.INT_MIN, cbor.INT_MAX), (-9223372036854775808, 9223372036854775807)),
    ("keys are text of at most 23 bytes", cbor.MAX_KEY_BYTES, 23),
    ("at most 12 arrays and maps, one in another", cbor.MAX_DEPTH, 12),
    ("0 to 253402300799 (the end of the year 9999)", manifest.TIME_MAX, 253402300799),
    (
        "longitudes within 180, both ends included, in 1e-7 degree",
        (area.LAT_MAX, area.LON_MAX),
        (900_000_000, 1_800_000_000),
    ),
    ("ratios (ppm) are parts per million, 0 to 1,000,000", manifest.PPM, 1_000_000),
    ("Signatures are ascending by kid, 0 to 8", cose.MAX_SIGNATURES, 8),
    ("### 4.2 Payload (at most 64 KiB)", manifest.PAYLOAD_LIMIT, 64 * KIB),
    ("| `version` | 1 |", (manifest.VERSION, release.VERSION), (1, 1)),
    ("at most 4096 in all", area.MAX_NUMBERS, 2 * 4096),
    ("at most 256: 0 <= least <= value", manifest.MAX_FIGURES, 256),
    ("on how many it rests, 1 to 2^40", manifest.MAX_QUERIES, 1_099_511_627_776),
    ("number of entries (1 to 100,000)", entries.MAX_ENTRIES, 100_000),
    ("strictly ascending, at most 255 characters", host.MAX_CLASS, 255),
    ("Payload, at most 64 KiB", (root.ROOT_LIMIT, release.PAYLOAD_LIMIT), (64 * KIB, 64 * KIB)),
    ("1 to 256 of [name, kind, object id, size, need (4.5)]", release.MAX_APPROVALS, 256),
    ("raw public keys that 4.1 takes, ascending, at most 64", root.MAX_KEYS, 64),
    ("1 to 1280 of [public key, name]", root.MAX_NAMES, 1280),
    ("at most 64 of [figure, value, least, queries, recipe, object id of the probe]", result.MAX_FIGURES, 64),
    ("An order is an object: canonical CBOR, at most 64 KiB", order.ORDER_LIMIT, 64 * KIB),
    ("1 to 64 of [name, object id, size], ascending, at most 2^36 bytes", order.MAX_FILES, 64),
    ("at most 64 of [set, object id, size, recipe of the figure, least]", order.MAX_PROBES, 64),
    ("at most 32 steps from a pinned root", root.MAX_STEPS, 32),
    ("at most 133 KiB", draft.DRAFT_LIMIT, 2 * 66 * KIB + 64),
    ("two that touch of different reasons; at most 16 MiB", missing.LIST_LIMIT, 16 * MIB),
    ("all up to this one were withdrawn], ascending, at most 10,000", aircraft_state.MAX_MISSIONS, 10_000),
    ("of those withdrawn, ascending, at most 1,000", aircraft_state.MAX_RELEASES, 1_000),
    ("a withdrawal 3 KiB", withdrawal.FILE_LIMIT, 3 * KIB),
    ("were not consumed, ascending, at most 10,000", aircraft_state.MAX_ACCEPTED, 10_000),
    ("flight ids, ascending, at most 50,000", aircraft_state.MAX_CONSUMED, 50_000),
    ("The *skew* is 86,400 seconds", manifest.SKEW, 86_400),
    ("`hashes` (at most 17)", proof.MAX_HASHES, 17),
    ("object ids of release statements, ascending, at most 64", proof.MAX_RELEASES, 64),
    ("at most 10,000,000 rounds", key_file.MAX_ROUNDS, 10_000_000),
    ("at most 1,024 rounds of bcrypt", key_file.MAX_BCRYPT_ROUNDS, 1024),
]


@pytest.mark.parametrize(("words", "bound", "value"), BOUNDS, ids=[words for words, _, _ in BOUNDS])
def test_the_code_has_the_bound_of_the_format(words: str, bound: object, value: object) -> None:
    assert words in TEXT
    assert bound == value
