"""What a receiver of webhooks needs: it verifies a delivery, and returns its event.

    event = verify(SECRET, request.headers, request.body)

Signed as Standard Webhooks (https://www.standardwebhooks.com) says, so that its libraries verify
deliveries in other languages. Needs nothing but the standard library.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["TOLERANCE", "InvalidSignature", "sign", "verify"]

TOLERANCE: Final = 300.0
"""Seconds that a delivery may be old, or ahead of the receiver's clock."""

_PREFIX: Final = "whsec_"
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


class InvalidSignature(ValueError):
    """The delivery is not from somebody who knows the secret, or it is too old."""


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` of a delivery.

    Args:
        secret: `whsec_...`, or its base64 part.
        webhook_id: the header `webhook-id`.
        timestamp: the header `webhook-timestamp`: seconds since the Unix epoch.
        body: the body.

    Raises:
        ValueError: the secret is not base64.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("secret: is not whsec_ and base64") from None
    signed = b".".join((_bytes(webhook_id), str(timestamp).encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def verify(
    secret: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    tolerance: float = TOLERANCE,
) -> Any:
    """Return the event of a delivery, a CloudEvent as a dict, if its signature is valid.

    Args:
        secret: the secret that the webhook was created with; or several, of which one must fit.
        headers: those of the request, in any case of letters.
        body: the body as it was received.
        tolerance: seconds that it may be old, or ahead.

    Raises:
        InvalidSignature: no signature fits, or the time is too far from now.
        ValueError: a secret is not base64.
    """
    found = {name.lower(): value for name, value in headers.items()}
    webhook_id = found.get("webhook-id", "")
    stamp = found.get("webhook-timestamp", "")
    if not _TIMESTAMP.fullmatch(stamp) or abs(time.time() - int(stamp)) > tolerance:
        raise InvalidSignature("webhook-timestamp is missing, or too far from now")
    given = found.get("webhook-signature", "").split()
    for each in [secret] if isinstance(secret, str) else secret:
        expected = sign(each, webhook_id, int(stamp), body).encode()
        if any(hmac.compare_digest(_bytes(one), expected) for one in given):
            return json.loads(body)
    raise InvalidSignature("webhook-signature does not fit the secret")


def _bytes(header: str) -> bytes:
    # Some servers read a byte that is not UTF-8 as a lone surrogate.
    return header.encode(errors="surrogatepass")
