"""The gateway's log: one JSON object per line, on standard error, as the server's.

Each message of the gateway is the name of its event, followed by its fields:
`log.warning("webhook_fails webhook=%s failure=%r", …)`.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Final

MAX_TEXT: Final = 1000
"""Characters of a field at most. Receivers of webhooks and callers choose some of them."""

MAX_EXCEPTION: Final = 3000

OWN: Final = "jobledger.gateway"

ACCESS: Final = "uvicorn.access"
REQUEST_FIELDS: Final = ("client", "method", "path", "http_version", "status")

_FIELD: Final = re.compile(r"(\w+)=%[sr]")


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, logger, event, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **_event(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-MAX_EXCEPTION:]
        return json.dumps(line)


def _event(record: logging.LogRecord) -> dict[str, Any]:
    values = record.args if isinstance(record.args, tuple) else ()
    if record.name == ACCESS:
        return {"event": "request", **dict(zip(REQUEST_FIELDS, values, strict=True))}
    names = _FIELD.findall(str(record.msg))
    # The client's core has sentences, as libraries do.
    if not record.name.startswith(OWN) or len(names) != len(values):
        return {"event": "library_message", "text": record.getMessage()[:MAX_TEXT]}
    fields = dict(zip(names, map(_value, values), strict=True))
    return {"event": record.msg.partition(" ")[0], **fields}


def _value(value: object) -> object:
    return value if isinstance(value, int | float) else str(value)[:MAX_TEXT]


def log_to_stderr(level: int) -> None:
    """Log to standard error from now on; what uvicorn says of itself from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
