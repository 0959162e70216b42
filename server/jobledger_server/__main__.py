"""`jobledger-server`: serve, migrate, void-tokens."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

# gRPC's core reads this when it is imported. Its log lines would stand among the JSON ones.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

try:
    import click
    import grpc_health  # noqa: F401
    import sqlalchemy  # noqa: F401
except ImportError:  # click alone comes with the extra `cli` too
    sys.exit("jobledger-server is not installed: pip install 'jobledger[server]'")

from click.core import ParameterSource

from jobledger_server import parent
from jobledger_server.app import open_app
from jobledger_server.config import Settings
from jobledger_server.descriptors import raise_descriptor_limit
from jobledger_server.durations import time_span
from jobledger_server.logs import logging_to_stderr
from jobledger_server.metrics import MetricsUnavailable
from jobledger_server.port import PortUnavailable
from jobledger_server.processes import serve_by_several
from jobledger_server.sql.dialect import BadDatabaseUrl
from jobledger_server.sql.engine import open_database, parse_url
from jobledger_server.sql.lock import DatabaseInUse, exclusive
from jobledger_server.sql.schema import HEAD, SchemaError, require_head
from jobledger_server.sql.schema import migrate as migrate_database
from jobledger_server.sql.store import SqlStore
from jobledger_server.store import StoreFault, StoreUnavailable
from jobledger_server.supervision import ServerFailed
from jobledger_server.wire.access import BadAccessFile

_DEFAULTS = Settings()

_EXPECTED = (
    BadAccessFile,
    BadDatabaseUrl,
    DatabaseInUse,
    MetricsUnavailable,
    SchemaError,
    ServerFailed,
    PortUnavailable,
    StoreFault,
    StoreUnavailable,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="jobledger")
def main() -> None:
    """Jobledger: the one place that knows where each job stands.

    `jobledger-server serve` starts a server on 127.0.0.1:50051 that keeps its
    jobs in the file jobledger.db. Every option of `serve` can be given as an
    environment variable too.
    """


_DATABASE = click.option(
    "--database",
    metavar="URL",
    envvar="JOBLEDGER_DATABASE",
    default=_DEFAULTS.database,
    show_default=True,
    show_envvar=True,
    help="Where the jobs are kept: sqlite:///FILE (sqlite:////FILE for an absolute path), or "
    "postgresql://USER:PASSWORD@HOST:PORT/NAME with the extra 'postgres'.",
)

_DATABASE_FILE = click.option(
    "--database-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="JOBLEDGER_DATABASE_FILE",
    show_envvar=True,
    help="A file that holds the database URL, in place of --database: a password is then neither "
    "in the list of processes nor in the environment.",
)


def _database(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take the database URL from a flag, from the environment, or from a file."""

    @_DATABASE
    @_DATABASE_FILE
    @wraps(command)
    def with_database(*, database: str, database_file: Path | None, **options: Any) -> None:
        if database_file is not None:
            source = click.get_current_context().get_parameter_source("database")
            if source is not ParameterSource.DEFAULT:
                raise click.UsageError("--database and --database-file exclude each other")
            try:
                database = database_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeError) as error:
                cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                message = f"cannot read the database URL from {database_file}: {cause}"
                raise click.ClickException(message) from None
        command(database=database, database_file=database_file, **options)

    return with_database


