"""Which addresses deliveries may go to."""

import asyncio
import ipaddress
import socket
import subprocess
import sys
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobledger_gateway.webhooks import addresses
from jobledger_gateway.webhooks.addresses import (
    MAX_LOOKUPS,
    PRIVATE,
    UNKNOWN,
    Forbidden,
    Resolver,
    is_permitted,
    is_public,
)
from jobledger_gateway.webhooks.posting import Answer, Poster
from jobledger_server.domain.limits import MAX_WEBHOOKS
from jobledger_server.rpc.webhooks.receivers import violation

PUBLIC = [
    *("8.8.8.8", "192.0.0.9", "2606:4700::1111", "::ffff:8.8.8.8"),
    "64:ff9b::808:808",  # NAT64 of 8.8.8.8
]
NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.255", "0.0.0.0", "255.255.255.255"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "192.88.99.1"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1"),
    *("ff02::1", "ff0e::1", "2001:db8::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808"),
    *("::ffff:0:7f00:1", "::ffff:0:a9fe:a9fe"),  # IPv4-translated
    *("4000::1", "5f00::1"),  # of no use yet, and for segment routing
    *("2002:7f00:1::", "2002:808:808::", "2001:0:7f00:1::"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_called(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_any_other_address_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def test_a_permitted_network_is_permitted_and_no_more() -> None:
    networks = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1"):
        assert is_permitted(ipaddress.ip_address(address), networks)
    for address in ("10.2.0.1", "127.0.0.1", "::1", "fc00::1"):
        assert not is_permitted(ipaddress.ip_address(address), networks)


@pytest.mark.parametrize("text", [*PUBLIC, *NOT_PUBLIC, "fc00::1%eth0", "10.255.255.255"])
def test_the_service_refuses_the_addresses_that_no_gateway_posts_to(text: str) -> None:
    address = ipaddress.ip_address(text)
    private = is_permitted(address, PRIVATE) and "%" not in text
    host = f"[{text}]" if ":" in text else text
    accepted = [
        scheme for scheme in ("http", "https") if violation(urlsplit(f"{scheme}://{host}/")) is None
    ]
    assert accepted == (["http", "https"] if private else ["https"] * is_public(address))


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What a resolver says of names; it asks the network for no others."""
    found: dict[str, list[str]] = {}

    def getaddrinfo(host: str, port: None, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return found


async def test_one_private_address_of_a_host_is_enough_to_refuse_it(
    hosts: dict[str, list[str]],
) -> None:
    hosts |= {"good": ["8.8.8.8", "1.1.1.1"], "mixed": ["8.8.8.8", "169.254.169.254"]}
    resolver = Resolver(())
    good = await resolver.addresses("good", encrypted=True)
    assert [str(each) for each in good] == ["8.8.8.8", "1.1.1.1"]
    for encrypted in (True, False):
        with pytest.raises(Forbidden, match=UNKNOWN):
            await resolver.addresses("mixed", encrypted=encrypted)
    with pytest.raises(Forbidden, match="use https"):
        await resolver.addresses("good", encrypted=False)


async def test_a_private_name_that_exists_looks_like_one_that_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = threading.Event()

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        if host == "slow":
            never.wait()
        if host == "none":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(addresses, "LOOKUP_SECONDS", 0.1)
    poster = Poster(Resolver(()), 15.0)
    try:
        answers = {
            await poster.post(f"{scheme}://{host}/", {}, b"{}")
            for host in ("none", "private", "slow", "10.0.0.1")
            for scheme in ("http", "https")
        }
    finally:
        never.set()
    assert answers == {Answer(failure=UNKNOWN)}


# What a URL may have as its host, and what the operating system makes of it.
@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1"])
async def test_another_writing_of_a_loopback_address_is_refused(host: str) -> None:
    resolver = Resolver(())
    with pytest.raises((Forbidden, OSError)):
        await resolver.addresses(host, encrypted=True)


async def test_hosts_that_are_slow_to_find_hold_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        if host != "quick":
            released.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert MAX_LOOKUPS == MAX_WEBHOOKS
    resolver = Resolver(())
    slow = [
        asyncio.create_task(resolver.addresses(f"slow{number}", encrypted=True))
        for number in range(100)
    ]
    try:
        await asyncio.sleep(0)  # each has begun
        async with asyncio.timeout(10):
            assert await resolver.addresses("quick", encrypted=True)
    finally:
        released.set()
        await asyncio.gather(*slow)


def test_a_lookup_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    program = """
import asyncio, socket, threading
from jobledger_gateway.webhooks.addresses import Resolver

begun = threading.Event()

def getaddrinfo(*_, **__):
    begun.set()
    threading.Event().wait()

async def look_up():
    lookup = asyncio.create_task(Resolver(()).addresses("slow", encrypted=True))
    await asyncio.to_thread(begun.wait)

socket.getaddrinfo = getaddrinfo
asyncio.run(look_up())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
