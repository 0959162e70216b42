"""The connection to the service: where it is, who calls, and how they prove it."""

import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import grpc

from jobledger import AsyncClient, Client

DEFAULTS: Final = {"server": "127.0.0.1:50051", "timeout": 10.0}

_TLS_FILES: Final = ("ca_file", "cert", "key")
_TLS_OPTIONS: Final = (*_TLS_FILES, "tls_server_name")


@dataclass(frozen=True, slots=True)
class Connection:
    """What each client of a command is made with."""

    server: str
    user: str | None
    token: str | Callable[[], str] | None
    credentials: grpc.ChannelCredentials | None
    tls_server_name: str | None
    timeout: float

    @classmethod
    def of(cls, layers: Sequence[Mapping[str, Any]]) -> "Connection":
        """Make one of options by name; an earlier layer wins over a later one.

        Raises:
            click.UsageError: they contradict each other, or a file cannot be used.
        """
        merged: dict[str, Any] = {**DEFAULTS}
        for layer in reversed(layers):
            if "token" in layer and "token_file" in layer:
                raise click.UsageError("give a token or a token file, not both")
            if layer.get("tls") is False:
                if any(name in layer for name in _TLS_OPTIONS):
                    raise click.UsageError(
                        "a CA file, a certificate, a key or a server name needs TLS"
                    )
                for name in _TLS_OPTIONS:
                    merged.pop(name, None)
            # A token replaces a token file of a later layer, and a token file a token.
            if "token" in layer or "token_file" in layer:
                merged.pop("token", None)
                merged.pop("token_file", None)
            if any(name in layer for name in _TLS_OPTIONS):
                merged["tls"] = True
            merged |= layer
        token_file = merged.get("token_file")
        return cls(
            server=merged["server"],
            user=merged.get("user"),
            token=merged.get("token") if token_file is None else TokenFile(Path(token_file)),
            credentials=_credentials(*map(merged.get, _TLS_FILES)) if merged.get("tls") else None,
            tls_server_name=merged.get("tls_server_name"),
            timeout=merged["timeout"],
        )

    def open(self, *, all_users: bool = False) -> Client:
        """Open a client for the user's jobs, or one that calls for no owner."""
        return Client(self.server, **self._options(all_users=all_users))

    def open_async(self, *, all_users: bool = False) -> AsyncClient:
        """Open a client as `open` does, for asyncio."""
        return AsyncClient(self.server, **self._options(all_users=all_users))

    def _options(self, *, all_users: bool) -> dict[str, Any]:
        if self.user is None and not all_users:
            raise click.UsageError("whose jobs? Give --user, or set JOBLEDGER_USER")
        return {
            "user_id": None if all_users else self.user,
            "token": self.token,
            "credentials": self.credentials,
            "tls_server_name": self.tls_server_name,
            "timeout": self.timeout,
            "connect_timeout": self.timeout,
        }


class TokenFile:
    """A bearer token in a file, which is read for each call: it may be replaced at any time.

    Raises:
        click.UsageError: there is no token in it at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._token = self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"the token file: {error}") from None
        if not self._token:
            raise click.UsageError(f"the token file {path} is empty")

    def __call__(self) -> str:
        # If it cannot be read, it is being replaced: the old token may still be valid.
        with contextlib.suppress(OSError, UnicodeDecodeError):
            self._token = self._read() or self._token
        return self._token

    def _read(self) -> str:
        return self._path.read_text().strip()


def _credentials(ca_file: str | None, cert: str | None, key: str | None) -> grpc.ChannelCredentials:
    if (cert is None) != (key is None):
        raise click.UsageError("a certificate and its key go together: give both")
    roots, chain, secret = (None if file is None else _bytes(file) for file in (ca_file, cert, key))
    _check(ca_file, cert, key)
    return grpc.ssl_channel_credentials(roots, secret, chain)


def _check(ca_file: str | None, cert: str | None, key: str | None) -> None:
    """Read the files as TLS does: gRPC would say no more than that it cannot connect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise click.UsageError(f"{ca_file} contains no certificates in PEM format") from None
    if cert is not None and key is not None:
        try:
            # Without a password for the key OpenSSL would ask the terminal.
            context.load_cert_chain(cert, key, password="")
        except ssl.SSLError as error:
            raise click.UsageError(
                f"{cert} and {key} are not a certificate and its unencrypted key"
                f" in PEM format: {error.reason or error}"
            ) from None


def _bytes(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None