@main.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    envvar="JOBLEDGER_LISTEN",
    default=_DEFAULTS.listen,
    show_default=True,
    show_envvar=True,
    help="Where to take calls. Port 0 takes any that is free (the log says which). Calls are "
    "neither encrypted nor authenticated here: on other than loopback put a service mesh or a "
    "proxy in front.",
)
@_database
@click.option(
    "--processes",
    metavar="N",
    type=click.IntRange(1),
    envvar="JOBLEDGER_PROCESSES",
    default=1,
    show_default=True,
    show_envvar=True,
    help="Serve the port by so many processes, on PostgreSQL alone: one can hardly use more than "
    "one core. Connections are shared out among them, and each has the limits below for itself.",
)
@click.option("--child", metavar="NUMBER", type=int, hidden=True)  # what processes.py starts
@click.option(
    "--reflection/--no-reflection",
    envvar="JOBLEDGER_REFLECTION",
    default=None,
    show_envvar=True,
    help="Let tools such as `buf curl` ask for the service's definition. Default: only where it "
    "listens on loopback.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(0),
    envvar="JOBLEDGER_GRACE",
    default=_DEFAULTS.grace,
    show_default=True,
    show_envvar=True,
    help="On SIGTERM or SIGINT, how long running calls may take to finish.",
)
@click.option(
    "--heartbeat",
    metavar="SECONDS",
    type=click.FloatRange(0.05),
    envvar="JOBLEDGER_HEARTBEAT",
    default=_DEFAULTS.heartbeat,
    show_default=True,
    show_envvar=True,
    help="How long a watch may be silent before it says that it is alive.",
)
@click.option(
    "--max-watches",
    metavar="N",
    type=click.IntRange(1),
    envvar="JOBLEDGER_MAX_WATCHES",
    default=_DEFAULTS.max_watches,
    show_default=True,
    show_envvar=True,
    help="Watches open at once; more are refused with RESOURCE_EXHAUSTED. One that is idle takes "
    "about 30 KiB.",
)
@click.option(
    "--max-watch-age",
    metavar="TIME",
    type=time_span,
    envvar="JOBLEDGER_MAX_WATCH_AGE",
    default=f"{_DEFAULTS.max_watch_age / 60:g}m",
    show_default=True,
    show_envvar=True,
    help="After how long a watch, or a connection, is asked to begin anew, so that load spreads "
    "over servers: 90s, 30m, 2h; up to a quarter sooner or later. 0: never.",
)
@click.option(
    "--max-streams",
    metavar="N",
    type=click.IntRange(1),
    envvar="JOBLEDGER_MAX_STREAMS",
    default=_DEFAULTS.max_streams,
    show_default=True,
    show_envvar=True,
    help="Calls and watches at once over one connection; a client's further ones wait. Lower it "
    "where strangers connect: see docs/exposure.md.",
)
@click.option(
    "--max-connections",
    metavar="N",
    type=click.IntRange(1),
    envvar="JOBLEDGER_MAX_CONNECTIONS",
    default=_DEFAULTS.max_connections,
    show_default=True,
    show_envvar=True,
    help="Connections at once, as far as the limit of open files allows; more are closed at once.",
)
@click.option(
    "--max-connection-idle",
    metavar="TIME",
    type=time_span,
    envvar="JOBLEDGER_MAX_CONNECTION_IDLE",
    default=f"{_DEFAULTS.max_connection_idle / 60:g}m",
    show_default=True,
    show_envvar=True,
    help="After how long a connection without any call or watch is closed; up to a tenth sooner "
    "or later. 0: never.",
)
@click.option(
    "--max-waiting",
    metavar="N",
    type=click.IntRange(1),
    envvar="JOBLEDGER_MAX_WAITING",
    default=_DEFAULTS.max_waiting,
    show_default=True,
    show_envvar=True,
    help="Changes, and reads, that wait for the database at once; more are refused with "
    "RESOURCE_EXHAUSTED.",
)
@click.option(
    "--caller-share",
    metavar="PART",
    type=click.FloatRange(0, 1, min_open=True),
    envvar="JOBLEDGER_CALLER_SHARE",
    default=_DEFAULTS.caller_share,
    show_default=True,
    show_envvar=True,
    help="The part of each limit that one caller may take, from 0 to 1, so that it leaves the "
    "rest to others. A caller is an identity of the access file, else an owner or worker on one "
    "connection.",
)
@click.option(
    "--feed",
    type=click.Choice(["hints", "poll"]),
    envvar="JOBLEDGER_FEED",
    default=_DEFAULTS.feed,
    show_default=True,
    show_envvar=True,
    help="How a server learns of what others commit on the same PostgreSQL: by hints, and by "
    "looking every half second all the same; or, as behind PgBouncer, by looking alone.",
)
@click.option(
    "--retain-terminal",
    metavar="TIME",
    type=time_span,
    envvar="JOBLEDGER_RETAIN_TERMINAL",
    show_envvar=True,
    help="Delete jobs so long after their end: 12h, 30d. Default: never.",
)
@click.option(
    "--retain-deletions",
    metavar="TIME",
    type=time_span,
    envvar="JOBLEDGER_RETAIN_DELETIONS",
    default=f"{_DEFAULTS.retain_deletions / 86400:g}d",
    show_default=True,
    show_envvar=True,
    help="How long it is known which jobs were deleted. A watch of many jobs that was away for "
    "longer has to list them again.",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    envvar="JOBLEDGER_METRICS",
    show_envvar=True,
    help="Serve figures for Prometheus there, with the extra 'metrics'. Of several processes "
    "the second does at the next port, and so on. Default: not at all.",
)
@click.option(
    "--access",
    "access_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="JOBLEDGER_ACCESS",
    show_envvar=True,
    help="A TOML file of callers, their tokens' hashes, and what each may do; see "
    "docs/operations.md. Default: every caller may do everything.",
)
@click.option(
    "--url-scheme",
    "url_schemes",
    metavar="SCHEME",
    multiple=True,
    envvar="JOBLEDGER_URL_SCHEMES",
    default=sorted(_DEFAULTS.url_schemes),
    show_default=True,
    show_envvar=True,
    help="A scheme that an asset's URL may have, for instance s3; give it once for each (in the "
    "environment: separated by spaces).",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    envvar="JOBLEDGER_LOG_LEVEL",
    default="info",
    show_default=True,
    show_envvar=True,
    help="What goes to standard error, one JSON object a line; `info` has every transition.",
)
def serve(
    log_level: str,
    url_schemes: tuple[str, ...],
    processes: int,
    child: int | None,
    **options: Any,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit with 0.

    An SQLite database is brought up to date first; a PostgreSQL database must
    be, with `jobledger-server migrate`.
    """
    raise_descriptor_limit()
    shares_port = child is not None
    settings = Settings(url_schemes=frozenset(url_schemes), shares_port=shares_port, **options)
    for flag, address in (("--listen", settings.listen), ("--metrics", settings.metrics)):
        if address is not None and ":" not in address:
            raise click.BadParameter(f"{address!r} has no port", param_hint=flag)
    with logging_to_stderr(log_level, **({} if child is None else {"child": child})):
        if processes > 1 and child is None:
            with _in_words():
                _see_that_several_can(settings)
                sys.exit(serve_by_several(settings, processes))
        _run(lambda: _serve(settings))


def _see_that_several_can(settings: Settings) -> None:
    if parse_url(settings.database).get_backend_name() == "sqlite":
        raise click.BadParameter(
            "an SQLite file is for one process, which is right there: leave it at 1, or use "
            "PostgreSQL",
            param_hint="--processes",
        )
    if settings.listen.startswith("unix:"):
        raise click.BadParameter(
            "several processes share a port, not a socket file", param_hint="--processes"
        )


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for received in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(received, stop.set)
    if settings.shares_port:
        parent.when_gone(stop.set)
    async with open_app(settings) as app:
        # What is there now stays. A full collection walks every watcher there is. And telling ten
        # thousand of them makes some hundred thousand objects, which soon go by themselves: no
        # collection should come in the middle of it (docs/decisions/0028).
        gc.freeze()
        gc.set_threshold(250_000, 20, 100)
        if settings.shares_port:
            parent.tell_serving()
        ends = [asyncio.create_task(event.wait()) for event in (stop, app.failed)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if app.failed.is_set():
        raise ServerFailed("a part of the server ended by an unexpected error; see the log")


@main.command()
@_database
def migrate(database: str, **_: Any) -> None:
    """Bring a database up to date. Safe to repeat, and beside running servers."""
    _run(lambda: _migrate(database))
    click.echo(f"the database is at revision {HEAD}")


async def _migrate(url: str) -> None:
    parsed = parse_url(url)
    with exclusive(parsed):
        database = open_database(parsed, patient=True)
        try:
            await migrate_database(database)
            await require_head(database)
        finally:
            await database.close()


@main.command(name="void-tokens")
@_database
def void_tokens(database: str, **_: Any) -> None:
    """Make every resume token of WatchJobs void: after restoring a whole volume.

    A server finds out by itself that a database was copied, restored over an
    existing one, or taken over by a standby. It cannot where the folder came back
    as a whole. Watchers then list their jobs again.
    """
    _run(lambda: _void_tokens(database))
    click.echo("every resume token is void now")


async def _void_tokens(url: str) -> None:
    parsed = parse_url(url)
    with exclusive(parsed):
        database = open_database(parsed)
        try:
            await require_head(database)
            store = SqlStore(database)
            await store.renew_epoch((await store.feed_head()).epoch)
        finally:
            await database.close()


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end on the fastest event loop there is; what can be expected is told in words."""
    with _in_words(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work())


@contextmanager
def _in_words() -> Iterator[None]:
    """End the program with words where what is done ends as can be expected."""
    try:
        yield
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
