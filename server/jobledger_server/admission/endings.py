"""Why the server ends a call that could go on: its client calls again."""


class Ending(Exception):
    """The call ends or is refused, at this server and for now; its client calls again.

    It waits `retry_after` seconds first. `resume_token` is where a watch of many jobs continues.
    """

    def __init__(self, *, retry_after: int = 0) -> None:
        super().__init__()
        self.retry_after = retry_after
        self.resume_token = ""


class ShuttingDown(Ending):
    """The server is shutting down."""


class FeedRestarted(Ending):
    """The feed starts over, so every watch does."""


class StreamTooOld(Ending):
    """The stream has reached its maximum age."""


class PermissionsChanged(Ending):
    """The caller's permissions have changed. A new call is judged by the new ones."""
