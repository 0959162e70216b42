"""The connection of a command: where the service is, who calls, and how they prove it."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import click

from jobledger import AsyncClient, Client
from jobledger.core.connection_options import DEFAULTS, ConnectionOptions

__all__ = ["DEFAULTS", "Connection"]


class Connection(ConnectionOptions):
    """What each client of a command is made with."""

    @classmethod
    def of(cls, layers: Sequence[Mapping[str, Any]]) -> Self:
        """Make one of options by name; an earlier layer wins over a later one.

        Raises:
            click.UsageError: they contradict each other, or a file cannot be used.
        """
        try:
            return super().of(layers)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def open(self, *, all_users: bool = False) -> Client:
        """Open a client for the user's jobs, or one that calls for no owner."""
        return Client(self.server, **self._arguments(all_users=all_users))

    def open_async(self, *, all_users: bool = False) -> AsyncClient:
        """Open a client as `open` does, for asyncio."""
        return AsyncClient(self.server, **self._arguments(all_users=all_users))

    def _arguments(self, *, all_users: bool) -> dict[str, Any]:
        if self.user is None and not all_users:
            raise click.UsageError("whose jobs? Give --user, or set JOBLEDGER_USER")
        return {**self.arguments(), "user_id": None if all_users else self.user}
