"""How fast the store is, beside its peers, and how much memory it takes. A timing never decides a test."""
