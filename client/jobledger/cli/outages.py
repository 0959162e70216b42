"""What a command that watches says on stderr about its connection."""

import click

from jobledger import JobledgerError


class Outages:
    """Says when the connection is lost and when it is back, once for all watches of a command.

    Says nothing before the first message: a service that never answered is an error, not a note.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._heard = False
        self._disconnected = 0

    def heard(self) -> None:
        """Record that the service has sent something."""
        self._heard = True

    def disconnected(self, error: JobledgerError) -> None:
        """Record that a watch has lost its connection."""
        self._disconnected += 1
        if self._heard and self._disconnected == 1:
            reason = " ".join(str(error).removeprefix(f"{self._server}: ").split())
            click.echo(
                f"note: lost the connection to {self._server} ({reason}); reconnecting", err=True
            )

    def reconnected(self) -> None:
        """Record that a watch continues."""
        self._disconnected -= 1
        if self._heard and self._disconnected == 0:
            click.echo(f"note: connected to {self._server} again", err=True)
