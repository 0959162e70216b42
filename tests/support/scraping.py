"""Reads metrics as Prometheus does."""

import asyncio
import gzip
import urllib.request
from collections.abc import Mapping
from types import MappingProxyType


async def read_page(address: str, headers: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the metrics at an address, as text."""
    request = urllib.request.Request(f"http://{address}/metrics", headers=dict(headers))

    def read() -> str:
        with urllib.request.urlopen(request, timeout=10) as answer:
            page: bytes = answer.read()
            if answer.headers["Content-Encoding"] == "gzip":
                page = gzip.decompress(page)
            return page.decode()

    return await asyncio.to_thread(read)


async def scraped(address: str) -> dict[str, float]:
    """Return the value of each series, by its name with its labels."""
    lines = (await read_page(address)).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}
