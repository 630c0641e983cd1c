"""Many photos: which (``sources``), in which processes (``pool``, ``worker``), in how much memory.

Knows tasks (``work``), not what is in them; prints nothing.
"""
