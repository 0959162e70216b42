"""What is logged of libraries' messages, which can contain what callers sent, tokens included.

Only the constant part of a message is logged, and the type of an error without its
traceback. An error that this package's own code raised is a bug and keeps its traceback.
"""

import inspect
import io
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

OUTPUT_CHARACTERS = 1000
"""Characters of one output of a library that are logged at most."""

_CONSTANT = re.compile(r"\w+(?: \w+)*", re.ASCII)
_OWN_CODE = f"{Path(__file__).parent.parent}{os.sep}"
_RPC_LIBRARIES = ("grpc", "google")


class CountedStderr(io.TextIOBase):
    """Replaces standard error for libraries: logs who printed, and only at level debug what."""

    _log = logging.getLogger("jobledger.stderr")

    def write(self, text: str) -> int:
        if lines := text.count("\n"):
            logging.getLogger(_printing_module()).warning(
                "printed to standard error", exc_info=sys.exception(), extra={"count": lines}
            )
        if text.strip():
            self._log.debug("library_output", extra={"text": text[:OUTPUT_CHARACTERS]})
        return len(text)


def _printing_module() -> str:
    """Return the name of the module that prints now, itself or by the module `traceback`."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "traceback"):
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


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
