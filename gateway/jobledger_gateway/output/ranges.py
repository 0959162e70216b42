"""Which bytes of a file a request asks for, by RFC 9110."""

import re
from typing import Final

from starlette.requests import Request

from jobledger_gateway.problems import HttpProblem

_RANGE: Final = re.compile("bytes=([0-9]{0,18})-([0-9]{0,18})")


def asked_range(request: Request, size: int, etag: str) -> range | None:
    """Return the bytes that are asked for; None for all.

    Several ranges at once, other units and what cannot be read are ignored, as the RFC permits.

    Raises:
        HttpProblem: the file has none of them (416).
    """
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = asked[1], asked[2]
    if not first and not last:
        return None
    if not first:
        found = range(max(0, size - int(last)), size)
    elif last and int(last) < int(first):
        return None
    else:
        found = range(int(first), min(size, int(last) + 1) if last else size)
    if not found:
        headers = {"Content-Range": f"bytes */{size}"}
        raise HttpProblem(416, f"the output has {size} bytes", headers)
    return found


def is_known(request: Request, etag: str) -> bool:
    """Return whether the client has this answer already."""
    given = request.headers.get("if-none-match", "")
    return etag in {each.strip().removeprefix("W/") for each in given.split(",")} or given == "*"
