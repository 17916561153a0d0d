"""The command line of Flightbag: it parses, calls, renders."""

__version__ = "0.1.0"
