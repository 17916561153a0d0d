"""Who may vouch for what: keys, trust roots, thresholds. Pure: bytes and times come in, decisions go out."""
