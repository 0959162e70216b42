"""Calls that last, which end when what their callers may do changes."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from jobledger_server.admission.caller import Caller, Permissions
from jobledger_server.admission.endings import PermissionsChanged


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
    """The running calls that end with the permissions of their callers."""

    def __init__(self) -> None:
        self._calls: dict[_LastingCall, None] = {}  # as a set that keeps the order

    def __len__(self) -> int:
        return len(self._calls)

    @contextmanager
    def until_changed(self, caller: Caller) -> Iterator[None]:
        """Let the current task's call end when its caller's permissions do.

        Also when what proves its identity expires. Raises PermissionsChanged: the client opens the
        call again, and is then judged anew.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        call = _LastingCall(task, caller.permissions)
        self._calls[call] = None
        try:
            yield
        except asyncio.CancelledError:
            if not call.ended or call.task.uncancel():
                raise  # the client has cancelled it
            raise PermissionsChanged from None
        finally:
            del self._calls[call]

    def end_where(self, has_changed: Callable[[Permissions], bool]) -> None:
        """End the calls whose callers' permissions have changed."""
        for call in self._calls:
            if has_changed(call.permissions):
                call.end()

    def end_expired(self) -> None:
        """End the calls whose callers' identities have expired."""
        now = time.time()
        self.end_where(lambda permissions: permissions.identity.until <= now)
