"""Issuers of JSON Web Tokens, and the keys by which their tokens are verified."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from jobledger_server.rpc.access.key_set import BadKeySet, Key, KeySet
from jobledger_server.runtime.files import FileState, file_state

REFRESH_SECONDS = 300.0
"""Keys of a URL are fetched again after this time."""

MIN_REFRESH_SECONDS = 5.0
"""For a token with an unknown key they are fetched at once, but not more often than this."""

FETCH_SECONDS = 5.0
MAX_ANSWER_BYTES = 1024 * 1024

log = logging.getLogger("jobledger.access")


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """An `[[issuer]]` of the access file.

    Attributes:
        name: The part of identities that names it: `jwt:NAME/SUBJECT`.
        issuer: The claim `iss` of its tokens.
        audiences: One of them must be in the claim `aud`.
        jwks_file: The file with its keys, or None if they are at `jwks_url`.
        jwks_ca_file: The CAs to trust at the URL, or None for those of the system.
    """

    name: str
    issuer: str
    audiences: tuple[str, ...]
    jwks_file: Path | None
    jwks_url: str
    jwks_ca_file: Path | None


class Issuer:
    """An issuer with its current keys.

    Args:
        on_change: Called when keys have changed: tokens that they verified may be invalid now.

    Attributes:
        identities: What the names of its tokens' identities begin with.
        reload_fails: Whether the keys could not be read when that was last tried.
    """

    def __init__(self, settings: IssuerSettings, on_change: Callable[["Issuer"], None]) -> None:
        self.settings = settings
        self.identities = f"jwt:{settings.name}/"
        self.reload_fails = False
        self._on_change = on_change
        self._keys = KeySet(())
        self._state: FileState | None = None
        self._fetched = float("-inf")
        self._fetching: asyncio.Future[None] | None = None

    def read_file(self) -> None:
        """Read the keys if they are in a file that has changed. Raises BadKeySet."""
        path = self.settings.jwks_file
        if path is None:
            return
        try:
            state = file_state(path)
            if state == self._state:
                return
            self._state = state
            self._replace(KeySet.parse(path.read_bytes()))
        except OSError as error:
            self._state = None
            raise BadKeySet(f"cannot read {path}: {error.strerror}") from None
        except BadKeySet as error:
            raise BadKeySet(f"{path} {error}") from None

    async def key(self, kid: str | None) -> Key | None:
        """Return the key that a token names, or None. For an unknown one the keys are renewed."""
        key = self._keys.find(kid)
        if key is None:
            self.renew(MIN_REFRESH_SECONDS)
            if self._fetching is not None:
                # Shielded: other calls may wait for the same answer.
                await asyncio.shield(self._fetching)
            key = self._keys.find(kid)
        return key

    def has(self, key: Key | None) -> bool:
        """Whether this is one of the keys."""
        return key in self._keys.keys

    def renew(self, at_least: float = REFRESH_SECONDS) -> None:
        """Read the keys' file if it has changed, or begin to fetch them if they are old.

        Waits for no fetch, and logs failures.

        Args:
            at_least: How many seconds old the keys of a URL are then.
        """
        if self.settings.jwks_file is not None:
            try:
                self.read_file()
            except BadKeySet as error:
                self._log_failure(error)
            return
        fresh = asyncio.get_running_loop().time() - self._fetched < at_least
        if self._fetching is None and not fresh:
            self._fetching = asyncio.ensure_future(self._fetch())

    async def _fetch(self) -> None:
        try:
            self._replace(await _fetched(self.settings))
        except Exception as error:  # noqa: BLE001
            # Another program answers here, and may answer anything.
            self._log_failure(error)
        finally:
            self._fetched = asyncio.get_running_loop().time()
            self._fetching = None

    def _replace(self, keys: KeySet) -> None:
        self.reload_fails = False
        if keys != self._keys:
            self._keys = keys
            self._on_change(self)

    def _log_failure(self, error: Exception) -> None:
        self.reload_fails = True
        # The old keys stay in use. The log limits the rate of events that have a `count`.
        facts = {"kind": self.settings.name, "cause": str(error), "count": 1}
        log.warning("issuer_keys_unavailable", extra=facts)


class _BoundedSocket(ssl.SSLSocket):
    """Receives MAX_ANSWER_BYTES in FETCH_SECONDS at most. A timeout alone is for each read."""

    _end = 0.0
    _received = 0

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """See `socket.recv_into`, by which all is received."""
        now = time.monotonic()
        self._end = self._end or now + FETCH_SECONDS
        if now >= self._end or self._received > MAX_ANSWER_BYTES:
            raise BadKeySet("is too large" if now < self._end else "is sent too slowly")
        self.settimeout(self._end - now)
        received = super().recv_into(buffer, nbytes, flags)
        self._received += received
        return received


async def _fetched(settings: IssuerSettings) -> KeySet:
    """Fetch the keys, in a thread that does not delay the end of the process."""
    fetched: Future[KeySet] = Future()
    fetched.set_running_or_notify_cancel()  # from here on it cannot be cancelled

    def fetch() -> None:
        try:
            fetched.set_result(_get(settings))
        except Exception as error:  # noqa: BLE001
            fetched.set_exception(error)

    Thread(target=fetch, name="issuer keys", daemon=True).start()
    return await asyncio.wrap_future(fetched)


def _get(settings: IssuerSettings) -> KeySet:
    # An optional extra.
    from jwt import PyJWKClient  # noqa: PLC0415

    tls = ssl.create_default_context(
        cafile=None if settings.jwks_ca_file is None else str(settings.jwks_ca_file)
    )
    tls.sslsocket_class = _BoundedSocket
    # It follows no redirects: keys come only from the URL in the access file.
    client = PyJWKClient(
        settings.jwks_url, cache_jwk_set=False, timeout=FETCH_SECONDS, ssl_context=tls
    )
    return KeySet.of(client.fetch_data())
