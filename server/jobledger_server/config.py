"""What an operator can set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `jobledger-server serve` can be told; its --help explains each.

    `database_file` is where `database` was read from, if from a file; `reflection`
    None means: on where only this machine can connect; `retain_terminal` None:
    indefinitely; `max_watch_age` and `max_connection_idle` 0: no end; `shares_port`:
    this is one of several processes on one port, as `--processes` starts them. Times
    are in seconds.
    """

    listen: str = "127.0.0.1:50051"
    shares_port: bool = False
    database: str = "sqlite:///jobledger.db"
    database_file: Path | None = None
    reflection: bool | None = None
    grace: float = 20.0
    heartbeat: float = 15.0
    max_watches: int = 20_000
    max_waiting: int = 20_000
    caller_share: float = 0.25
    max_watch_age: float = 1800.0
    max_streams: int = 1024
    max_connections: int = 10_000
    max_connection_idle: float = 300.0
    feed: Literal["hints", "poll"] = "hints"
    retain_terminal: float | None = None
    retain_deletions: float = 7 * 24 * 3600.0
    metrics: str | None = None
    access_file: Path | None = None
    url_schemes: frozenset[str] = frozenset({"http", "https"})

    @property
    def only_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        host = self.listen.rpartition(":")[0].strip("[]")
        return (
            host in ("localhost", "::1")
            or host.startswith("127.")
            or self.listen.startswith("unix:")
        )
