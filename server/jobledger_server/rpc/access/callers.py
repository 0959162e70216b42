"""Who makes a call: the holder of a watch token, or an identity of the access file, or anybody."""

import asyncio
import logging

from jobledger_server.admission.caller import Caller
from jobledger_server.rpc.access.access import Access
from jobledger_server.rpc.access.lasting_calls import LastingCalls
from jobledger_server.rpc.access.permissions import (
    EVERYTHING_PERMITTED,
    IdentityFault,
    Unauthenticated,
)
from jobledger_server.rpc.access.watch_tokens import PREFIX, WatchTokens
from jobledger_server.rpc.call import Call
from jobledger_server.store import StoreError
from jobledger_server.tuning import Tuning

log = logging.getLogger("jobledger.access")


class Callers:
    """Finds the callers of calls.

    Args:
        access: The access file, or None: then each caller without a watch token may do everything.
        tokens: Verifies watch tokens.
        lasting: The calls that end with their callers' permissions.
        check_seconds: Between looks for calls that have to end.
    """

    def __init__(
        self,
        access: Access | None,
        tokens: WatchTokens,
        lasting: LastingCalls,
        *,
        check_seconds: float = Tuning().caller_seconds,
    ) -> None:
        self._access = access
        self._tokens = tokens
        self.lasting = lasting
        self._check_seconds = check_seconds

    async def caller(self, call: Call, peer: str) -> Caller:
        """Return who makes a call.

        Raises:
            Unauthenticated: It has no valid identity.
            StoreUnavailable: The key of watch tokens cannot be read.
        """
        metadata = call.metadata
        tokens = [_bearer_token(value) for key, value in metadata if key == "authorization"]
        for token in tokens:
            if token.startswith(PREFIX):
                if len(tokens) > 1:
                    raise Unauthenticated(IdentityFault.SEVERAL_TOKENS)
                return await self._tokens.holder(token)
        if self._access is None:
            return Caller(peer, permissions=EVERYTHING_PERMITTED)
        return await self._access.caller(call.context, metadata, tokens)

    async def run(self) -> None:
        """End calls whose callers' identities have expired or were revoked, until cancelled."""
        while True:
            await asyncio.sleep(self._check_seconds)
            self.lasting.end_expired()
            try:
                await self._tokens.renew()
            except StoreError as error:
                # Tried again. Meanwhile no new call with a token is served.
                log.warning("watch_key_unavailable", extra={"cause": repr(error), "count": 1})


def _bearer_token(authorization: str | bytes) -> str:
    """Return the token that a call is made with, or nothing if it is not a bearer token."""
    if not isinstance(authorization, str):
        return ""
    scheme, _, token = authorization.partition(" ")
    return token if scheme.lower() == "bearer" else ""
