# PLACEHOLDER until the real module is written: overwrite me.
from dataclasses import dataclass


@dataclass
class Tally:
    at1: int
    at5: int
    n: int

    def ppm(self, top):
        return (self.at1 if top == 1 else self.at5) * 10**6 // self.n


def tally(true, found):
    hit = found == true[:, None]
    return Tally(int(hit[:, :1].any(1).sum()), int(hit[:, :5].any(1).sum()), len(true))


def total(ts):
    ts = list(ts)
    return Tally(sum(t.at1 for t in ts), sum(t.at5 for t in ts), sum(t.n for t in ts))
