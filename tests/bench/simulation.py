"""A build on many workers, simulated from the seconds that one unit takes at each station. Pure.

One driver reads a cell, packs and sends it; a link carries it to a worker, which describes it; the link carries the
shard back; the driver takes the results in order, checks and stores each, and makes some of them durable at once. The
driver does one thing at a time, and so does each worker. A round of cells ends before the next begins: the driver holds
the locks of a round. The link carries both ways at once. No worker is lost here.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Unit:
    """The seconds of one cell: `send` (read, packed, written to a socket) and `take` (received, checked, stored) on the
    driver, `describe` on a worker, of which single ones differ by up to the share `spread`; `barrier`, on the driver,
    for each `durable` cells and at the end of a round. `sent` and `returned` are the bytes on the link."""

    send: float
    describe: float
    take: float
    barrier: float
    durable: int
    sent: int
    returned: int
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """The seconds of a whole build, and the share of them in which the driver, the link and the average worker work."""

    seconds: float
    driver: float
    link: float
    worker: float

    @property
    def limit(self) -> str:
        """The station that is busiest; `rounds` where each of them waits for the others."""
        busy = {"driver": self.driver, "link": self.link, "workers": self.worker}
        name = max(busy, key=lambda one: busy[one])
        return name if busy[name] >= 0.75 else "rounds"


def simulate(unit: Unit, *, cells: int, workers: int, round_: int, window: int, bandwidth: float) -> Run:
    """Return how a build of so many cells runs, `round_` of them a round. At most `window` cells are under way;
    `bandwidth` is in bytes a second.

    Laws: one worker takes at least `cells * describe`, and more workers take no longer than fewer; no build is faster
    than its driver or its link.
    """
    random = Random(1)
    free = [0.0] * workers
    now = link = 0.0
    driver = linked = described = 0.0
    for start in range(0, cells, round_):
        end, sent = min(start + round_, cells), start
        under_way: deque[float] = deque()
        stored = 0
        while sent < end or under_way:
            if sent < end and len(under_way) < window:
                now += unit.send
                driver += unit.send
                link = max(link, now) + unit.sent / bandwidth
                seconds = unit.describe * (1 + unit.spread * random.uniform(-1, 1))
                done = max(link, heapq.heappop(free)) + seconds
                heapq.heappush(free, done)
                described += seconds
                linked += unit.sent / bandwidth
                under_way.append(done + unit.returned / bandwidth)
                sent += 1
            else:
                now = max(now, under_way.popleft())
                stored += 1
                ends = stored % unit.durable == 0 or (sent == end and not under_way)
                now += unit.take + ends * unit.barrier
                driver += unit.take + ends * unit.barrier
    return Run(now, driver / now, linked / now, described / now / workers)
