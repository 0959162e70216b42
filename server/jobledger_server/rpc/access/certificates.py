"""Identities by certificates: of the connection, or as a trusted proxy reports them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from jobledger_server.domain.limits import MAX_IDENTITY_CHARACTERS
from jobledger_server.rpc.owner import Metadata

PROXY_HEADER = "x-forwarded-client-cert"
"""Envoy's header about the certificate of its own client. Only a trusted proxy is believed."""

MAX_PARSED = 4096
"""Certificates, and reports of proxies, that are remembered, so that few calls parse their own."""

_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_PAIR = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^",;]*)([;,]?)')

_KEYS = ("by", "hash", "cert", "chain", "subject", "uri", "dns")
"""The keys of the header, in the order in which Envoy writes them."""

_REPEATED = ("by", "uri", "dns")


class Certificate(NamedTuple):
    """Whom a certificate names, or nobody, and until when, in seconds since 1970."""

    name: str
    until: float


NOBODY = Certificate("", 0.0)


def peer_certificate(facts: Mapping[str, Iterable[bytes]] | None) -> Certificate | None:
    """Return the certificate of a connection's client by gRPC's facts, or None without one.

    Only of the whole certificate: in gRPC's other facts a name ends at its first NUL.
    """
    pem = next(iter((facts or {}).get("x509_pem_cert", ())), None)
    return None if pem is None else _parsed(pem)


def forwarded_certificate(metadata: Metadata) -> Certificate | None:
    """Return the certificate of a proxy's client, or None if the proxy reports none."""
    reports = [value for key, value in metadata if key == PROXY_HEADER]
    if not reports:
        return None
    if len(reports) > 1 or not isinstance(reports[0], str):
        return NOBODY
    return _reported(reports[0])


@lru_cache(MAX_PARSED)
def _reported(report: str) -> Certificate:
    """Return what a report says. Without the certificate itself, its end is not known.

    A report is one element with each key once: Envoy does not escape the names of certificates,
    so others may come from a name.
    """
    found = _pairs(report)
    if found is None:
        return NOBODY
    if "cert" in found:
        return _parsed(unquote_to_bytes(found["cert"][0]))
    uris = found.get("uri", ())
    if uris and not _is_spiffe(uris):
        return NOBODY  # what follows may be a part of it
    common_names = _common_names(*found.get("subject", ()))
    return Certificate(_name(uris, found.get("dns", ()), common_names), float("inf"))


def _pairs(report: str) -> dict[str, list[str]] | None:
    """Return the values of the one element of a report, or None if it is not as Envoy's is."""
    found: dict[str, list[str]] = {}
    position, separator, last = 0, ";", 0
    while separator == ";":
        pair = _PAIR.match(report, position)
        key = pair[1].lower() if pair else ""
        if pair is None or key not in _KEYS[last:] or (key in found and key not in _REPEATED):
            return None
        separator, position, last = pair[3], pair.end(), _KEYS.index(key)
        value = pair[2].removeprefix('"').removesuffix('"')
        found.setdefault(key, []).append(value)
    if separator or position < len(report):
        return None
    return {key: present for key, values in found.items() if (present := [*filter(None, values)])}


@lru_cache(MAX_PARSED)
def _parsed(pem: bytes) -> Certificate:
    # A server that sees no certificate is not slowed by it at its start.
    from cryptography import x509  # noqa: PLC0415

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        name = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        values: dict[object, Any] = {each.oid: each.value for each in certificate.extensions}
        none = x509.SubjectAlternativeName([])
        others = values.get(x509.SubjectAlternativeName.oid, none)
        return Certificate(
            _name(
                others.get_values_for_type(x509.UniformResourceIdentifier),
                others.get_values_for_type(x509.DNSName),
                [str(each.value) for each in name],
            ),
            certificate.not_valid_after_utc.timestamp(),
        )
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return NOBODY


def _name(uris: Sequence[str], dns: Sequence[str], common_names: Sequence[str]) -> str:
    """Return the SPIFFE ID, else the first DNS name, else the common name, else nothing."""
    if any(uri.lower().startswith("spiffe:") for uri in uris):
        name = uris[0] if _is_spiffe(uris) else ""
    elif dns:
        host = dns[0].lower()
        name = f"dns:{host}" if _HOST.fullmatch(host) else ""
    elif len(common_names) == 1 and common_names[0]:
        name = f"cn:{common_names[0]}"
    else:
        name = ""
    return name if len(name) <= MAX_IDENTITY_CHARACTERS and name.isprintable() else ""


def _is_spiffe(uris: Sequence[str]) -> bool:
    # SPIFFE allows one URI in a certificate: one with several identifies no caller.
    return (
        len(uris) == 1
        and _SPIFFE.fullmatch(uris[0]) is not None
        and not any(part in (".", "..") for part in uris[0].split("/"))
    )


def _common_names(subject: str = "") -> Sequence[str]:
    """Return the common names of a subject as RFC 2253 writes it; none if one is escaped."""
    if r"\\" in subject:
        return ()  # what it escapes depends on who has written it
    pairs = [part.partition("=") for part in re.split(r"(?<!\\)[,+]", subject)]
    names = [value.strip() for kind, _, value in pairs if kind.strip() == "CN"]
    return () if any("\\" in name for name in names) else names
