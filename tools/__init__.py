"""The command line of Flightbag: it parses, calls, renders."""

# As in pyproject.toml, whose copy in the installed package takes longer to find than all else that --version does.
__version__ = "0.1.0"
