"""One store folder on a medium: layout, reading, durable writing, objects, staging, quarantine, locks, index and log.

`media` reads and never writes. Only `durable` calls fsync, rename and link: whatever must survive a power cut goes
through it. Only `index` loads lmdb, and only `locks.exclusive` loads filelock. Nothing here decides what a mission
needs or who may sign.
"""
