"""One reading of objects for several takers: each object is read once, however many sticks it goes to.

One thread reads (`Fanout.read`). Each taker has a `Feed`, a queue of bounded size, and takes from it in a thread of its
own (`Feed.chunks`). So memory is constant, and the fastest taker is ahead of the slowest by one queue at most.

A taker that fails closes its feed, and the reading goes on without it. A taker that keeps the others waiting for too
long is left behind: the reading goes on, and that taker reads the rest for itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Condition

from store.disk.media import CHUNK, Media, object_path
from store.errors import FlightbagError, Unavailable
from store.format.ids import ObjectId

# The bytes and the items that a feed holds at most.
_QUEUE_BYTES, _QUEUE_ITEMS = 16 * CHUNK, 1_000
# Seconds by which one taker may hold up others. Time in which it holds up nobody counts against that, so that a taker
# is left behind if it is less than half as fast as another one, or stands still.
_PATIENCE = 10.0
_TICK = 0.05

# The end of an object in a feed, and the mark that the reading goes on without it.
_END, _ALONE = object(), object()
Item = tuple[ObjectId, int]


class Feed:
    """The objects for one taker. Made by `Fanout`."""

    def __init__(self, media: Media, items: Sequence[Item], changed: Condition) -> None:
        self.items = items
        self.wanted = frozenset(id_ for id_, _ in items)
        # All that follows is read and written under `changed`.
        self.closed = self.alone = self.hungry = False
        self.debt, self.since = 0.0, time.monotonic()
        self._media = media
        self._changed = changed
        self._queue: deque[object] = deque()
        self._bytes = 0

    @property
    def served(self) -> bool:
        """Whether the reading serves this taker."""
        return not (self.closed or self.alone)

    @property
    def full(self) -> bool:
        return self._bytes >= _QUEUE_BYTES or len(self._queue) >= _QUEUE_ITEMS

    def close(self) -> None:
        """Tell the reading that this taker takes no more."""
        with self._changed:
            self.closed = True
            self._queue.clear()
            self._changed.notify_all()

    def put(self, item: object) -> None:
        """Add an item for the taker, under `changed`."""
        self._queue.append(item)
        self._bytes += len(item) if isinstance(item, bytes) else 0
        if self.hungry:
            self._changed.notify_all()

    def chunks(self, id_: ObjectId, size: int, progress: Callable[[int], None] | None) -> Iterator[bytes]:
        """Yield the bytes of the next one of `items`; they are taken to their end before those of another.

        Raise the error of the reading for an object that cannot be read, Unavailable after `close`.
        """
        before = 0
        while (item := self._take()) is not _END:
            if isinstance(item, FlightbagError):
                raise item
            if not isinstance(item, bytes):
                yield from self._rest(id_, size, before, progress)
                return
            before += len(item)
            yield item
            if progress is not None:
                progress(len(item))

    def _rest(self, id_: ObjectId, size: int, before: int, progress: Callable[[int], None] | None) -> Iterator[bytes]:
        """Yield the bytes of an object after the first `before`, which this taker reads for itself."""
        for chunk in self._media.chunks(object_path(id_), size):
            rest = chunk[before:]
            before -= len(chunk) - len(rest)
            if rest:
                yield rest
                if progress is not None:
                    progress(len(rest))

    def _take(self) -> object:
        with self._changed:
            while not self._queue:
                if self.alone:
                    return _ALONE
                if self.closed:
                    raise Unavailable("the sync was stopped", kind="stopped")
                self.hungry = True
                self._changed.notify_all()
                self._changed.wait()
            self.hungry = False
            was_full = self.full
            item = self._queue.popleft()
            self._bytes -= len(item) if isinstance(item, bytes) else 0
            if was_full:
                self._changed.notify_all()
            return item


class Fanout:
    """A reading for several takers: `items` has, for each, the objects that it lacks."""

    def __init__(self, media: Media, items: Sequence[Sequence[Item]], last: frozenset[ObjectId]) -> None:
        """Objects are read in one order for all, ascending, those of `last` after all others."""
        self._changed = Condition()
        self._media = media
        self._items = sorted({item for some in items for item in some}, key=lambda item: (item[0] in last, item))
        self.feeds: list[Feed] = []
        for some in map(frozenset, items):
            self.feeds.append(Feed(media, [item for item in self._items if item in some], self._changed))

    def read(self) -> None:
        """Read each object once, for the takers that lack it. Return when no taker is served any more, or all are."""
        for id_, size in self._items:
            feeds = [feed for feed in self.feeds if feed.served and id_ in feed.wanted]
            if not feeds:
                continue
            try:
                for chunk in self._media.chunks(object_path(id_), size):
                    if not self._put(feeds, chunk):
                        break
            except FlightbagError as error:
                self._put(feeds, error)
            self._put(feeds, _END)

    def stop(self) -> None:
        """Let every taker end, with the error that the sync was stopped."""
        for feed in self.feeds:
            feed.close()

    def _put(self, feeds: list[Feed], item: object) -> bool:
        """Give an item to each of these takers that is served, when all of them have room. Return whether one is."""
        with self._changed:
            while waiting := [feed for feed in feeds if feed.served and feed.full]:
                begun = time.monotonic()
                self._changed.wait(_TICK)
                self._count(waiting, time.monotonic() - begun)
            served = [feed for feed in feeds if feed.served]
            for feed in served:
                feed.put(item)
            return bool(served)

    def _count(self, waiting: list[Feed], seconds: float) -> None:
        """Count a wait for some takers against them, and leave behind the one that has held up others for too long."""
        idle = any(feed.hungry and feed.served for feed in self.feeds)
        now = time.monotonic()
        for feed in waiting:
            feed.debt = max(0.0, feed.debt - (now - seconds - feed.since))
            feed.debt = max(0.0, feed.debt + (seconds if idle else -seconds))
            feed.since = now
            feed.alone = feed.debt > _PATIENCE
        if any(feed.alone for feed in waiting):
            self._changed.notify_all()
