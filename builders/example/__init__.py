"""What a first mission is made of: procedural terrain, a small backbone, two mission files that overlap, a frame.

`files.write_example` writes all of it. It needs the extra `build`. The demo and the tests use the same pieces.
"""
