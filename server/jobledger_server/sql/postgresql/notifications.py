"""Notifications between the servers of one PostgreSQL database: a server has committed.

They have no payload. They are sent after the commit and not in its transaction, where NOTIFY
takes a lock that all writers share. A lost notification delays a change until the next
regular poll.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import asyncpg
from sqlalchemy import URL

from jobledger_server.sql.database_errors import cause_of
from jobledger_server.sql.postgresql.postgresql_driver import PROTOCOL_ERRORS

CHANNEL = "jobledger"

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
        poll_now: Called for each notification from another server.
    """

    def __init__(self, url: URL, poll_now: Callable[[], None]) -> None:
        # asyncpg reads URLs as libpq does.
        dsn = url.set(drivername="postgresql")
        self._dsn = dsn.render_as_string(hide_password=False)
        self._poll_now = poll_now
        self._committed = asyncio.Event()

    def committed(self) -> None:
        """Send a notification soon: something was committed here."""
        self._committed.set()

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
        connection = await asyncpg.connect(
            self._dsn,
            timeout=PING_SECONDS,
            command_timeout=PING_SECONDS,
            # A notification need not be durable, and must not wait for the disk.
            server_settings={
                "application_name": "jobledger notifications",
                "synchronous_commit": "off",
            },
        )
        try:
            own = connection.get_server_pid()

            def received(_connection: Any, sender: int, _channel: str, _payload: Any) -> None:
                if sender != own:
                    self._poll_now()

            await connection.add_listener(CHANNEL, received)
            self._poll_now()  # notifications sent before it were missed
            while True:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        await self._committed.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")
                    continue
                self._committed.clear()
                await connection.execute(f"NOTIFY {CHANNEL}")
                await asyncio.sleep(SEND_SECONDS)
        finally:
            connection.terminate()
