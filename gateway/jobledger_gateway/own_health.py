"""Asks the gateway on this machine whether it is ready: for supervisors that run a command."""

import ipaddress
import json
import ssl
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}


class NotReady(Exception):
    """The gateway is not ready. Its text says why."""


def check_own_health(host: str, port: int, cert: Path | None, seconds: float) -> None:
    """Return if a gateway that listens there serves, and its service answers.

    Args:
        host: what it listens at; loopback is asked if that is every address.
        port: its port.
        cert: its certificate, which is trusted whatever its names; None without TLS.
        seconds: how long it may take.

    Raises:
        NotReady: it does not answer, or says that it is not ready.
    """
    try:
        address = ipaddress.ip_address(host)
        name = LOOPBACK[address.version] if address.is_unspecified else host
        name = f"[{name}]" if address.version == 6 else name  # noqa: PLR2004
    except ValueError:
        name = host
    try:
        # Without a proxy for other machines, which the environment may name.
        handlers = [ProxyHandler({})] if cert is None else [ProxyHandler({}), _trusting(cert)]
        url = f"http{'' if cert is None else 's'}://{name}:{port}/readyz"
        with build_opener(*handlers).open(url, timeout=seconds):
            pass
    except HTTPError as error:
        with error:
            raise NotReady(_detail(error.read()) or str(error)) from None
    except OSError as error:
        raise NotReady(f"{name}:{port}: {error}") from None


def _trusting(cert: Path) -> HTTPSHandler:
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its CA may not be in the file
    return HTTPSHandler(context=context)


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""
