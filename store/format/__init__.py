"""The bytes of Flightbag, format 1: object ids, strict CBOR, entries, Merkle tree, manifest, envelope, host classes.

Pure: no module here reads a file, a clock or the environment. `store/FORMAT.md` is the specification that they
implement. Bytes come in and values go out, and the reverse; who may sign and what may fly is decided in `store.trust`
and `store.takeoff`.
"""
