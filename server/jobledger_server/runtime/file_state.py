"""Whether a file has changed: written in place, or replaced, also by way of a symbolic link."""

from pathlib import Path

FileState = tuple[int, int, int]


def file_state(path: Path) -> FileState:
    """Return a value that differs once the file has changed. Raises OSError."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size
