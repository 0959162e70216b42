"""Opaque tokens, each valid only for the query that it was returned for."""

import base64
import binascii
import hashlib

from jobledger_server.rpc.validation import InvalidRequest

_DIGEST_BYTES = 8


def token(key: object, content: str) -> str:
    """Return a token for a query. Equal queries, and only those, have keys of equal repr."""
    return base64.urlsafe_b64encode(_digest(key, content) + content.encode()).decode()


def read_token(field: str, key: object, given: str) -> str:
    """Return the content of a token.

    Raises:
        InvalidRequest: The token is damaged or of another query.
    """
    try:
        data = base64.b64decode(given.encode("ascii"), altchars=b"-_", validate=True)
        content = data[_DIGEST_BYTES:].decode("ascii")
    except (binascii.Error, UnicodeError):
        raise InvalidRequest([(field, "is damaged")], token=True) from None
    # The digest keeps tokens of different queries apart. It is not secret, so a client can make a
    # token with any content.
    printable = content and content.isprintable()
    if data[:_DIGEST_BYTES] != _digest(key, content) or not printable:
        damaged = "is damaged, or was returned for another query"
        raise InvalidRequest([(field, damaged)], token=True)
    return content


def _digest(key: object, content: str) -> bytes:
    return hashlib.blake2b(f"{key!r}\n{content}".encode(), digest_size=_DIGEST_BYTES).digest()
