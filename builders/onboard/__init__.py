"""What a flight computer imports beside `store`: the engine that flies, the search in the map, the probe.

It needs the extra `onboard`.

    >>> import store
    >>> from builders import onboard
    >>> mission = store.takeoff_check(folder, "left", trust=trust_root, now=now, aircraft="uav-07").mission
    >>> engine = onboard.flying_engine(mission, "embedder")
    >>> descriptors = engine.describe([frame])
    >>> with onboard.Retriever(mission, "embedder") as retriever:
    ...     [best] = retriever.search(descriptors, top=1)[0]
    >>> str(best.tile), round(best.score, 2)
    ('15/7357/11522', 1.0)
    >>> onboard.probe(mission, "embedder").holds
    True

A mission whose engine nobody could run on the ground is NO-GO `unproven` until the probe has held aboard, and the state
of the aircraft remembers that: `store.aircraft.prove(state, folder, "left", onboard.probe_sets)`.

`frame` is a picture of the ground, uint8 [height, width, 3], RGB, turned north up, that shows about as much ground as a
row of the map. A frame of a camera shows other ground, in another direction; it is cut and turned by what is known:

    >>> camera = onboard.Camera.at_height(height=600, fov=90, heading=0)
    >>> with onboard.Retriever(mission, "embedder") as retriever:
    ...     found = retriever.locate(engine, frame, camera, top=1)
    >>> found.assumed
    ('the camera looked straight down',)
    >>> [ground.zoom for ground in found.searched]
    [15]

`onboard.view_of` is the same cut alone. Everything here takes a `VerifiedMission`, and uses the bytes that were hashed.

Needs numpy and ONNX Runtime only, or the library of another engine; an approximate search needs FAISS too. Never
imports pydantic, onnx, shapely, pmtiles, PIL, rasterio or click.
"""

from builders.onboard.camera import Camera, Ground, view_of
from builders.onboard.flying import FlyingEngine, flying_engine
from builders.onboard.loading import open_engine
from builders.onboard.measurement import Measurement
from builders.onboard.probes import probe, probe_sets
from builders.onboard.retriever import Located, Match, Retriever

__all__ = [
    "Camera",
    "FlyingEngine",
    "Ground",
    "Located",
    "Match",
    "Measurement",
    "Retriever",
    "flying_engine",
    "open_engine",
    "probe",
    "probe_sets",
    "view_of",
]
