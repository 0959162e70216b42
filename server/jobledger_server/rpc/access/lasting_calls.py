"""Calls that last, and end when what their callers may do changes, or when the server drains."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from jobledger_server.admission.caller import Caller, Permissions
from jobledger_server.admission.endings import Ending, PermissionsChanged


@dataclass(eq=False, slots=True)
class _LastingCall:
    task: "asyncio.Task[Any]"
    permissions: Permissions
    ended: bool = False

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.task.cancel()


class LastingCalls:
    """Running calls that the server can end."""

    def __init__(self) -> None:
        self._calls: dict[_LastingCall, None] = {}  # as a set that keeps the order

    def __len__(self) -> int:
        return len(self._calls)

    @contextmanager
    def until_ended(
        self, caller: Caller, ending: type[Ending] = PermissionsChanged
    ) -> Iterator[None]:
        """Let the current task's call end, with `ending`, when `end_where` finds it.

        By default that is when its caller's permissions change, or what proves its identity
        expires: the client opens the call again, and is then judged anew.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        call = _LastingCall(task, caller.permissions)
        self._calls[call] = None
        try:
            yield
        except asyncio.CancelledError:
            if not call.ended or call.task.uncancel():
                raise  # the client has cancelled it
            raise ending from None
        finally:
            del self._calls[call]

    def end_where(self, ends: Callable[[Permissions], bool]) -> None:
        """End the calls whose callers' permissions say so."""
        for call in self._calls:
            if ends(call.permissions):
                call.end()

    def end_expired(self) -> None:
        """End the calls whose callers' identities have expired."""
        now = time.time()
        self.end_where(lambda permissions: permissions.identity.until <= now)
