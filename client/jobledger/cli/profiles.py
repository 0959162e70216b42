"""Profiles: named sets of connection options in the file config.toml.

[profiles.staging]
server = "jobs.staging.example:443"
user = "ada"
tls = true
token_file = "staging.token"
"""

import os
from pathlib import Path
from typing import Any, Final

import click

DEFAULT_PROFILE: Final = "default"
"""The profile that is used if none was chosen and it exists."""

_FILES: Final = frozenset({"token_file", "ca_file", "cert", "key"})
_KEYS: Final = sorted({*_FILES, "server", "user", "tls", "tls_server_name", "timeout"})


def read_profile(name: str | None) -> dict[str, Any]:
    """Return the options of a profile; None stands for the default one, which may be missing.

    Raises:
        click.UsageError: there is no such profile, or the file is wrong.
    """
    file = config_file()
    profiles = _read(file)
    if name is None:
        return profiles.get(DEFAULT_PROFILE, {})
    if name not in profiles:
        known = f"it has {', '.join(sorted(profiles))}" if profiles else "it has none"
        raise click.UsageError(f"no profile {name!r} in {file}: {known}")
    return profiles[name]


def config_file() -> Path:
    """Return the path of config.toml, whether or not it exists."""
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    return Path(folder, "jobledger", "config.toml")


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None
    import tomllib  # noqa: PLC0415  # most people have no such file

    try:
        document = tomllib.loads(content.decode())
    except ValueError as error:
        raise click.UsageError(f"{file} is not TOML: {error}") from None
    profiles = document.pop("profiles", {})
    if document:
        raise click.UsageError(
            f"{file}: unknown key {next(iter(document))!r}; profiles are tables: [profiles.NAME]"
        )
    if not isinstance(profiles, dict):
        raise click.UsageError(f"{file}: profiles are tables: [profiles.NAME]")
    return {name: _checked(file, name, profile) for name, profile in profiles.items()}


def _checked(file: Path, name: str, profile: object) -> dict[str, Any]:
    where = f"{file}: profile {name!r}"
    if not isinstance(profile, dict):
        raise click.UsageError(f"{where} is not a table")
    options = {}
    for key, value in profile.items():
        if key not in _KEYS:
            raise click.UsageError(f"{where}: unknown key {key!r}; known are {', '.join(_KEYS)}")
        wanted = _mistake(key, value)
        if wanted:
            raise click.UsageError(f"{where}: {key} must be {wanted}")
        # File paths are relative to the configuration file.
        options[key] = str(file.parent / Path(value).expanduser()) if key in _FILES else value
    return options


def _mistake(key: str, value: object) -> str:
    """Return what the value of a key must be; empty if the value is right."""
    if key == "tls":
        return "" if isinstance(value, bool) else "true or false"
    if key == "timeout":
        is_right = isinstance(value, int | float) and value > 0 and not isinstance(value, bool)
        return "" if is_right else "seconds, greater than 0"
    return "" if isinstance(value, str) and value else "a text that is not empty"
