"""Who the service knows: asked before more is done for a caller than to read a small request."""

import time
from collections import OrderedDict
from hashlib import sha256
from typing import Final

import grpc

from jobledger.core.options import Headers
from jobledger.errors import JobledgerError
from jobledger.v1.job_service_pb2 import GetJobRequest
from jobledger_gateway.upstream import Upstream

KNOWN_SECONDS: Final = 10.0
"""How long the service's answer counts."""

MAX_KNOWN: Final = 10_000
"""Callers at most whose answers are kept."""

_KNOWN: Final = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED})


class KnownCallers:
    """Asks the service whether it knows a caller, and remembers for a short time whom it knows.

    Args:
        upstream: calls the service.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._until: OrderedDict[bytes, float] = OrderedDict()

    async def check(self, metadata: Headers) -> None:
        """Return if the service knows who brings these headers. Raises JobledgerError."""
        authorization = tuple(each for each in metadata if each[0] == "authorization")
        key = sha256(repr(authorization).encode()).digest()
        now = time.monotonic()
        if self._until.get(key, 0.0) > now:
            return
        try:
            # Without a job's id it is refused once the caller is known, and before any work.
            await self._upstream.call("JobService.GetJob", GetJobRequest(), authorization)
        except JobledgerError as error:
            if error.code not in _KNOWN:
                raise
        self._until[key] = now + KNOWN_SECONDS
        self._until.move_to_end(key)
        if len(self._until) > MAX_KNOWN:
            self._until.popitem(last=False)
