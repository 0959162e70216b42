"""Notifications between the servers of one PostgreSQL database.

One says that a server has committed changes, the other that jobs are ready without a change in the
feed, such as those that were blocked. They are sent after the commit and not in its transaction,
where NOTIFY takes a lock that all writers share. A lost notification delays a change, or a claim,
until the next regular poll.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from typing import Any

import asyncpg
from sqlalchemy import URL

from jobledger_server.database.errors import cause_of
from jobledger_server.database.hosts import connect
from jobledger_server.domain.job import JobId
from jobledger_server.sql.postgresql.postgresql_driver import PROTOCOL_ERRORS

CHANNEL = "jobledger"

COMMITTED, READY = "", "ready"
"""The payloads."""

OUTPUT_CHANNEL = "jobledger_output"
"""Its payloads are the ids of jobs that output was appended to."""

MAX_NAMED_JOBS = 200
"""Ids of one payload, which PostgreSQL limits to 8000 bytes."""

MAX_UNSENT_JOBS = 10_000
"""Ids that wait to be sent. What is watched is polled even so."""

SEND_SECONDS = 0.005
"""Between two notifications of one server at least."""

PING_SECONDS = 5.0
"""Between checks of the connection, which can break silently."""

RECONNECT_SECONDS = 1.0
"""Between attempts to connect, on average."""

LOST: tuple[type[Exception], ...] = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    *PROTOCOL_ERRORS,
)
"""What is raised where PostgreSQL or the connection to it is lost."""

log = logging.getLogger("jobledger.notifications")


class Notifications:
    """Sends and receives notifications on a connection of its own, and reconnects.

    Args:
        url: The database.
        poll_now: Called when another server has committed changes.
        look_now: Called when another server says that jobs are ready.
        appended_elsewhere: Called with jobs that another server has appended output to, and with
            None when some may have been missed.
    """

    def __init__(
        self,
        url: URL,
        poll_now: Callable[[], None],
        look_now: Callable[[], None],
        appended_elsewhere: Callable[[Collection[JobId] | None], None],
    ) -> None:
        self._url = url
        self._appended_elsewhere = appended_elsewhere
        self._appended: dict[JobId, None] = {}
        self._poll_now = poll_now
        self._look_now = look_now
        self._unsent: set[str] = set()
        self._send_now = asyncio.Event()

    def committed(self) -> None:
        """Send a notification soon: changes were committed here."""
        self._send(COMMITTED)

    def ready(self) -> None:
        """Send a notification soon: jobs are ready that no claim here waits for."""
        self._send(READY)

    def appended(self, ids: Collection[JobId]) -> None:
        """Send a notification soon: output was appended here to these jobs."""
        if len(self._appended) < MAX_UNSENT_JOBS:
            self._appended.update(dict.fromkeys(ids))
            self._send_now.set()

    def _send(self, payload: str) -> None:
        self._unsent.add(payload)
        self._send_now.set()

    async def run(self) -> None:
        """Send and receive until cancelled."""
        while True:
            try:
                await self._exchange()
            except LOST as error:
                log.warning("notifications_unavailable", extra={"cause": cause_of(error)})
            except Exception:
                log.exception("notifications_failed")
            await asyncio.sleep(RECONNECT_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311

    async def _exchange(self) -> None:
        connection = await connect(
            self._url,
            seconds=PING_SECONDS,
            command_timeout=PING_SECONDS,
            # A notification need not be durable, and must not wait for the disk.
            server_settings={
                "application_name": "jobledger notifications",
                "synchronous_commit": "off",
            },
        )
        try:
            own = connection.get_server_pid()

            def received(_connection: Any, sender: int, _channel: str, payload: Any) -> None:
                if sender != own:
                    (self._look_now if payload == READY else self._poll_now)()

            def heard(_connection: Any, sender: int, _channel: str, payload: Any) -> None:
                if sender != own:
                    self._appended_elsewhere(payload.split(","))

            await connection.add_listener(CHANNEL, received)
            await connection.add_listener(OUTPUT_CHANNEL, heard)
            # Notifications sent before it were missed.
            self._poll_now()
            self._look_now()
            self._appended_elsewhere(None)
            while True:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        await self._send_now.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")
                    continue
                self._send_now.clear()
                appended = list(self._appended)
                notices = [f"NOTIFY {CHANNEL}, '{payload}'" for payload in sorted(self._unsent)]
                notices += [
                    f"NOTIFY {OUTPUT_CHANNEL}, '{','.join(ids)}'"
                    for begin in range(0, len(appended), MAX_NAMED_JOBS)
                    for ids in [appended[begin : begin + MAX_NAMED_JOBS]]
                ]
                self._unsent.clear()
                self._appended.clear()
                await connection.execute("; ".join(notices))
                await asyncio.sleep(SEND_SECONDS)
        finally:
            connection.terminate()
