"""Calls whose request has not arrived yet: how many there may be, and for how long.

gRPC calls the handler of a unary call once its request is complete, and sets no time limit for
that. So a client that begins requests and sends only a part of each could fill the memory. As
long as few requests are on their way, gRPC waits for them; beyond that the server reads them
itself, as a stream of one message, which costs a tenth more of a call and can be ended.
"""

import asyncio
from contextlib import ExitStack
from typing import Any

import grpc

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.rpc.call import Context, address_of
from jobledger_server.tuning import Tuning

MAX_SLOW, MAX_SLOW_EACH = 256, 64
"""Slow requests of all addresses together, and of one."""


class Arrivals:
    """The requests that are on their way."""

    def __init__(self, tuning: Tuning) -> None:
        self._max_untimed = tuning.untimed_requests
        self._prompt_seconds = tuning.prompt_seconds
        self._request_seconds = tuning.request_seconds
        self.slow = Admission("slow_requests", total=MAX_SLOW, each=MAX_SLOW_EACH)
        self._loop = asyncio.get_running_loop()  # to search for it at each call takes longer
        self._untimed: set[asyncio.Task[Any] | None] = set()

    def begin(self) -> bool:
        """Whether gRPC may wait for the request of the current task's call.

        gRPC searches for a call's handler in the task that then waits for the request.
        """
        task = asyncio.current_task(self._loop)
        if task is None or len(self._untimed) >= self._max_untimed:
            return False
        self._untimed.add(task)
        task.add_done_callback(self._untimed.discard)
        return True

    def arrived(self) -> None:
        """Take note that the request of the current task's call is complete."""
        self._untimed.discard(asyncio.current_task(self._loop))

    async def read(self, context: Context) -> bytes:
        """Read the request of a call that gRPC does not wait for.

        Raises:
            LimitExceeded: It did not arrive in time, or too many others of its address are slow.
            CancelledError: The client has ended the call without a request.
        """
        refusals: list[LimitExceeded] = []
        with ExitStack() as held:

            def become_slow() -> None:
                try:
                    held.enter_context(self.slow.admit(Caller(address_of(context.peer()))))
                except LimitExceeded as refusal:
                    refusals.append(refusal)
                    limit.reschedule(self._loop.time())

            held.callback(self._loop.call_later(self._prompt_seconds, become_slow).cancel)
            try:
                async with asyncio.timeout(self._request_seconds) as limit:
                    data: Any = await context.read()
            except TimeoutError:
                # Not scope "request": a retry may succeed, for instance if the client was frozen.
                late = LimitExceeded("request_seconds", self._request_seconds, scope="caller")
                raise (refusals[0] if refusals else late) from None
        if data is grpc.aio.EOF:
            raise asyncio.CancelledError  # gRPC too ends a unary call without a message like this
        return bytes(data)
