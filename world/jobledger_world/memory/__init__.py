"""The store in memory, with the locks of PostgreSQL, and what can go wrong on the way to it."""

from jobledger_world.memory.disk import MemoryDisk

__all__ = ["MemoryDisk"]
