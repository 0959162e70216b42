"""Watch tokens: what they permit is signed into them, so no server has to remember any.

A token is `jlw_`, what it permits as JSON, and its HMAC-SHA-256 by the key of the database, both
in base64url. It is no JSON Web Token: that needs a library which is an extra here, and a header
whose algorithm would have to be pinned.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from jobledger.v1 import job_pb2
from jobledger_server.admission.caller import Caller, Identity, Permissions, WatchScope
from jobledger_server.ledger.known_limits import KnownLimits
from jobledger_server.queue_store import QueueSettings
from jobledger_server.rpc.access.lasting_calls import LastingCalls
from jobledger_server.rpc.access.permissions import AccessDenied, IdentityFault, Unauthenticated
from jobledger_server.rpc.methods import JOB_SERVICE, METHODS

PREFIX = "jlw_"

MAX_CHARACTERS = 2048
"""Characters of a token at most, so that it fits the headers that proxies permit."""

_WATCHES = frozenset(path for path, method in METHODS.items() if method.watches)
_LIST = f"{JOB_SERVICE}ListJobs"
_OUTPUT = frozenset({f"{JOB_SERVICE}WatchOutput", f"{JOB_SERVICE}ReadOutput"})


class TokenTooLong(Exception):
    """A token for these labels would have more than MAX_CHARACTERS."""


class _Content(msgspec.Struct, frozen=True, array_like=True):
    """What a token says. `until` is in seconds since 1970."""

    until: int
    user_id: str
    job_id: str
    labels: Mapping[str, str]
    output: bool = False


_decode = msgspec.json.Decoder(_Content).decode


class WatchTokens:
    """Makes and verifies watch tokens.

    Args:
        settings: Has the key.
        known: Tells the version of what operators set, which grows with each new key.
        lasting: The running calls. Those of holders of tokens end when the key changes.
    """

    def __init__(self, settings: QueueSettings, known: KnownLimits, lasting: LastingCalls) -> None:
        self._settings = settings
        self._known = known
        self._lasting = lasting
        self._key = b""
        self._version = -2  # that of the key; none has it

    async def make(self, scope: WatchScope, until: int) -> str:
        """Return a token for some jobs.

        Args:
            scope: The jobs.
            until: When it expires, in seconds since 1970.

        Raises:
            TokenTooLong: Its labels are too long.
            StoreUnavailable: The database does not answer.
        """
        await self.renew()
        content = _Content(until, scope.user_id, scope.job_id, scope.labels, scope.output)
        signed = _encoded(msgspec.json.encode(content))
        token = f"{PREFIX}{signed}.{_encoded(self._signature(signed))}"
        if len(token) > MAX_CHARACTERS:
            raise TokenTooLong
        return token

    async def holder(self, token: str) -> Caller:
        """Return the caller that has a token.

        Raises:
            Unauthenticated: It is no token that this key has signed, or it has expired.
            StoreUnavailable: The database does not answer.
        """
        await self.renew()
        signed, _, signature = token.removeprefix(PREFIX).partition(".")
        # Nothing of it is read before it is verified. As bytes: texts have to be ASCII here.
        if not hmac.compare_digest(_encoded(self._signature(signed)).encode(), signature.encode()):
            raise Unauthenticated(IdentityFault.WRONG_SIGNATURE)
        try:
            content = _decode(base64.urlsafe_b64decode(signed))
        except (binascii.Error, msgspec.MsgspecError):  # pragma: no cover
            # Of another release.
            raise Unauthenticated(IdentityFault.UNKNOWN_TOKEN) from None
        if content.until <= time.time():
            raise Unauthenticated(IdentityFault.EXPIRED)
        scope = WatchScope(content.user_id, content.job_id, content.labels, content.output)
        methods = _WATCHES - {_LIST} if scope.job_id else _WATCHES
        permissions = Permissions(
            Identity(f"watch:{content.user_id}", content.until),
            methods=methods if scope.output else methods - _OUTPUT,
            users=frozenset({content.user_id}),
            scope=scope,
        )
        return Caller(permissions.identity.name, permissions=permissions)

    async def renew(self) -> None:
        """Read the key if it may have changed. Raises StoreUnavailable."""
        while (version := self._known.version) != self._version:
            key = await self._settings.watch_key()
            if version != self._known.version:
                continue  # another key may have come meanwhile
            if key != self._key:
                self._lasting.end_where(lambda permissions: permissions.scope is not None)
            self._key, self._version = key, version

    def _signature(self, signed: str) -> bytes:
        return hmac.digest(self._key, signed.encode(), hashlib.sha256)


def narrow(scope: WatchScope, request: Any) -> None:
    """Limit a request to the jobs of a watch token, and to what the view BASIC has of them.

    What the request leaves empty is as the token says.

    Raises:
        AccessDenied: The request names another job or another label, or a request id.
    """
    request.user_id = request.user_id or scope.user_id
    names = request.DESCRIPTOR.fields_by_name
    if "view" in names:
        request.view = job_pb2.JOB_VIEW_BASIC
    if "job_id" in names:
        request.job_id = request.job_id or scope.job_id
        _check("jobs", request.job_id, scope.job_id)
        return
    if scope.job_id:
        for job_id in request.job_ids:
            _check("jobs", job_id, scope.job_id)
        request.job_ids[:] = [scope.job_id]
    labels = request.labels if "labels" in names else request.filter.labels
    # Whoever may not see a request id may not find it out, either.
    if "filter" in names and request.filter.request_id:
        raise AccessDenied("request_id", request.filter.request_id)
    for key, value in scope.labels.items():
        _check("labels", labels.get(key, value), value)
        labels[key] = value


def _check(key: str, named: str, permitted: str) -> None:
    if permitted and named != permitted:
        raise AccessDenied(key, named)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
