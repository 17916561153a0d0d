"""The parts of an audit; `store.audit.fsck` puts them together. Nothing here writes to a store."""
