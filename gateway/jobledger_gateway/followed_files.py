"""Files that are read again: when they have changed, and when the gateway is asked to (SIGHUP)."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

import click
import grpc

CHECK_SECONDS: Final = 0.5
"""How often files are checked. A change counts once it is this old: a certificate and its key are
replaced one after the other."""

_State: TypeAlias = tuple[tuple[int, int, int] | None, ...]

log = logging.getLogger("jobledger.gateway")


class Certificates(NamedTuple):
    """A file with certificates."""

    path: Path
    which: Callable[[Iterable[float]], float]
    """Whose end counts: the first of a chain (`min`), or the last of the CAs (`max`)."""


class FollowedFiles:
    """Files that belong together, and what is done with them.

    Args:
        name: what they are, in metrics.
        paths: the files.
        use: reads the files and uses what is in them. If it raises OSError or click.UsageError,
            what was used before stays in use.
        certificates: those of the files that have certificates, by their names in metrics.

    Attributes:
        fails: whether they have changed and cannot be used.
        expirations: when the certificates in use expire, in seconds since 1970. One that
            `cryptography` cannot read is missing.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        use: Callable[[], None],
        certificates: Mapping[str, Certificates] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self._paths = paths
        self._use = use
        self._certificates = certificates
        self._used = self._seen = self._state()
        self.fails = False
        self.expirations = self._expirations()

    def check(self, *, asked: bool) -> None:
        """Use the files again if they have changed, and not since the last check; or if asked."""
        state = self._state()
        is_settled, self._seen = state == self._seen, state
        if not asked and (state == self._used or not is_settled):
            return
        self._used = state  # also if it fails: that is logged once for each change
        names = ", ".join(map(str, self._paths))
        try:
            self._use()
        except (OSError, click.UsageError) as error:  # ssl.SSLError is an OSError
            self.fails = True
            log.error("certificate_unusable files=%s cause=%s", names, error)  # noqa: TRY400
        else:
            self.fails = False
            self.expirations = self._expirations()
            log.info("certificate_renewed files=%s", names)

    def _state(self) -> _State:
        return tuple(_state_of(path) for path in self._paths)

    def _expirations(self) -> Mapping[str, float]:
        found = {}
        for name, (path, which) in self._certificates.items():
            with suppress(OSError, ValueError):
                found[name] = which(_ends(path.read_bytes()))
        return found


async def follow(files: Sequence[FollowedFiles], asked: asyncio.Event) -> None:
    """Check files until cancelled, and at once when `asked` is set."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                await asked.wait()
        is_asked = asked.is_set()
        asked.clear()
        for each in files:
            each.check(asked=is_asked)


class ServerCertificate:
    """The certificate of a server: new connections get the one that is in its files.

    Args:
        context: the server's.
        cert: the file with the certificate chain.
        key: the file with its key.
    """

    def __init__(self, context: ssl.SSLContext, cert: str, key: str) -> None:
        self._current = context
        # Called at each handshake, also without a name.
        context.sni_callback = self._choose
        chain = {"server": Certificates(Path(cert), min)}
        self.files = FollowedFiles("certificate", [Path(cert), Path(key)], self._renew, chain)
        self._cert, self._key = cert, key

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._current

    def _renew(self) -> None:
        # A new context: an old one would keep a certificate whose key is of another kind.
        self._current = server_context(self._cert, self._key)


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """Return a context with a certificate and its key.

    Raises:
        OSError: they cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Without a password for the key OpenSSL would ask the terminal.
    context.load_cert_chain(cert, key, password="")
    return context


class RenewedCredentials:
    """The credentials of connections to the service, which are read again.

    Args:
        ca: the file with the CAs of the service.
        cert: the file with the gateway's own certificate for it.
        key: the file with the key of that.
        read: reads them, as for FollowedFiles.
    """

    def __init__(
        self,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        read: Callable[[], grpc.ChannelCredentials | None],
    ) -> None:
        self._read = read
        self._credentials = read()
        paths = [path for path in (ca, cert, key) if path is not None]
        certificates = {}
        if ca is not None:
            certificates["service_ca"] = Certificates(ca, max)
        if cert is not None:
            certificates["client"] = Certificates(cert, min)
        self.files = FollowedFiles("service_credentials", paths, self._renew, certificates)

    def __call__(self) -> grpc.ChannelCredentials | None:
        return self._credentials

    def _renew(self) -> None:
        self._credentials = self._read()


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # Not the time of the content: access to the file may be what has changed.
    return found.st_ctime_ns, found.st_ino, found.st_size


def _ends(pem: bytes) -> list[float]:
    """Return when certificates expire. Raises ValueError."""
    # A gateway without TLS is not slowed by it at its start.
    from cryptography import x509  # noqa: PLC0415

    found = x509.load_pem_x509_certificates(pem)
    return [each.not_valid_after_utc.timestamp() for each in found]
