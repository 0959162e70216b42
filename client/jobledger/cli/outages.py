"""What a command that watches says about its connection."""

from collections.abc import Callable

from jobledger import JobledgerError


class Outages:
    """Says when the connection is lost and when it is back, once for all watches of a command.

    Says nothing before the first message: a service that never answered is an error, not a note.
    """

    def __init__(self, server: str, note: Callable[[str], None]) -> None:
        self._server = server
        self._note = note
        self._has_received = False
        self._disconnected = 0

    def received(self) -> None:
        """Record that the service has sent something."""
        self._has_received = True

    def disconnected(self, error: JobledgerError) -> None:
        """Record that a watch has lost its connection."""
        self._disconnected += 1
        if self._has_received and self._disconnected == 1:
            reason = " ".join(str(error).removeprefix(f"{self._server}: ").split())
            self._note(f"lost the connection to {self._server} ({reason}); reconnecting")

    def reconnected(self) -> None:
        """Record that a watch continues."""
        self._disconnected -= 1
        if self._has_received and self._disconnected == 0:
            self._note(f"connected to {self._server} again")
