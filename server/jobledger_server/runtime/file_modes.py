"""Warns of files with secrets or jobs that other users of the machine can access."""

import logging
import stat
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger("jobledger.server")


def warn_of_readable_files(files: Iterable[Path | None]) -> None:
    """Log each existing file that its group or others can read, write or execute."""
    for file in files:
        mode = stat.S_IMODE(file.stat().st_mode) if file is not None and file.exists() else 0
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("file_readable_by_others", extra={"file": str(file), "mode": f"{mode:04o}"})
