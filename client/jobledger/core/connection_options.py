"""The options of a connection to the service: from the environment, or from a command."""

import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import grpc

from jobledger.core.system_roots import system_roots

DEFAULTS: Final = {"server": "127.0.0.1:50051", "timeout": 10.0}

_TLS_FILES: Final = ("ca_file", "cert", "key")
_TLS_OPTIONS: Final = (*_TLS_FILES, "tls_server_name")

PREFIX: Final = "JOBLEDGER_"
_NAMES: Final = ("server", "user", "token", "token_file", "tls", *_TLS_OPTIONS, "timeout")
# As click reads them.
_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE: Final = frozenset({"0", "false", "f", "no", "n", "off"})


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What a client is made with."""

    server: str
    user: str | None
    token: str | Callable[[], str] | None
    credentials: grpc.ChannelCredentials | None
    tls_server_name: str | None
    timeout: float

    @classmethod
    def of(cls, layers: Sequence[Mapping[str, Any]]) -> Self:
        """Make one of options by name; an earlier layer wins over a later one.

        Raises:
            ValueError: they contradict each other, or a file cannot be used.
        """
        merged: dict[str, Any] = {**DEFAULTS}
        for layer in reversed(layers):
            if "token" in layer and "token_file" in layer:
                raise ValueError("give a token or a token file, not both")
            if layer.get("tls") is False:
                if any(name in layer for name in _TLS_OPTIONS):
                    raise ValueError("a CA file, a certificate, a key or a server name needs TLS")
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

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a client, but for the server."""
        return {
            "user_id": self.user,
            "token": self.token,
            "credentials": self.credentials,
            "tls_server_name": self.tls_server_name,
            "timeout": self.timeout,
            "connect_timeout": self.timeout,
        }


class TokenFile:
    """A bearer token in a file, which is read for each call: it may be replaced at any time.

    Raises:
        ValueError: there is no token in it at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._token = self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the token file: {error}") from None
        if not self._token:
            raise ValueError(f"the token file {path} is empty")

    def __call__(self) -> str:
        # If it cannot be read, it is being replaced: the old token may still be valid.
        with contextlib.suppress(OSError, UnicodeDecodeError):
            self._token = self._read() or self._token
        return self._token

    def _read(self) -> str:
        return self._path.read_text().strip()


def from_environment(variables: Mapping[str, str]) -> ConnectionOptions:
    """Return the options that the environment variables say; the command line's, by their names.

    Raises:
        ValueError: one is wrong, or they contradict each other.
    """
    given: dict[str, Any] = {}
    for name in _NAMES:
        # One that is empty is as if it were not set, as for the command line.
        if text := variables.get(f"{PREFIX}{name.upper()}"):
            given[name] = text
    if "tls" in given:
        given["tls"] = _bool(f"{PREFIX}TLS", given["tls"])
    if "timeout" in given:
        given["timeout"] = _positive(f"{PREFIX}TIMEOUT", given["timeout"])
    return ConnectionOptions.of([given])


def _bool(name: str, text: str) -> bool:
    for value, words in ((True, _TRUE), (False, _FALSE)):
        if text.strip().lower() in words:
            return value
    raise ValueError(f"{name}: {text!r} is neither true nor false")


def _positive(name: str, text: str) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) > 0:
            return seconds
    raise ValueError(f"{name}: {text!r} is no number of seconds greater than 0")


def _credentials(ca_file: str | None, cert: str | None, key: str | None) -> grpc.ChannelCredentials:
    if (cert is None) != (key is None):
        raise ValueError("a certificate and its key go together: give both")
    roots, chain, secret = (None if file is None else _bytes(file) for file in (ca_file, cert, key))
    _check(ca_file, cert, key)
    return grpc.ssl_channel_credentials(roots or system_roots(), secret, chain)


def _check(ca_file: str | None, cert: str | None, key: str | None) -> None:
    """Read the files as TLS does: gRPC would say no more than that it cannot connect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise ValueError(f"{ca_file} contains no certificates in PEM format") from None
    if cert is not None and key is not None:
        try:
            # Without a password for the key OpenSSL would ask the terminal.
            context.load_cert_chain(cert, key, password="")
        except ssl.SSLError as error:
            raise ValueError(
                f"{cert} and {key} are not a certificate and its unencrypted key"
                f" in PEM format: {error.reason or error}"
            ) from None


def _bytes(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
