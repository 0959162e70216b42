"""Where deliveries may go: to public addresses, and to private ones that the operator permits.

Otherwise anybody who may create a webhook could have this process call what only it can reach
(server-side request forgery). The address that was checked is the one that is connected to.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from jobledger_gateway.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PRIVATE: Final[Sequence[Network]] = [
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8"),
        *("fc00::/7", "::1/128"),
    )
]
"""What an operator may permit. The service refuses webhooks for what is neither in these nor public
(server/jobledger_server/rpc/webhooks/receivers.py)."""

LOOKUP_SECONDS: Final = 10.0
"""How long a lookup is waited for: less than for an attempt, so that it says so by itself."""

UNKNOWN: Final = "the host was not found, or has an address that is not permitted"
"""One text for both: otherwise webhooks would say which private names exist."""

MAX_LOOKUPS: Final = 1000
"""Lookups at once: one for each webhook that a service may have, so that no owner's slow hosts hold
up another's."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

# All that IANA has given to hosts of the internet. What is outside leads elsewhere, whatever
# `is_global` says of it in a version of Python: IPv4 in IPv6, NAT64 for local use, site-local.
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")

# And of that 6to4, and in IPv4 its relays.
_REFUSED: Final[Sequence[Network]] = (
    ipaddress.IPv6Network("2002::/16"),
    ipaddress.IPv4Network("192.88.99.0/24"),
)


class Forbidden(Exception):
    """Deliveries may not go to the host, or it was not found."""


def is_public(address: Address) -> bool:
    """Whether everybody on the internet could reach the same."""
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        if address in _NAT64:
            mapped = ipaddress.IPv4Address(address.packed[-4:])
        if mapped is not None:
            return is_public(mapped)
        if address not in _UNICAST:
            return False
    refused = any(address in network for network in _REFUSED if network.version == address.version)
    return address.is_global and not address.is_multicast and not refused


def is_permitted(address: Address, networks: Collection[Network]) -> bool:
    """Whether an address is in one of these networks, itself or as the IPv4 address in it."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks if network.version == address.version)


class Resolver:
    """Finds the addresses of hosts, one lookup of a host at a time.

    Args:
        networks: what is permitted besides public addresses.
    """

    def __init__(self, networks: Collection[Network]) -> None:
        self._networks = networks
        self._lookups: dict[str, asyncio.Future[Sequence[Address]]] = {}

    async def addresses(self, host: str, *, encrypted: bool) -> Sequence[Address]:
        """Return the addresses of a host; all are permitted.

        Args:
            host: a name or an address.
            encrypted: whether TLS is used. Otherwise only permitted private networks are called.

        Raises:
            Forbidden: one is not permitted, or there is no such host.
            OSError: there are too many lookups.
        """
        lookup = self._lookups.get(host)
        if lookup is None:
            if len(self._lookups) >= MAX_LOOKUPS:
                raise OSError("too many lookups")
            lookup = self._lookups[host] = _lookup(host)
            lookup.add_done_callback(partial(self._forget, host))
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await asyncio.shield(lookup)
        except OSError:  # TimeoutError, too
            raise Forbidden(UNKNOWN) from None
        others = [address for address in found if not is_permitted(address, self._networks)]
        if not all(map(is_public, others)):
            raise Forbidden(UNKNOWN)
        if others and not encrypted:
            raise Forbidden("http is permitted in private networks only: use https")
        return found

    def _forget(self, host: str, lookup: "asyncio.Future[Sequence[Address]]") -> None:
        del self._lookups[host]
        lookup.exception()  # retrieved, though all who wanted it may be gone


def _lookup(host: str) -> "asyncio.Future[Sequence[Address]]":
    """Look a host up in a thread, which cannot be cancelled and does not outlive the process."""
    loop = asyncio.get_running_loop()
    lookup: asyncio.Future[Sequence[Address]] = loop.create_future()

    def run() -> None:
        try:
            settle = partial(lookup.set_result, _look_up(host))
        except Exception as error:  # noqa: BLE001  # for who awaits it
            settle = partial(lookup.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, name="webhook-lookup", daemon=True).start()
    return lookup


def _look_up(host: str) -> Sequence[Address]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A zone, as in `fe80::1%eth0`, makes an address local.
    texts = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)
    return [ipaddress.ip_address(text) for text in texts]
