"""A certificate authority for tests: certificates of servers and clients, as a test needs them."""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LONG_AGO = timedelta(days=-400)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both into a folder; return their paths."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, content in zip(paths, (self.certificate, self.key), strict=True):
            # As a tool that renews certificates does: never a file that is half written.
            new = path.with_suffix(f"{path.suffix}.new")
            new.write_bytes(content)
            new.chmod(0o600)
            new.replace(path)
        return paths


class Authority:
    """Issues certificates."""

    def __init__(self, *, days: int = 365, name: str = "Jobledger test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = _builder(self._name, self._name, self._key, days)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made = made.add_extension(_usage(signs_certificates=True), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        made = made.add_extension(own, critical=False)
        self.certificate = _pem(made.sign(self._key, hashes.SHA256()))

    def issue(
        self,
        *,
        dns: tuple[str, ...] = (),
        uris: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
        common_name: str = "",
        common_names: tuple[str, ...] = (),
        organization: str = "",
        days: float = 30,
        starts_in: timedelta = LONG_AGO,
        signs: bool = True,
        purpose: x509.ObjectIdentifier | None = None,
    ) -> Pair:
        """Issue a certificate. With a negative number of days it has expired.

        With `signs=False`, or the purpose of a client, no server can use it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = [(NameOID.ORGANIZATION_NAME, organization)]
        names += [(NameOID.COMMON_NAME, each) for each in (common_name, *common_names)]
        subject = x509.Name([x509.NameAttribute(kind, name) for kind, name in names if name])
        made = _builder(subject, self._name, key, days, starts_in)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        made = made.add_extension(_usage(signs=signs), critical=True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = made.add_extension(issuer, critical=False)
        alternatives: list[x509.GeneralName] = [x509.DNSName(each) for each in dns]
        alternatives += [x509.UniformResourceIdentifier(each) for each in uris]
        alternatives += [x509.IPAddress(ip_address(each)) for each in addresses]
        if alternatives:
            critical = not list(subject)
            made = made.add_extension(x509.SubjectAlternativeName(alternatives), critical=critical)
        if purpose is not None:
            made = made.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Pair(_pem(made.sign(self._key, hashes.SHA256())), private)

    def server(self, **more: Any) -> Pair:
        """Issue the certificate of a server on this machine."""
        return self.issue(dns=("localhost",), addresses=("127.0.0.1",), **more)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: float,
    starts_in: timedelta = LONG_AGO,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts_in)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool = True, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=not signs,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def der(pair: Pair) -> bytes:
    """Return the first certificate, in DER."""
    return ssl.PEM_cert_to_DER_cert(pair.certificate.decode())


async def served(address: str) -> bytes:
    """Return the certificate that the next connection to a server is shown, in DER."""

    def connect() -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            return encrypted.getpeercert(binary_form=True) or b""

    return await asyncio.to_thread(connect)
