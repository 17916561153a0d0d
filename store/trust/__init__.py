"""Who may sign what: keys, trust roots and their drafts, thresholds, revocation, and what an aircraft remembers.

Pure: bytes and times come in, decisions go out. No module here reads a file, a clock or the environment.
"""
