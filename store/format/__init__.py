"""The bytes of Flightbag, format 1: object ids, strict CBOR, entries, Merkle tree, manifest, envelope.

Pure: no file, no clock, no environment. `store/FORMAT.md` is the specification that these modules implement.
"""
