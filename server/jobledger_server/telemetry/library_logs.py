"""What is logged of libraries' messages, which can contain what callers sent, tokens included.

Only the constant part of a message is logged, and the type of an error without its
traceback. An error that this package's own code raised is a bug and keeps its traceback.
"""

import io
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

_CONSTANT = re.compile(r"\w+(?: \w+)*", re.ASCII)
_OWN_CODE = f"{Path(__file__).parent.parent}{os.sep}"
_RPC_LIBRARIES = ("grpc", "google")


class CountedStderr(io.TextIOBase):
    """Replaces standard error for libraries: counts the lines that they print, and drops them."""

    _log = logging.getLogger("stderr")

    def write(self, text: str) -> int:
        if lines := text.count("\n"):
            self._log.warning("", exc_info=sys.exception(), extra={"count": lines})
        return len(text)


def without_private_data(record: logging.LogRecord) -> logging.LogRecord:
    """Return a rate-limited `library_message` with what may be logged of the record."""
    text = _CONSTANT.match(record.msg) if isinstance(record.msg, str) else None
    fields: dict[str, Any] = {
        "text": text.group() if text else "",
        "count": vars(record).get("count", 1),
    }
    level, exc_info = min(record.levelno, logging.WARNING), None
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        fields["error"] = type(error).__name__
        if _is_own_bug(error):
            level, exc_info = record.levelno, record.exc_info
    return logging.getLogger(record.name).makeRecord(
        record.name, level, "", 0, "library_message", (), exc_info, extra=fields
    )


def _is_own_bug(error: BaseException) -> bool:
    """Whether own code raised the error, and not gRPC or protobuf because of a call."""
    if type(error).__module__.partition(".")[0] in _RPC_LIBRARIES:
        return False
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
            return True
        frame = frame.tb_next
    return False
