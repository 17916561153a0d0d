"""Stores that lie elsewhere. The plan is that of `store.ground.sync`, made over a `mirror` of the far store; what flies
imports none of this."""
