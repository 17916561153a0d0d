"""Stands in for the CUDA runtime's Python package; see `tensorrt` beside it."""
