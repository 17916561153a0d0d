"""The parts of an audit; `store.fsck` puts them together. Nothing here writes to a store."""
