"""The settings of the server, each declared once: its type, default and help text.

The flags, the environment variables, `--help` and docs/reference/settings.md follow from these
declarations.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jobledger_server.domain.limits import (
    DEFAULT_JOB_OUTPUT_BYTES,
    DEFAULT_OUTPUT_RATE,
    DEFAULT_OWNER_OUTPUT_RATE,
    DEFAULT_WEBHOOKS_EACH,
    MAX_JOB_OUTPUT_BYTES,
    MIN_JOB_OUTPUT_BYTES,
)

Kind = Literal[
    "address",  # HOST:PORT
    "listen",  # HOST:PORT or unix:FILE
    "count",  # an integer of at least 1
    "bytes",  # a number of bytes, or with a unit: 64KiB, 1MiB
    "fraction",  # more than 0, at most 1
    "duration",  # a number of seconds, or with a unit: 90s, 5m, 2h, 30d
    "file",
    "switch",
    "url",
    "schemes",  # a set of URL schemes; the flag is repeated
]


class Setting(NamedTuple):
    """How a setting is given, and its help text."""

    name: str
    flag: str
    variable: str
    default: Any
    kind: Kind | tuple[str, ...]
    """A tuple has all allowed values."""

    help: str
    none: str = ""
    """How a default of None is shown."""

    at_least: float = 0
    """The least allowed value: of a duration in seconds."""

    at_most: float = inf
    """The greatest allowed value."""


def _setting(default: Any, kind: Kind | tuple[str, ...], help_text: str, **more: Any) -> Any:
    """Declare a setting; `more` are other fields of `Setting`."""
    return field(default=default, metadata={"kind": kind, "help": help_text, **more})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a server. Times are in seconds.

    `database_file` is the file that `database` was read from, if any. `shares_port` is true
    for each of several processes on one port, as `--processes` starts them.
    """

    database: str = "sqlite:///jobledger.db"
    database_file: Path | None = None
    shares_port: bool = False

    listen: str = _setting(
        "127.0.0.1:50051",
        "listen",
        "Address to serve, or unix:FILE for a Unix socket. With port 0 the server chooses a free "
        "port and logs it. Off loopback it needs --tls-cert or --insecure.",
    )
    tls_cert: Path | None = _setting(  # noqa: RUF009
        None,
        "file",
        "The server's certificate and those between it and the CA, in PEM. Read again when it "
        "changes.",
        none="connections are not encrypted",
    )
    tls_key: Path | None = _setting(  # noqa: RUF009
        None, "file", "The certificate's private key, in PEM, without a password.", none="none"
    )
    tls_client_ca: Path | None = _setting(  # noqa: RUF009
        None,
        "file",
        "The CAs of clients' certificates, in PEM. Each client then needs a certificate.",
        none="clients need no certificate",
    )
    insecure: bool = _setting(
        False,  # noqa: FBT003
        "switch",
        "Serve off loopback without TLS: for a network where a service mesh or a proxy encrypts "
        "connections and decides who may call.",
    )
    processes: int = _setting(
        1,
        "count",
        "Number of processes that serve the port, on PostgreSQL only. One process uses hardly more "
        "than one core. Each has its own connections, and the limits below apply to each.",
    )
    reflection: bool | None = _setting(
        None,
        "switch",
        "Serve gRPC reflection, for tools such as `buf curl`.",
        none="on if the server listens on loopback only",
    )
    database_wait: float = _setting(
        60.0,
        "duration",
        "How long a server that starts waits for a PostgreSQL that does not answer, or is still a "
        "standby. Its port is closed meanwhile. 0: it fails at once.",
    )
    health_database: bool = _setting(
        False,  # noqa: FBT003
        "switch",
        "Report NOT_SERVING while the database does not answer, after five seconds. See "
        "docs/operate/deploy.md for why this is off.",
    )
    health: str | None = _setting(
        None,
        "address",
        "Address to answer health checks at without TLS, and nothing else: for probes that know no "
        "TLS, as those of Kubernetes. Each further process of `--processes` uses the next port.",
        none="none",
    )
    admin: str | None = _setting(
        None,
        "address",
        "Loopback address to serve channelz at, gRPC's own view of its connections and calls; "
        "needs the extra 'admin'. Each further process of `--processes` uses the next port.",
        none="none",
    )
    grace: float = _setting(
        20.0, "duration", "How long calls in progress may take to finish after SIGTERM or SIGINT."
    )
    heartbeat: float = _setting(
        15.0,
        "duration",
        "Interval after which a watch without updates is sent a heartbeat. The Python clients "
        "give up on a stream after 45 seconds without a message: stay well below.",
        at_least=0.05,
    )
    max_watches: int = _setting(
        20_000,
        "count",
        "Maximum number of open watches. Further ones are refused with RESOURCE_EXHAUSTED. An idle "
        "watch takes about 30 KiB.",
    )
    max_watch_age: float = _setting(
        1800.0,
        "duration",
        "Maximum age of a watch or a connection. Its client then reconnects, so that load spreads "
        "over servers. That of a watch varies at random by up to a quarter, that of a connection "
        "by up to a tenth. 0: no maximum.",
    )
    max_streams: int = _setting(
        100,
        "count",
        "Maximum number of concurrent calls and watches on one connection. Further ones wait in "
        "the client. Raise it behind a proxy that sends all calls over one connection: see "
        "docs/operate/exposure.md.",
    )
    max_connections: int = _setting(
        10_000,
        "count",
        "Maximum number of connections, as far as the limit of open files allows. Further ones are "
        "closed immediately.",
    )
    max_connection_idle: float = _setting(
        300.0,
        "duration",
        "Idle time after which a connection without calls and watches is closed. It varies at "
        "random by up to a tenth. 0: never.",
    )
    max_waiting: int = _setting(
        20_000,
        "count",
        "Maximum number of calls that wait for the database, for writes and for reads each. "
        "Further ones are refused with RESOURCE_EXHAUSTED.",
    )
    max_user_webhooks: int = _setting(
        DEFAULT_WEBHOOKS_EACH,
        "count",
        "Maximum number of webhooks of one owner; each end of a job is posted to all that match. "
        "Of all owners together there are at most 1000.",
    )
    job_output: int = _setting(
        DEFAULT_JOB_OUTPUT_BYTES,
        "bytes",
        "Output that is stored of one job, 64KiB to 64MiB. Of more, the oldest goes, or the newest "
        "is refused if the job's creator said so.",
        at_least=MIN_JOB_OUTPUT_BYTES,
        at_most=MAX_JOB_OUTPUT_BYTES,
    )
    owner_output_rate: int = _setting(
        DEFAULT_OWNER_OUTPUT_RATE,
        "bytes",
        "Output that the jobs of one owner may write in a second at one server. More is refused "
        "with RESOURCE_EXHAUSTED, and workers write it later.",
    )
    output_rate: int = _setting(
        DEFAULT_OUTPUT_RATE,
        "bytes",
        "The same for the jobs of all owners together.",
    )
    caller_share: float = _setting(
        0.25,
        "fraction",
        "Fraction of each limit that one caller may use; the rest is left to others. A caller is "
        "an identity of the access file, or else an owner or worker on one connection.",
    )
    feed: Literal["notify", "poll"] = _setting(
        "notify",
        ("notify", "poll"),
        "How a server on PostgreSQL learns of other servers' commits: `notify` by notifications "
        "and by polling every half second, `poll` by polling only.",
    )
    retain_terminal: float | None = _setting(
        None,
        "duration",
        "Delete jobs this long after they reached their terminal state.",
        none="never",
    )
    retain_deletions: float = _setting(
        7 * 24 * 3600.0,
        "duration",
        "How long deletions of jobs are kept for watches. A watch of many jobs that was "
        "disconnected for longer has to list its jobs again.",
    )
    metrics: str | None = _setting(
        None,
        "address",
        "Address to serve Prometheus metrics at. Each further process "
        "of `--processes` uses the next port.",
        none="none",
    )
    otlp: str | None = _setting(
        None,
        "url",
        "Endpoint of an OpenTelemetry collector that metrics and traces are sent to by OTLP over "
        "gRPC, for instance http://127.0.0.1:4317; needs the extra 'otel'. The variables OTEL_* "
        "set the rest.",
        none="none",
    )
    access: Path | None = _setting(  # noqa: RUF009
        None,
        "file",
        "A TOML file of callers, the hashes of their tokens, and their permissions.",
        none="every caller may do everything",
    )
    url_schemes: frozenset[str] = _setting(
        frozenset({"http", "https"}),
        "schemes",
        "An allowed scheme of asset URLs, for instance s3. Repeat the flag for each; in the "
        "variable, separate them by spaces.",
        flag="--url-scheme",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info",
        ("debug", "info", "warning", "error"),
        "Lowest level to log, to standard error as one JSON object per line. `info` includes every "
        "transition.",
    )

    @property
    def reflects(self) -> bool:
        """Whether the server serves reflection."""
        return self.only_loopback if self.reflection is None else self.reflection

    @property
    def unprotected(self) -> bool:
        """Whether programs on other machines can connect, and nothing encrypts their calls."""
        return self.tls_cert is None and not (self.insecure or self.only_loopback)

    @property
    def only_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        return is_loopback(self.listen)


def is_loopback(listen: str) -> bool:
    """Whether only programs on this machine can connect to the address."""
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost" or listen.startswith("unix:"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # any other name, also 127.example.org, may be an address of any machine


def all_settings() -> Iterator[Setting]:
    """Yield the settings of `jobledger-server serve`, without the database, in order."""
    for each in fields(Settings):
        if each.metadata:
            name = each.name
            facts = {"flag": "--" + name.replace("_", "-"), **each.metadata}
            yield Setting(name, variable=f"JOBLEDGER_{name.upper()}", default=each.default, **facts)
