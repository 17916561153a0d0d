"""Stores elsewhere, and what carries to them."""
