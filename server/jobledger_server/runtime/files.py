"""What the system says of a file: whether it has changed, and who can access it."""

import logging
import stat
from collections.abc import Iterable
from pathlib import Path

FileState = tuple[int, int, int]

log = logging.getLogger("jobledger.server")


def file_state(path: Path) -> FileState:
    """Return what differs once a file, its owner or mode has changed. Raises OSError."""
    found = path.stat()
    # Not the time of the content: access to the file may be what has changed.
    return found.st_ctime_ns, found.st_ino, found.st_size


def warn_of_readable_files(files: Iterable[Path | None]) -> None:
    """Log each existing file that its group or others can read, write or execute."""
    for file in files:
        mode = stat.S_IMODE(file.stat().st_mode) if file is not None and file.exists() else 0
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("file_readable_by_others", extra={"file": str(file), "mode": f"{mode:04o}"})
