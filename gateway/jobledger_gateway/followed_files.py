"""Files that are read again: when they have changed, and when the gateway is asked to (SIGHUP)."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import click
import grpc

CHECK_SECONDS: Final = 0.5
"""How often files are checked. A change counts once it is this old: a certificate and its key are
replaced one after the other."""

_State: TypeAlias = tuple[tuple[int, int, int] | None, ...]

log = logging.getLogger("jobledger.gateway")


class FollowedFiles:
    """Files that belong together, and what is done with them.

    Args:
        paths: the files.
        use: reads the files and uses what is in them. If it raises OSError or click.UsageError,
            what was used before stays in use.
    """

    def __init__(self, paths: Sequence[Path], use: Callable[[], None]) -> None:
        self._paths = paths
        self._use = use
        self._used = self._seen = self._state()

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
            log.error("certificate_unusable files=%s cause=%s", names, error)  # noqa: TRY400
        else:
            log.info("certificate_renewed files=%s", names)

    def _state(self) -> _State:
        return tuple(_state_of(path) for path in self._paths)


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
        self.files = FollowedFiles([Path(cert), Path(key)], self._renew)
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
        paths: their files.
        read: reads them, as for FollowedFiles.
    """

    def __init__(
        self, paths: Sequence[Path], read: Callable[[], grpc.ChannelCredentials | None]
    ) -> None:
        self._read = read
        self._credentials = read()
        self.files = FollowedFiles(paths, self._renew)

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
