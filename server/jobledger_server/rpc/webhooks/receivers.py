"""Which receivers a webhook may have: those that some gateway can post to.

A gateway decides at each delivery, by the addresses of the host at that time. It posts to public
addresses by https, and to the private networks that its operator permits. What no gateway ever
posts to is refused when the webhook is created. The gateway has the same rules
(gateway/jobledger_gateway/webhooks/addresses.py), and a test compares them.
"""

import ipaddress
import re
from urllib.parse import SplitResult

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PRIVATE = [
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8"),
        *("fc00::/7", "::1/128"),
    )
]
"""What an operator may permit."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
_REFUSED = [ipaddress.ip_network("2002::/16"), ipaddress.ip_network("192.88.99.0/24")]

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_MAX_NAME = 253

NOT_ASCII = "has a host that is not ASCII: write it as xn--…, by IDNA 2008"


def violation(url: SplitResult) -> str | None:
    """Return why no webhook can be posted to this URL, or None if that is not known.

    Raises ValueError if it has no valid port.
    """
    host = url.hostname or ""
    if url.port == 0:
        return "has the port 0"
    if not host.isascii():
        # What a library makes of it may be another owner's: faß.de is fass.de by IDNA 2003.
        return NOT_ASCII
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None if _is_name(host) else "has a host that is neither a name nor an address"
    if "%" not in host and _is_in(address, _PRIVATE):
        return None
    if "%" in host or not _is_public(address):
        return "has an address that no webhook is posted to"
    return "must be https: http is for private networks" if url.scheme == "http" else None


def _is_name(host: str) -> bool:
    labels = host.split(".")
    # The operating system takes 127.1 and 0x7f000001 for addresses.
    numeric = labels[-1].isdecimal() or labels[-1].startswith("0x")
    return len(host) <= _MAX_NAME and all(map(_LABEL.fullmatch, labels)) and not numeric


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        if address in _NAT64:
            mapped = ipaddress.IPv4Address(address.packed[-4:])
        if mapped is not None:
            return _is_public(mapped)
        if address not in _UNICAST:
            return False
    return address.is_global and not address.is_multicast and not _is_in(address, _REFUSED)


def _is_in(
    address: _Address, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks if network.version == address.version)
