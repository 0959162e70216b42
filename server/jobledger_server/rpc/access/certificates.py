"""Identities by certificates: of the connection, or as a trusted proxy reports them."""

import re
from collections.abc import Iterable, Mapping, Sequence

from jobledger_server.rpc.access.permissions import MAX_IDENTITY_CHARACTERS
from jobledger_server.rpc.owner import Metadata

PROXY_HEADER = "x-forwarded-client-cert"
"""Envoy's header about the certificate of its own client. Only a trusted proxy is believed."""

_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
_COMMON_NAME = re.compile(r"(?:\A|[,+])\s*CN\s*=\s*([^,+]+?)\s*(?=[,+]|\Z)")
_ELEMENT = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^",;]*)([;,]?)')


def certificate_name(facts: Mapping[str, Iterable[bytes]] | None) -> str:
    """Return the name of a connection's certificate by gRPC's facts, or nothing."""
    if not facts or "x509_common_name" not in facts:
        return ""
    texts = {key: [value.decode(errors="replace") for value in facts.get(key, ())] for key in _KEYS}
    return _name(texts["peer_uri"], texts["peer_dns"], texts["x509_common_name"])


_KEYS = ("peer_uri", "peer_dns", "x509_common_name")


def forwarded_name(metadata: Metadata) -> str | None:
    """Return the name of the certificate that a proxy reports.

    It is empty if the report has no name, and None if there is no report. Of several reports
    the last one counts: the nearest proxy wrote it, and the caller may have written the
    others.
    """
    reports = [value for key, value in metadata if key == PROXY_HEADER]
    if not reports:
        return None
    if len(reports) > 1 or not isinstance(reports[0], str):
        return ""
    found: dict[str, list[str]] = {}
    report, position = reports[0], 0
    while position < len(report):
        element = _ELEMENT.match(report, position)
        if element is None:
            return ""
        key, value, end = element.groups()
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        found.setdefault(key.lower(), []).append(value)
        position = element.end()
        if end == "," and position < len(report):
            found = {}
    return _name(
        found.get("uri", ()),
        found.get("dns", ()),
        [name for subject in found.get("subject", ()) for name in _common_names(subject)],
    )


def _name(uris: Sequence[str], dns: Sequence[str], common_names: Sequence[str]) -> str:
    """Return the SPIFFE ID, else the first DNS name, else the common name, else nothing."""
    if any(uri.lower().startswith("spiffe:") for uri in uris):
        # SPIFFE allows one URI in a certificate: one with several identifies no caller.
        valid = len(uris) == 1 and _SPIFFE.fullmatch(uris[0]) and not _has_dots(uris[0])
        name = uris[0] if valid else ""
    elif dns:
        name = f"dns:{dns[0].lower()}"
    elif len(common_names) == 1 and common_names[0]:
        name = f"cn:{common_names[0]}"
    else:
        name = ""
    return name if len(name) <= MAX_IDENTITY_CHARACTERS and name.isprintable() else ""


def _common_names(subject: str) -> list[str]:
    # Escaped or quoted, a comma may be part of another name: `O=x\\,CN=admin`.
    return [] if "\\" in subject or '"' in subject else _COMMON_NAME.findall(subject)


def _has_dots(spiffe_id: str) -> bool:
    return any(part in (".", "..") for part in spiffe_id.split("/"))
