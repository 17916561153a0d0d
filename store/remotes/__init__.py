"""Transports under the one plan of `store.ground.sync`: how a store gets to another place than a folder.

Nothing here flies.
"""
