"""The metrics of what a server reads again while it runs: certificates, access file and keys."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from jobledger_server.app import App
from jobledger_server.runtime import tls
from jobledger_server.telemetry import prometheus
from tests.support.access_file import write_access_file
from tests.support.authority import Authority, served
from tests.support.ports import free_port
from tests.support.scraping import scraped
from tests.support.token_issuer import PEOPLE, SigningKey, write_key_set

EXPIRES = 'jobledger_certificate_expiration_timestamp_seconds{certificate="%s"}'


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(tls, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(tls, "RELOAD_RETRY_SECONDS", 0.0)


async def figures_once(app: App, address: str, *failing: str) -> dict[str, float]:
    """Return the metrics once these and no others fail."""
    expected = {
        f'jobledger_reloads_failing{{of="{each}"}}': float(each in failing)
        for each in ("certificate", "access_file", "issuer_keys")
    }
    async with asyncio.timeout(30):
        while True:
            await served(app.address)  # the certificate is read again for a handshake
            figures = await scraped(address)
            if figures.items() >= expected.items():
                return figures
            await asyncio.sleep(0.05)


def expiration(pem: bytes) -> float:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


async def test_what_cannot_be_reloaded_is_shown_until_it_can(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    authority, address = Authority(), f"127.0.0.1:{free_port()}"
    first, second = authority.server(days=3), authority.server(days=90)
    cert, key = first.write(tmp_path, "server")
    (tmp_path / "clients.pem").write_bytes(authority.certificate)
    keys, rules = tmp_path / "keys.json", tmp_path / "access.toml"
    write_key_set(keys, [SigningKey("ES256", "first")])
    write_access_file(rules, PEOPLE)
    app = await start(
        metrics=address,
        tls_cert=cert,
        tls_key=key,
        tls_client_ca=tmp_path / "clients.pem",
        access=rules,
    )
    figures = await figures_once(app, address)
    assert figures[EXPIRES % "server"] == expiration(first.certificate)
    assert figures[EXPIRES % "client_ca"] == expiration(authority.certificate)
    keys.write_text("nothing")
    await figures_once(app, address, "issuer_keys")
    write_key_set(keys, [SigningKey("ES256", "second")])
    await figures_once(app, address)
    rules.write_text("nothing")
    cert.write_text("nothing")
    figures = await figures_once(app, address, "access_file", "certificate")
    assert figures[EXPIRES % "server"] == expiration(first.certificate)
    write_access_file(rules, PEOPLE)
    second.write(tmp_path, "server")
    figures = await figures_once(app, address)
    assert figures[EXPIRES % "server"] == expiration(second.certificate)
