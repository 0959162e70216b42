"""Notifications between the servers of one PostgreSQL database.

One says that a server has committed changes, the other that jobs are ready without a change in the
feed, such as those that were blocked. They are sent after the commit and not in its transaction,
where NOTIFY takes a lock that all writers share. A lost notification delays a change, or a claim,
until the next regular poll.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import asyncpg
from sqlalchemy import URL

from jobledger_server.database.errors import cause_of
from jobledger_server.database.hosts import connect
from jobledger_server.sql.postgresql.postgresql_driver import PROTOCOL_ERRORS

CHANNEL = "jobledger"

COMMITTED, READY = "", "ready"
"""The payloads."""

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
    """

    def __init__(
        self, url: URL, poll_now: Callable[[], None], look_now: Callable[[], None]
    ) -> None:
        self._url = url
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

            await connection.add_listener(CHANNEL, received)
            # Notifications sent before it were missed.
            self._poll_now()
            self._look_now()
            while True:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        await self._send_now.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")
                    continue
                self._send_now.clear()
                payloads = sorted(self._unsent)
                self._unsent.clear()
                await connection.execute(
                    "; ".join(f"NOTIFY {CHANNEL}, '{payload}'" for payload in payloads)
                )
                await asyncio.sleep(SEND_SECONDS)
        finally:
            connection.terminate()
