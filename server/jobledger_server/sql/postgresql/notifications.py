"""Notifications between servers on one PostgreSQL: somebody has committed, poll_now.

They carry nothing and prove nothing. Sent after the commit and never in its
transaction, where NOTIFY would take a lock that all writers share; lost ones cost
the time until the next regular poll_now.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import asyncpg
from sqlalchemy import URL

CHANNEL = "jobledger"

SEND_SECONDS = 0.005
"""Between two hints of one server: more often would tell nothing new."""

PING_SECONDS = 5.0
"""Between checks that the connection still hears: it can die without a word."""

RECONNECT_SECONDS = 1.0
"""Between attempts to connect."""

log = logging.getLogger("jobledger.notifications")


class Notifications:
    """Sends and hears hints over a connection of its own, which it restores by itself."""

    def __init__(self, url: URL, poll_now: Callable[[], None]) -> None:
        # asyncpg reads URLs as libpq does.
        dsn = url.set(drivername="postgresql")
        self._dsn = dsn.render_as_string(hide_password=False)
        self._poll_now = poll_now
        self._committed = asyncio.Event()

    def committed(self) -> None:
        """Let the others know, soon, that something was committed here."""
        self._committed.set()

    async def run(self) -> None:
        """Send and hear until cancelled."""
        while True:
            try:
                await self._exchange()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("notifications_unavailable", extra={"cause": str(error)})
            except Exception:
                log.exception("notifications_failed")
            await asyncio.sleep(RECONNECT_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311

    async def _exchange(self) -> None:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=PING_SECONDS,
            command_timeout=PING_SECONDS,
            # A hint need not be durable, and must not wait for the disk.
            server_settings={
                "application_name": "jobledger notifications",
                "synchronous_commit": "off",
            },
        )
        try:
            own = connection.get_server_pid()

            def heard(_connection: Any, sender: int, _channel: str, _payload: Any) -> None:
                if sender != own:
                    self._poll_now()

            await connection.add_listener(CHANNEL, heard)
            self._poll_now()  # what was hinted at meanwhile was not heard
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
