"""Where deliveries may go: to public addresses, and to private ones that the operator permits.

Otherwise anybody who may create a webhook could have this process call what only it can reach
(server-side request forgery). The address that was checked is the one that is connected to.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOKUP_THREADS: Final = 32

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

# Those that `is_global` has as public in some version of Python, and that lead elsewhere: 6to4,
# NAT64 for local use, IPv4 in IPv6, site-local, and the relays of 6to4.
_REFUSED: Final[Sequence[Network]] = (
    ipaddress.IPv6Network("2002::/16"),
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    ipaddress.IPv6Network("::/96"),
    ipaddress.IPv6Network("fec0::/10"),
    ipaddress.IPv4Network("192.88.99.0/24"),
)


class Forbidden(Exception):
    """The host has an address that deliveries may not go to."""


def is_public(address: Address) -> bool:
    """Whether everybody on the internet could reach the same."""
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        if address in _NAT64:
            mapped = ipaddress.IPv4Address(address.packed[-4:])
        if mapped is not None:
            return is_public(mapped)
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
        # A lookup cannot be cancelled: a slow host keeps one thread busy, and no more.
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, "webhook-lookup")
        self._lookups: dict[tuple[str, int], asyncio.Future[Sequence[Address]]] = {}

    async def addresses(self, host: str, port: int, *, encrypted: bool) -> Sequence[Address]:
        """Return the addresses of a host; all are permitted.

        Args:
            host: a name or an address.
            port: the port.
            encrypted: whether TLS is used. Otherwise only permitted private networks are called.

        Raises:
            Forbidden: one is not permitted.
            OSError: there is no such host.
        """
        key = host, port
        lookup = self._lookups.get(key)
        if lookup is None:
            loop = asyncio.get_running_loop()
            lookup = loop.run_in_executor(self._threads, _look_up, host, port)
            self._lookups[key] = lookup
            lookup.add_done_callback(lambda done: self._forget(key, done))
        found = await asyncio.shield(lookup)
        for address in found:
            if is_permitted(address, self._networks):
                continue
            if not is_public(address):
                raise Forbidden(f"{host} has an address that is not public")
            if not encrypted:
                raise Forbidden("http is permitted in private networks only: use https")
        return found

    def close(self) -> None:
        """End the threads that are idle; those that look something up end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, key: tuple[str, int], lookup: "asyncio.Future[Sequence[Address]]") -> None:
        del self._lookups[key]
        if not lookup.cancelled():
            lookup.exception()  # retrieved, though all who wanted it may be gone


def _look_up(host: str, port: int) -> Sequence[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A zone, as in `fe80::1%eth0`, makes an address local.
    texts = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)
    return [ipaddress.ip_address(text) for text in texts]
