"""Work units on a Ray cluster: what travels (`parcel`), what a node does (`unit`, `node`), its driver (`driver`).

A node needs Ray, and flightbag in the version of the driver: no source, no store, no key. The driver reads the tiles
and sends them with the unit; it checks and inserts what comes back. Only `driver` and the end of `unit` import Ray.
"""
