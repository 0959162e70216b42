"""What the server and the gateway report to systemd, as units with `Type=notify` have it."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.server_process import ServerProcess


class Systemd:
    """Listens where systemd would, on a path or on an abstract address."""

    def __init__(self, address: str) -> None:
        self.variable = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.setblocking(False)  # noqa: FBT003

    def heard(self) -> list[bytes]:
        """Return what has arrived."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096))
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest) -> Iterator[Systemd]:
    # The path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        listening = Systemd(f"{'@' if request.param == 'abstract' else ''}{folder}/notify")
        with listening.socket:
            yield listening


def test_the_server_reports_once_that_it_serves(tmp_path: Path, systemd: Systemd) -> None:
    server = ServerProcess(tmp_path, environment={"NOTIFY_SOCKET": systemd.variable})
    with server:
        assert server.terminate() == 0
    assert systemd.heard() == [b"READY=1"]


def test_the_gateway_reports_once_that_it_serves(
    monkeypatch: pytest.MonkeyPatch, systemd: Systemd
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.variable)
    with GatewayProcess("127.0.0.1:9") as gateway:
        assert gateway.url
    assert systemd.heard() == [b"READY=1"]
