"""The disk of a world: real SQLite, run in the loop's own thread, with delays and faults."""

from jobledger_world.disk.disk import Disk

__all__ = ["Disk"]
