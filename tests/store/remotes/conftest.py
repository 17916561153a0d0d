"""Prefixes of the bucket of a real S3 server (`tests.conftest`), and a proxy before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest

from store.remotes.bucket import BucketClient
from tests.support.s3 import ACCESS, BUCKET, FAST, SECRET, Proxy, Server, proxy

if TYPE_CHECKING:
    from obstore.store import S3Store

Connect = Callable[..., BucketClient]


@pytest.fixture(scope="session")
def between(storage: Server) -> Iterator[Proxy]:
    with proxy(storage) as one:
        yield one


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return count()


@pytest.fixture
def prefix(_numbers: Iterator[int]) -> str:
    """A prefix that no other test uses."""
    return f"station/{next(_numbers)}"


def plain(endpoint: str, prefix: str = "", bucket: str = BUCKET, *, retries: int = 3) -> S3Store:
    """A plain S3 client."""
    from obstore.store import S3Store

    return S3Store(
        bucket,
        prefix=prefix or None,
        endpoint=endpoint,
        access_key_id=ACCESS,
        secret_access_key=SECRET,
        region="us-east-1",
        client_options={"allow_http": True, "timeout": timedelta(seconds=10)},
        retry_config={"max_retries": retries, "backoff": {"init_backoff": FAST, "max_backoff": FAST, "base": 2}},
    )


@pytest.fixture
def client(storage: Server, prefix: str) -> BucketClient:
    """An empty prefix of the bucket."""
    return BucketClient(plain(storage.endpoint, prefix), f"s3://{BUCKET}/{prefix}")


@pytest.fixture
def spoilt(between: Proxy, prefix: str) -> Iterator[tuple[BucketClient, Proxy]]:
    """The same prefix through the proxy, which forgets its fault and its requests with the test."""
    yield BucketClient(plain(between.endpoint, prefix), f"s3://{BUCKET}/{prefix}"), between
    between.fault = lambda _: None
    between.asked.clear()
