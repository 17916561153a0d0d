"""The audit of a store (`fsck`), which writes nothing in the store, and its repair (`repair`), which does."""
