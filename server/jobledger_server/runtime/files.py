"""What the system says of a file: whether it has changed, and who can access it."""

import logging
import os
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
        if file is None or not file.exists():
            continue
        found = file.stat()
        if is_open_to_others(found, os.geteuid()):
            mode = f"{stat.S_IMODE(found.st_mode):04o}"
            log.warning("file_readable_by_others", extra={"file": str(file), "mode": mode})


def is_open_to_others(found: os.stat_result, user: int) -> bool:
    """Return whether others than `user`, who serves, can read, write or execute a file.

    A file of root may be readable by its group, because `user` could not read it otherwise. Files
    of Kubernetes' Secrets are such files: their group is the pod's `fsGroup`.
    """
    others = stat.S_IRWXG | stat.S_IRWXO
    if found.st_uid == 0 != user:
        others &= ~stat.S_IRGRP
    return bool(found.st_mode & others)
