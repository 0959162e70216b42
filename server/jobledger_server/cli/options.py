"""Options of the command line, generated from the declared settings."""

import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from jobledger_server.cli.byte_counts import byte_count, bytes_text
from jobledger_server.cli.durations import duration, duration_text
from jobledger_server.settings import Setting, Settings, all_settings

_METAVARS = {
    "address": "HOST:PORT",
    "listen": "HOST:PORT",
    "count": "N",
    "bytes": "BYTES",
    "fraction": "FRACTION",
    "duration": "DURATION",
    "file": "FILE",
    "url": "URL",
    "schemes": "SCHEME",
}


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting."""
    return _with_options(command, tuple(all_settings()))


def address_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where the server is, and how it is encrypted."""
    names = ("listen", "tls_cert", "tls_key", "tls_client_ca")
    return _with_options(command, [each for each in all_settings() if each.name in names])


def _with_options(command: Callable[..., None], settings: Sequence[Setting]) -> Callable[..., None]:
    for setting in reversed(settings):
        command = _option(setting)(command)
    return command


def _option(setting: Setting) -> Callable[[Callable[..., None]], Callable[..., None]]:
    flags = setting.flag
    if setting.kind == "switch":
        flags += "/--no-" + setting.flag.removeprefix("--")
    default, shown = setting.default, True
    if default is None:
        shown = bool(setting.none)
    elif setting.kind == "duration":
        default = duration_text(default)
    elif setting.kind == "bytes":
        default = bytes_text(default)
    elif setting.kind == "schemes":
        default = sorted(default)
    return click.option(
        flags,
        setting.name,
        type=_type(setting),
        metavar=None if isinstance(setting.kind, tuple) else _METAVARS.get(setting.kind),
        envvar=setting.variable,
        show_envvar=True,
        default=default,
        show_default=setting.none or shown,
        multiple=setting.kind == "schemes",
        help=setting.help,
    )


def _type(setting: Setting) -> Any:
    match setting.kind:
        case "count":
            return click.IntRange(1)
        case "bytes":
            return lambda text: byte_count(text, setting.at_least, setting.at_most)
        case "fraction":
            return _fraction
        case "duration":
            return lambda text: duration(text, setting.at_least)
        case "file":
            return click.Path(path_type=Path)
        case "schemes":
            return _scheme
        case "address":
            return _address
        case "listen":
            return lambda text: text if text.startswith("unix:") else _address(text)
        case tuple():
            return click.Choice(setting.kind)
        case _:
            return None


def _fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise click.BadParameter(f"{text!r} is not a number above 0 and up to 1")
    return fraction


def _scheme(text: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9+.-]*", text.lower()):
        raise click.BadParameter(f"{text!r} is not a URL scheme: write for instance s3")
    return text.lower()


def _address(text: str) -> str:
    _, colon, port = text.rpartition(":")
    # gRPC would serve port 80000 as 14464, what is left of it in 16 bits.
    if not (colon and port.isdecimal() and int(port) < 2**16):
        raise click.BadParameter(f"{text!r} has no port from 0 to 65535")
    return text


DATABASE_SETTINGS = (
    Setting(
        "database",
        "--database",
        "JOBLEDGER_DATABASE",
        Settings().database,
        "url",
        "URL of the database: sqlite:///FILE (sqlite:////FILE for an absolute path), or "
        "postgresql://USER:PASSWORD@HOST:PORT/NAME, which needs the extra 'postgres'.",
    ),
    Setting(
        "database_file",
        "--database-file",
        "JOBLEDGER_DATABASE_FILE",
        None,
        "file",
        "A file with the database URL, instead of --database. A password is then neither in the "
        "list of processes nor in the environment.",
        none="none",
    ),
)
"""The settings of every command that opens a database."""


def database_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the database: a flag, a variable, or a file with the URL."""

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

    return _with_options(with_database, DATABASE_SETTINGS)
