"""A bucket of an object storage (S3, Google Cloud, Azure), as far as a store needs it: a dozen verbs over obstore.

Contract: a name has its whole bytes or none. `create` and `replace` are conditional, so that of two writers one learns
that it came second. `put_object` returns when the storage has confirmed exactly the bytes with that id: by its own
digest of what it stored where it gives one (the MD5 in an ETag), and else because they were read back and hashed.

Whoever runs the storage decides what a listing says and what a read brings: names are judged before they become
anything, and nothing is read beyond its bound. Credentials, region and endpoint come from the environment, by the
library. No message has the text of an error of the library or of the server, which may quote them: an error is told by
its class, its status and its code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from blake3 import blake3

from store.audit.refs import FOLDERS
from store.disk.media import OBJECTS
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.format.ids import ObjectId
from store.installation import install_remedy

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig
    from typing_extensions import Self

# The bytes of one request, up or down: it may be repeated, and eight of them are in memory at once. A larger object
# goes up in parts of this size or, for the storage takes 10,000 parts at most, of a larger one.
PART = 8 * 2**20
_MOST_PARTS = 9_000
AT_ONCE = 8
# So often the bytes of an object are sent before the storage is given up that confirms other bytes.
_TRIES = 3
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}")
_SEGMENT = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._=+@-]{1,255}")
_MD5 = re.compile(r'"?([0-9a-f]{32}(?:-[1-9][0-9]{0,4})?)"?')
# Some programs make an empty object in the place of a folder.
_MARKERS = re.compile(rf"(?:{'|'.join(sorted(FOLDERS))}|{OBJECTS}/[0-9a-f]{{2}}|[a-z]+/releases|)")
# What an error of the library says of the answer of the server.
_STATUS, _CODE = re.compile(r"status code: ([0-9]{3})"), re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_ILLEGAL = re.compile(r'Error parsing Path "(.{1,200})', re.DOTALL)
# Where the library asks for credentials if the environment has none.
_METADATA = ("169.254.169.254", "metadata.google.internal", "169.254.170.2")
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN where they are temporary",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN",
}
_ENDPOINT = {
    "s3": "AWS_ENDPOINT_URL and AWS_REGION",
    "gs": "the network",
    "az": "AZURE_STORAGE_ACCOUNT_NAME",
}
_REGION_CODES = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect"}
)

T = TypeVar("T")
R = TypeVar("R")


class Version(NamedTuple):
    """What a storage calls the bytes that a name has: they changed if this changed."""

    e_tag: str | None
    version: str | None


class Stored(NamedTuple):
    """A name in the bucket, below the prefix, with the size of its bytes."""

    name: str
    size: int


class BucketClient:
    """A prefix of a bucket. `name` is its address, for messages."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self.name = name

    @classmethod
    def connect(cls, url: str, *, patient: bool = True) -> Self:
        """Return the bucket at an address like `s3://bucket/prefix`. Nothing is asked of the storage yet. Unless
        `patient`, a request that fails is soon given up: for what can be done without the storage.

        Raise Invalid for an address that is none, Unavailable where the library is not installed or its settings in the
        environment are not whole.
        """
        scheme, bucket, prefix = parsed(url)
        name = f"{scheme}://{'/'.join((bucket, *prefix))}"
        with _explained(name, ""):
            from obstore.store import AzureStore, GCSStore, S3Store

            below = "/".join(prefix) or None
            # Of a whole request, which has PART bytes at most: half a megabit a second with all of them at once. As
            # settings of the store: options of the client would hide those of the environment.
            settings: Any = {"timeout": "300 seconds", "connect_timeout": "10 seconds"}
            retries: RetryConfig = {"max_retries": 8, "retry_timeout": timedelta(seconds=180)}
            if not patient:
                settings = {"timeout": "60 seconds", "connect_timeout": "3 seconds"}
                retries = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
            store: ObjectStore
            if scheme == "s3":
                store = S3Store(bucket, prefix=below, config=settings, retry_config=retries)
            elif scheme == "gs":
                store = GCSStore(bucket, prefix=below, config=settings, retry_config=retries)
            else:
                store = AzureStore(bucket, prefix=below, config=settings, retry_config=retries)
        return cls(store, name)

    def names(self, folder: str = "") -> Iterator[Stored]:
        """Yield every name below a folder, "" for all. Raise Corrupt for a name that no path could be."""
        with _explained(self.name, folder):
            for page in self._store.list(folder or None, chunk_size=1000):
                for one in page:
                    if not one["path"].isprintable():
                        raise _foreign(self.name, one["path"])
                    yield Stored(one["path"], one["size"])

    def read(self, name: str, limit: int) -> tuple[bytes, Version]:
        """Return the bytes of a name and their version. Raise NotFound, and Corrupt (kind too-large) before any byte of
        more than `limit` is read."""
        size, data, version = self._get(name, limit)
        if size > limit:
            path = f"{self.name}/{name}"
            raise Corrupt(f"{path} has more than {limit} bytes, which is its limit", kind="too-large", path=path)
        return data, version

    def _get(self, name: str, most: int) -> tuple[int, bytes, Version]:
        """Return the size of a name, its bytes if they are at most so many, else none, and their version."""
        with _explained(self.name, name):
            got = self._store.get(name)
            meta = got.meta
            data = bytes(got.bytes()) if meta["size"] <= most else b""
            return meta["size"], data, Version(meta["e_tag"], meta["version"])

    def look(self, name: str) -> tuple[int, Version]:
        """Return the size of the bytes of a name, and their version. Raise NotFound."""
        with _explained(self.name, name):
            meta = self._store.head(name)
            return meta["size"], Version(meta["e_tag"], meta["version"])

    def chunks(self, name: str, size: int, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
        """Yield the bytes of a name, which has `size` of them, in requests of at most PART; none of a small one that
        has more."""
        for start in range(0, max(size, 1), PART):
            if size <= PART:
                data = self._get(name, size)[1]
            else:
                with _explained(self.name, name):
                    data = bytes(self._store.get_range(name, start=start, end=min(start + PART, size)))
            if progress is not None:
                progress(len(data))
            yield data

    def create(self, name: str, data: bytes) -> bool:
        """Give a new name its bytes. Return False, and change nothing, where the name has bytes already."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with _explained(self.name, name, writing=True):
            try:
                self._store.put(name, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def replace(self, name: str, data: bytes, version: Version) -> bool:
        """Give a name other bytes. Return False, and change nothing, where it no longer has those of this version."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        condition = {key: value for key, value in version._asdict().items() if value is not None}
        with _explained(self.name, name, writing=True):
            try:
                self._store.put(name, data, mode=condition, use_multipart=False)  # type: ignore[arg-type]
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                return False
        return True

    def put_object(self, name: str, id_: ObjectId, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Give a name the bytes that `chunks` makes up, and have the storage confirm them; other bytes that it has go.

        Raise Corrupt (kind bit-flip) for a source of other bytes, of which nothing becomes visible, and Unavailable
        where the storage has other bytes than were sent, each time: then the name is removed.
        """
        for _ in range(_TRIES):
            sent, e_tag = _Sent(id_, size, chunks()), None
            # NotFound: of the parts that are put together, by a request that was repeated after it had arrived.
            with suppress(NotFound), _explained(self.name, name, writing=True):
                if size <= PART:
                    e_tag = self._store.put(name, b"".join(sent), use_multipart=False)["e_tag"]
                else:
                    sent.part = max(PART, -(-size // _MOST_PARTS))
                    e_tag = self._store.put(name, iter(sent), chunk_size=sent.part, max_concurrency=2)["e_tag"]
            if sent.is_confirmed(e_tag) or self._has(name, id_, size):
                return
        self.remove(name)
        raise Unavailable(
            f"{self.name} stored other bytes of object {id_} than it was sent, {_TRIES} times",
            remedy="something on the way to it or its memory is failing: run this again, by another network",
            kind="unwritable",
            object=id_,
            path=f"{self.name}/{name}",
        )

    def _has(self, name: str, id_: ObjectId, size: int) -> bool:
        """Whether the name has exactly the bytes of this id, which are read."""
        try:
            self.digest(name, id_, size)
        except (Corrupt, NotFound):
            return False
        return True

    def digest(
        self,
        name: str,
        id_: ObjectId,
        size: int,
        into: bytearray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Read and hash an object; with `into`, which has `size` bytes, also keep them. Raise NotFound, and Corrupt
        (kind truncated, oversized or bit-flip) for other bytes."""
        whole = None
        if size <= PART:
            actual, whole, _ = self._get(name, size)
        else:
            actual, _ = self.look(name)
        if actual != size:
            kind = "truncated" if actual < size else "oversized"
            text = f"object {id_} has {actual} bytes, {size} are expected"
            raise Corrupt(text, kind=kind, object=id_, expected=size, actual=actual)
        hasher, done = blake3(), 0
        for chunk in self.chunks(name, size) if whole is None else [whole]:
            if progress is not None:
                progress(len(chunk))
            hasher.update(chunk)
            if into is not None:
                into[done : done + len(chunk)] = chunk
            done += len(chunk)
        if hasher.digest() != id_:
            text, digest = f"object {id_} hashes to {hasher.hexdigest()}", hasher.hexdigest()
            raise Corrupt(text, kind="bit-flip", object=id_, expected=str(id_), actual=digest)

    def remove(self, name: str) -> None:
        """Remove a name; one that does not exist is fine."""
        with _explained(self.name, name, writing=True):
            try:
                self._store.delete(name)
            except FileNotFoundError:
                return


class _Sent:
    """The bytes of an object on their way to the storage: hashed as they are read.

    The iteration ends with Corrupt where the source has other bytes. `part` is the size of the parts that the storage
    gets them in, 0 for a single one.
    """

    def __init__(self, id_: ObjectId, size: int, chunks: Iterable[bytes]) -> None:
        self._id, self._size, self._chunks = id_, size, chunks
        self.part = 0
        self._digest = ""

    def __iter__(self) -> Iterator[bytes]:
        hasher, whole, parts, in_part = blake3(), hashlib.md5(usedforsecurity=False), [], 0
        for chunk in self._chunks:
            hasher.update(chunk)
            at = 0
            while self.part and in_part + len(chunk) - at >= self.part:
                whole.update(chunk[at : (at := at + self.part - in_part)])
                parts.append(whole.digest())
                whole, in_part = hashlib.md5(usedforsecurity=False), 0
            whole.update(chunk[at:])
            in_part += len(chunk) - at
            yield chunk
        if hasher.digest() != self._id:
            text, actual = f"the source of object {self._id} has bytes that hash to {hasher.hexdigest()}", hasher
            raise Corrupt(text, kind="bit-flip", object=self._id, expected=str(self._id), actual=actual.hexdigest())
        if self.part and in_part:
            parts.append(whole.digest())
        self._digest = (
            f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
            if self.part
            else whole.hexdigest()
        )

    def is_confirmed(self, e_tag: str | None) -> bool:
        """Whether the storage names the digest of exactly these bytes. An ETag need be no such digest."""
        match = _MD5.fullmatch(e_tag or "")
        return match is not None and match[1] == self._digest


def parsed(url: str) -> tuple[str, str, tuple[str, ...]]:
    """Return scheme, bucket and the segments of the prefix. Raise Invalid, whose message does not repeat the text: it
    may have a secret in it.

    >>> parsed("s3://fleet/north/")
    ('s3', 'fleet', ('north',))
    """
    scheme, _, rest = url.partition("://")
    bucket, *prefix = rest.rstrip("/").split("/")
    if scheme in _CREDENTIALS and _BUCKET.fullmatch(bucket) and all(_SEGMENT.fullmatch(one) for one in prefix):
        return scheme, bucket, tuple(prefix)
    raise Invalid(
        "the address of the bucket is malformed",
        remedy="give s3://BUCKET/PREFIX: the bucket has 2 or more letters, digits and . _ -, the prefix also / = + @; "
        "credentials and endpoint come from the environment",
    )


def is_marker(name: str, size: int) -> bool:
    """Whether a name is no file of a store: an empty object in the place of a folder.

    >>> is_marker("missions", 0), is_marker("missions/north", 0)
    (True, False)
    """
    return size == 0 and _MARKERS.fullmatch(name) is not None


def at_once(task: Callable[[T], R], items: Iterable[T], threads: int = AT_ONCE) -> list[R]:
    """Run a task for each item, `threads` at a time, and return the results in the order of the items. The first error
    is raised when the running tasks have ended; no other task begins then."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(task, items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _explained(bucket: str, name: str, *, writing: bool = False) -> Iterator[None]:
    """Turn an error of the library into one of this project."""
    try:
        yield
    except FlightbagError:
        raise
    except ModuleNotFoundError as error:
        raise Unavailable(
            "this needs obstore, which is not installed",
            remedy=install_remedy("remotes"),
            library="obstore",
            extra="remotes",
        ) from error
    except Exception as error:
        if not (type(error).__module__.startswith("obstore") or isinstance(error, FileNotFoundError | ValueError)):
            raise
        # Without its text: the traceback of a program may end up anywhere.
        raise _error(error, bucket, name, writing=writing) from None


def _error(error: Exception, bucket: str, name: str, *, writing: bool) -> FlightbagError:
    text, kind = str(error), type(error).__name__
    scheme = bucket.partition(":")[0]
    status = (match := _STATUS.search(text)) and match[1]
    code = (match := _CODE.search(text)) and match[1]
    path = f"{bucket}/{name}" if name else bucket
    verb, finding = ("written", "unwritable") if writing else ("read", "unreadable")

    def failure(why: str, remedy: str) -> Unavailable:
        return Unavailable(f"{path} cannot be {verb}: {why}", remedy=remedy, kind=finding, path=path)

    if code in ("NoSuchBucket", "InvalidBucketName", "ContainerNotFound"):
        remedy = f"make it with the tools of its provider, or check its name and {_ENDPOINT[scheme]}"
        return failure("the bucket does not exist there", remedy)
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{path} does not exist", kind="missing", path=path)
    if kind == "InvalidPathError":
        what = (match := _ILLEGAL.search(text)) and match[1].partition('": ')[0]
        return _foreign(bucket, what or "")
    if any(host in text for host in _METADATA) or (kind == "GenericError" and "must be specified" in text):
        return failure("the environment has no credentials for it", _CREDENTIALS[scheme])
    if code in _REGION_CODES or status in ("301", "307"):
        return failure(f"it lies in another region ({code or status})", "set AWS_REGION to the region of the bucket")
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or status in ("401", "403"):
        if code in (None, "AccessDenied"):
            return failure(
                f"access is denied ({code or status or kind})",
                f"let its owner allow these credentials to read, list and write there; {_CREDENTIALS[scheme]}",
            )
        return failure(f"the credentials are refused ({code})", _CREDENTIALS[scheme])
    if "builder error" in text:
        return failure("its endpoint has no encryption", "set AWS_ALLOW_HTTP=true if http:// is meant")
    if status == "501" or kind == "NotSupportedError":
        return failure(
            "the storage does not do what a store needs of it",
            "use one that takes conditional writes (If-Match and If-None-Match)",
        )
    again = "run this again later: what arrived whole is not sent again"
    if status is not None:
        return failure(f"the storage answered {status}{f' {code}' if code else ''}", again)
    return failure("the storage does not answer, or breaks off", f"check {_ENDPOINT[scheme]}, and {again}")


def _foreign(bucket: str, name: str) -> Corrupt:
    return Corrupt(
        f"{bucket} has a name that no path of a store could be: {name[:200]!a}",
        remedy="find out who put it there, and remove it with the tools of the bucket's provider",
        kind="stray",
        path=bucket,
    )
