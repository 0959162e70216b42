"""The server's certificate: read at the start, and again when its files have changed.

gRPC asks for the certificate before each handshake. So new files are in use from the next
connection on, and no connection or call ends because of them.
"""

import logging
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from jobledger_server.runtime.files import FileState, file_state
from jobledger_server.settings import Settings

ATTEMPTS = 20
"""How many times files are read if they change while they are read."""

ATTEMPT_SECONDS = 0.05

SETTLE_SECONDS = 1.0
"""A certificate and its key are replaced one after the other, so files that do not belong together
are a mistake only after this time."""

RELOAD_RETRY_SECONDS = 1.0
"""Between attempts to read files that were a mistake: a certificate may become valid later."""

BEGIN_SECONDS = 0.1
"""How long other handshakes have to begin before the certificate is exchanged.

gRPC asks under a lock, but begins a handshake after it: what it exchanges in between it has freed
already. The process crashed, or a handshake failed without ALPN (gRPC 1.83, `add_handshakers` in
ssl_security_connector.cc)."""

log = logging.getLogger("jobledger.server")

_State = tuple[FileState, ...]


class BadCertificate(Exception):
    """A file for TLS cannot be used. The message names the file and says why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of a server: PEM, the key without a password.

    Attributes:
        cert: The certificate, followed by those between it and the CA.
        key: Its private key.
        client_ca: The CAs of clients' certificates. If given, clients need a certificate.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    def state(self) -> _State:
        """Return a value that differs once a file is written or replaced. Raises BadCertificate."""
        paths = self.cert, self.key, self.client_ca
        return tuple(_state(path) for path in paths if path is not None)

    def read(self) -> "TlsContent":
        """Return the content of the files. Raises BadCertificate if a server cannot use it."""
        for _ in range(ATTEMPTS):
            before = self.state()
            try:
                check_certificate(self.cert, self.key)
                if self.client_ca is not None:
                    check_authorities(self.client_ca)
                cert = _bytes(self.cert)
                client_ca = None if self.client_ca is None else _bytes(self.client_ca)
                content = TlsContent(
                    grpc.ssl_server_certificate_configuration(
                        [(_bytes(self.key), cert)], client_ca
                    ),
                    _expirations(cert, client_ca),
                )
            except BadCertificate:
                if self.state() == before:
                    raise
            else:
                if self.state() == before:
                    return content
            time.sleep(ATTEMPT_SECONDS)
        raise BadCertificate(f"{self.cert} and the files besides it do not stop changing")


@dataclass(frozen=True, slots=True)
class TlsContent:
    """What the files of a server hold.

    Attributes:
        configuration: As gRPC takes it.
        expirations: When the certificates expire, in seconds since 1970: `server` with the first of
            its chain, `client_ca` with the last of its CAs.
    """

    configuration: grpc.ServerCertificateConfiguration
    expirations: Mapping[str, float]


def tls_files(settings: Settings) -> TlsFiles | None:
    """Return the files that the settings name. Raises BadCertificate if one is missing."""
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if cert is not None and key is not None:
        return TlsFiles(cert, key, client_ca)
    if cert is not None or key is not None:
        raise BadCertificate("--tls-cert and --tls-key go together: give both")
    if client_ca is not None:
        raise BadCertificate("--tls-client-ca needs --tls-cert and --tls-key")
    return None


class ServedCertificate:
    """The certificate in use: the files' content, as it was last usable.

    Files that cannot be used later are logged, and the certificate so far stays in use.

    Raises:
        BadCertificate: The files cannot be used at the start.

    Attributes:
        reload_fails: Whether the files have changed, and cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        # gRPC asks from threads of its own, maybe from several at once.
        self._lock = threading.Lock()
        self._used = self._seen = files.state()
        self._seen_since = self._next_read = time.monotonic()
        self._content = files.read()
        self.reload_fails = False

    @property
    def expirations(self) -> Mapping[str, float]:
        """When the certificates in use expire; see `TlsContent`."""
        return self._content.expirations

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files."""
        renewed: Any = self.renewed  # may return None, which its type does not say
        return grpc.dynamic_ssl_server_credentials(
            self._content.configuration,
            renewed,
            require_client_authentication=self._files.client_ca is not None,
        )

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the files' content if it has changed and can be used, else None."""
        with self._lock:
            try:
                state = self._files.state()
            except BadCertificate:
                state = ()
            now = time.monotonic()
            if state != self._seen:
                self._seen, self._seen_since, self._next_read = state, now, now
            if state == self._used or now < self._next_read:
                return None
            try:
                self._content = self._files.read()
            except BadCertificate as error:
                if now - self._seen_since >= SETTLE_SECONDS:
                    self.reload_fails = True
                    if self._next_read == self._seen_since:
                        facts = {"cause": str(error)}
                        log.error("certificate_unusable", extra=facts)  # noqa: TRY400
                    self._next_read = now + RELOAD_RETRY_SECONDS
                return None
            self._used, self.reload_fails = state, False
            log.info("certificate_renewed", extra={"file": str(self._files.cert)})
            time.sleep(BEGIN_SECONDS)
            return self._content.configuration


