"""Looking keys up in a shared cache: on a real S3 server on loopback, and in one whose every answer takes 20 ms, as
that of a storage far away does."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from store.format.built import AAD_LABEL, CONTENT_TYPE, Built
from store.format.ids import BuildKey, ObjectId
from store.remotes.bucket import BucketClient
from store.remotes.shared_cache import SharedCache
from tests.support.missions import NOW, ROOT, build_key, role, sign_payload
from tests.support.s3 import ACCESS, BUCKET, SECRET, server

_FLEET = replace(ROOT, builder=role("orin"))
_OBJECT = ((ObjectId.of(b"a shard"), 7),)
_FAR_S = 0.02


def shared_cache(folder: Path, *, small: bool) -> dict[str, dict[str, float]]:
    """The seconds that it takes to look up so many keys of which the cache has none, some or all; no object comes."""
    from obstore.store import MemoryStore, S3Store

    count = 600 if small else 100_000
    keys = [build_key(f"has {number}") for number in range(count)]
    others = [build_key(f"has not {number}") for number in range(count)]
    few = [*keys[: count // 100], *others[count // 100 :]]
    result = {}
    with server(folder) as one:
        one.make_bucket(BUCKET)
        near = S3Store(
            BUCKET,
            prefix="cache",
            endpoint=one.endpoint,
            access_key_id=ACCESS,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        for place, store, put in (
            ("a server on loopback", near, near.put),
            ("a memory 20 ms away", MemoryStore(), None),
        ):
            start = time.monotonic()
            _fill(put or store.put, keys)
            client = BucketClient(store, f"s3://{BUCKET}/cache")
            print(f"\n{place}: {count:,} records were put in {time.monotonic() - start:.1f} s", flush=True)
            if put is None:
                _slow(client)
            result[place] = {
                title: _seconds(client, asked, found)
                for title, asked, found in (
                    ("none of them", others, 0),
                    ("1 of 100 of them", few, count // 100),
                    ("all of them", keys, count),
                    ("1 key", keys[:1], 1),
                )
            }
            for title, seconds in result[place].items():
                print(f"  {title:26}{seconds:>10.3f}", flush=True)
    return result


def _fill(put: Callable[[str, bytes], Any], keys: list[BuildKey]) -> None:
    aad = _FLEET.aad(AAD_LABEL)

    def add(key: BuildKey) -> None:
        data = sign_payload(Built(key, _OBJECT, _FLEET.epoch, NOW).render(), CONTENT_TYPE, aad, ["orin"])
        put(f"built/{_FLEET.domain_id.hex()}/{str(key)[:2]}/{key}", data)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(add, keys))


def _slow(client: BucketClient) -> None:
    """Let every request take a while: a listing one for each thousand names."""
    read, names = client.read, client.names

    def slow_read(name: str, limit: int) -> Any:
        time.sleep(_FAR_S)
        return read(name, limit)

    def slow_names(folder: str = "") -> Any:
        for number, one in enumerate(names(folder)):
            if number % 1000 == 0:
                time.sleep(_FAR_S)
            yield one

    client.read, client.names = slow_read, slow_names  # type: ignore[method-assign]


def _seconds(client: BucketClient, keys: list[BuildKey], found: int) -> float:
    cache, start = SharedCache(client, _FLEET), time.monotonic()
    assert len(cache.find(keys)) == found
    assert cache.tally.down is None
    return time.monotonic() - start
