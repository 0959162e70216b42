"""Opaque tokens: good only for the query that they were given for."""

import base64
import binascii
import hashlib

from jobledger_server.rpc.validation import InvalidRequest

_DIGEST_BYTES = 8


def token(key: object, content: str) -> str:
    """Return a token of the query named by `key`, an object with a repr of its own."""
    return base64.urlsafe_b64encode(_digest(key, content) + content.encode()).decode()


def read_token(field: str, key: object, given: str) -> str:
    """Return the content of a token.

    Raises InvalidRequest where it is damaged or was given for another query.
    """
    try:
        data = base64.b64decode(given.encode("ascii"), altchars=b"-_", validate=True)
        content = data[_DIGEST_BYTES:].decode("ascii")
    except (binascii.Error, UnicodeError):
        raise InvalidRequest([(field, "is damaged")], token=True) from None
    # The digest keeps tokens of different queries apart. It is no secret, so the content can be
    # anything that somebody made up.
    if data[:_DIGEST_BYTES] != _digest(key, content) or not content.isprintable():
        damaged = "is damaged, or was given for another query"
        raise InvalidRequest([(field, damaged)], token=True)
    return content


def _digest(key: object, content: str) -> bytes:
    return hashlib.blake2b(f"{key!r}\n{content}".encode(), digest_size=_DIGEST_BYTES).digest()
