"""Media types of output, which are what a worker has said: served so that no browser runs it."""

import re
from typing import Final

DEFAULT: Final = "text/plain; charset=utf-8"
"""That of a stream that no worker has begun."""

_SERVED: Final = re.compile(r"(text|image|audio|video|font|model|application)/[!-~]+( *;[ -~]*)?")
_RUN: Final = re.compile(r"(java|ecma|j|live)script|css")
_UTF_8: Final = re.compile(r'"?(utf-8|utf8|us-ascii|ascii)"?', re.IGNORECASE)

SAFE: Final = {
    # A document of an origin of its own, without scripts: also if it is HTML.
    "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}


def served_type(content_type: str) -> str:
    """Return the media type that a stream is served as.

    With `nosniff`, which each answer has, a page of the gateway's own origin could only run a
    script or apply a style sheet that says so itself: these are served as the text that they are.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if _RUN.search(kind):
        return DEFAULT
    return content_type if _SERVED.fullmatch(content_type) else "application/octet-stream"


def is_text(content_type: str) -> bool:
    """Return whether a stream's events have text: what is UTF-8 and `text/*` or JSON."""
    kind, _, parameters = content_type.lower().partition(";")
    if not (kind.strip().startswith("text/") or kind.strip() == "application/json"):
        return False
    charset = re.search(r"charset *= *([^; ]+)", parameters)
    return charset is None or _UTF_8.fullmatch(charset[1]) is not None


def disposition(content_type: str, job_id: str, stream: str) -> dict[str, str]:
    """Return the header with which a browser stores what is no plain text."""
    if content_type.partition(";")[0].strip().lower() == "text/plain":
        return {}
    name = f"{job_id}-{stream or 'output'}"
    return {"content-disposition": f'attachment; filename="{name}"'}