def check_certificate(cert: Path, key: Path) -> str:
    """Return a name for which a client accepts the certificate, or nothing if it has none.

    Raises BadCertificate unless a server can use the certificate and its key now.
    """
    for path in (cert, key):
        _bytes(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password for the key OpenSSL would ask the terminal.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate(f"{key} is not the key of the certificate {cert}") from None
        raise BadCertificate(
            f"{cert} and {key} are not a certificate and its key without a password, in PEM"
            + (f": {error.reason}" if error.reason else "")
        ) from None
    # A server without TLS is not slowed by it at its start.
    from cryptography import x509  # noqa: PLC0415

    unreadable = x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType
    try:
        certificate = x509.load_pem_x509_certificate(_bytes(cert))
        found: dict[object, Any] = {each.oid: each.value for each in certificate.extensions}
    except (ValueError, *unreadable) as error:
        raise BadCertificate(f"{cert} cannot be used: {error}") from None
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise BadCertificate(f"{cert} has expired")
    if now < certificate.not_valid_before_utc:
        raise BadCertificate(f"{cert} is not valid yet")
    purposes = found.get(x509.ExtendedKeyUsage.oid)
    usage = found.get(x509.KeyUsage.oid)
    # As OpenSSL and BoringSSL have it: clients refuse any other certificate.
    if not (purposes is None or x509.oid.ExtendedKeyUsageOID.SERVER_AUTH in purposes) or not (
        usage is None or usage.digital_signature or usage.key_encipherment or usage.key_agreement
    ):
        raise BadCertificate(f"{cert} is not for a server, as its key usage says")
    names = found.get(x509.SubjectAlternativeName.oid, ())
    hosts = (each.value for each in names if isinstance(each, x509.DNSName | x509.IPAddress))
    return str(next(hosts, "")).replace("*", "any", 1)


def check_authorities(path: Path) -> None:
    """Raise BadCertificate unless the file has a CA certificate that is valid now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _bytes(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise BadCertificate(f"{path} has no certificates in PEM") from None
    authorities = context.get_ca_certs()
    if not authorities:
        raise BadCertificate(f"{path} has no certificate of a CA")
    now = time.time()
    if all(ssl.cert_time_to_seconds(str(each["notAfter"])) < now for each in authorities):
        raise BadCertificate(f"the certificates in {path} have expired")


def _expirations(cert: bytes, client_ca: bytes | None) -> Mapping[str, float]:
    from cryptography import x509  # noqa: PLC0415

    def times(pem: bytes) -> list[float]:
        found = x509.load_pem_x509_certificates(pem)
        return [each.not_valid_after_utc.timestamp() for each in found]

    try:
        # A client refuses the chain once one of it has expired. Of the CAs, an expired one may be
        # there besides its successor.
        server = {"server": min(times(cert))}
        return server if client_ca is None else {**server, "client_ca": max(times(client_ca))}
    except ValueError as error:
        raise BadCertificate(f"a certificate cannot be used: {error}") from None


def _state(path: Path) -> FileState:
    try:
        return file_state(path)
    except OSError as error:
        raise BadCertificate(f"cannot read {path}: {error.strerror}") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"cannot read {path}: {error.strerror}") from None
