"""What an operator can set: each setting once, with its default and what it is for.

The flags, the environment variables, `--help` and the table in docs/operations.md follow from here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "address",  # HOST:PORT
    "count",  # an integer of at least 1
    "part",  # more than 0, at most 1
    "seconds",  # a number of seconds
    "duration",  # a number of seconds, or with a unit: 90s, 5m, 2h, 30d
    "file",
    "switch",
    "url",
    "words",  # a set; the flag is given once for each
]


class Setting(NamedTuple):
    """How a setting is given, and what it is for."""

    name: str
    flag: str
    variable: str
    default: Any
    kind: Kind | tuple[str, ...]
    """A tuple has all possible values."""

    help: str
    none: str = ""
    """What the default is called where its value is None."""

    at_least: float = 0
    """The lowest number of seconds."""


_KEY = "setting"


def _setting(
    default: Any,
    kind: Kind | tuple[str, ...],
    help_text: str,
    *,
    flag: str | None = None,
    none: str = "",
    at_least: float = 0,
) -> Any:
    return field(default=default, metadata={_KEY: (kind, help_text, flag, none, at_least)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a server. Times are in seconds.

    `database_file` is where `database` was read from, if from a file; `shares_port`
    says that this is one of several processes on one port, as `--processes` starts them.
    """

    database: str = "sqlite:///jobledger.db"
    database_file: Path | None = None
    shares_port: bool = False

    listen: str = _setting(
        "127.0.0.1:50051",
        "address",
        "Where to take calls. Port 0 takes any free port; the log says which. Calls are neither "
        "encrypted nor authenticated here: off loopback put a service mesh or a proxy in front.",
    )
    processes: int = _setting(
        1,
        "count",
        "How many processes serve the port, on PostgreSQL alone: one can hardly use more than one "
        "core. Connections are divided among them, and each has the limits below for itself.",
    )
    reflection: bool | None = _setting(
        None,
        "switch",
        "Let tools such as `buf curl` ask for the service's definition.",
        none="on where it listens on loopback only",
    )
    grace: float = _setting(
        20.0, "seconds", "On SIGTERM or SIGINT, how long running calls may take to finish."
    )
    heartbeat: float = _setting(
        15.0,
        "seconds",
        "How long a watch may be silent before the server sends a heartbeat. The Python clients "
        "give up on a stream after 45 silent seconds: stay well below.",
        at_least=0.05,
    )
    max_watches: int = _setting(
        20_000,
        "count",
        "Watches open at once; more are refused with RESOURCE_EXHAUSTED. An idle one takes about "
        "30 KiB.",
    )
    max_watch_age: float = _setting(
        1800.0,
        "duration",
        "After how long a watch, or a connection, is asked to begin anew, so that load spreads "
        "over servers; up to a quarter sooner or later. 0: never.",
    )
    max_streams: int = _setting(
        1024,
        "count",
        "Calls and watches at once over one connection; a client's further ones wait. Lower it "
        "where strangers connect: see docs/exposure.md.",
    )
    max_connections: int = _setting(
        10_000,
        "count",
        "Connections at once, as far as the limit of open files allows; more are closed at once.",
    )
    max_connection_idle: float = _setting(
        300.0,
        "duration",
        "After how long a connection without any call or watch is closed; up to a tenth sooner or "
        "later. 0: never.",
    )
    max_waiting: int = _setting(
        20_000,
        "count",
        "Calls that wait for the database at once, changes and reads each; more are refused with "
        "RESOURCE_EXHAUSTED.",
    )
    caller_share: float = _setting(
        0.25,
        "part",
        "The part of each limit that one caller may take, so that it leaves the rest to others. A "
        "caller is an identity of the access file, else an owner or worker on one connection.",
    )
    feed: Literal["notify", "poll"] = _setting(
        "notify",
        ("notify", "poll"),
        "How a server on PostgreSQL learns of what others commit: by notifications, and by "
        "polling every half second all the same; or, as behind PgBouncer, by polling alone.",
    )
    retain_terminal: float | None = _setting(
        None,
        "duration",
        "Delete jobs this long after they reached their terminal state.",
        none="jobs stay",
    )
    retain_deletions: float = _setting(
        7 * 24 * 3600.0,
        "duration",
        "How long the server remembers which jobs were deleted. A watch of many jobs that was "
        "disconnected for longer has to list them again.",
    )
    metrics: str | None = _setting(
        None,
        "address",
        "Serve metrics for Prometheus there, with the extra 'metrics'. Of several processes the "
        "second does at the next port, and so on.",
        none="none",
    )
    access: Path | None = _setting(  # noqa: RUF009
        None,
        "file",
        "A TOML file of callers, their tokens' hashes, and what each may do.",
        none="every caller may do everything",
    )
    url_schemes: frozenset[str] = _setting(
        frozenset({"http", "https"}),
        "words",
        "A scheme that an asset's URL may have, for instance s3. Give the flag once for each; in "
        "the variable separate them by spaces.",
        flag="--url-scheme",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info",
        ("debug", "info", "warning", "error"),
        "What goes to standard error, one JSON object a line. `info` has every transition.",
    )

    @property
    def reflects(self) -> bool:
        """Whether the server answers reflection."""
        return self.only_loopback if self.reflection is None else self.reflection

    @property
    def only_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        host = self.listen.rpartition(":")[0].strip("[]")
        return (
            host in ("localhost", "::1")
            or host.startswith("127.")
            or self.listen.startswith("unix:")
        )


def all_settings() -> Iterator[Setting]:
    """Return the settings of `jobledger-server serve` besides the database, in order."""
    for each in fields(Settings):
        if _KEY in each.metadata:
            kind, help_text, flag, none, at_least = each.metadata[_KEY]
            yield Setting(
                each.name,
                flag or "--" + each.name.replace("_", "-"),
                f"JOBLEDGER_{each.name.upper()}",
                each.default,
                kind,
                help_text,
                none,
                at_least,
            )
