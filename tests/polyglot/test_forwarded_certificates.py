"""A real Envoy reports its clients' certificates, and no name in one passes for another."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template
from typing import Any

import grpc
import pytest

from jobledger.v1.job_service_pb2 import ListJobsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.app import open_app
from jobledger_server.settings import Settings
from tests.polyglot.envoy import ENVOY
from tests.support.access_file import write_access_file
from tests.support.authority import Authority, Pair
from tests.support.ports import free_port

WEB = "spiffe://example.org/web"

RULES = """
[[caller]]
name = "web"
identity = "spiffe://example.org/web"
roles = ["operator"]

[[caller]]
name = "cron"
identity = "dns:cron.example"
roles = ["operator"]

[[caller]]
name = "jo"
identity = "cn:jo"
roles = ["operator"]

[[proxy]]
identity = "dns:envoy.example"
"""

CONFIGURATION = Template(Path(__file__).with_name("envoy_mutual_tls.yaml").read_text("utf-8"))

REFUSED = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAVAILABLE,  # Envoy itself refuses a name with a NUL
)

CERTIFICATE = "cert: true"
"""What docs/operate/security.md recommends."""

NAMES = "subject: true, uri: true, dns: true"

GENUINE: list[dict[str, Any]] = [
    {"uris": (WEB,), "common_name": "x"},
    {"uris": (WEB,), "dns": ("other.example",)},
    {"dns": ("cron.example", "other.example")},
    {"common_name": "jo"},
    {"common_name": "jo", "organization": "Example, Inc."},
    {"common_name": "jo", "organization": 'x", CN=eve; <+>'},
]

FORGED: list[dict[str, Any]] = [
    {"organization": "x,CN=jo"},
    {"organization": "x\\,CN=jo"},
    {"organization": 'x";URI=spiffe://example.org/web;By="'},
    {"common_name": "jo,CN=jo"},
    {"common_name": "jo\0.evil.example"},
    {"common_names": ("jo", "eve")},
    {"common_names": ("eve", "jo")},
    {"dns": (f"e,URI={WEB}",)},
    {"dns": (f"e;URI={WEB}",)},
    {"dns": ("e", f"e;URI={WEB}")},
    {"dns": ('e;Subject="CN=jo"',)},
    {"dns": ("cron.example\0.evil.example",)},
    {"uris": ("https://e;DNS=cron.example",)},
    {"uris": (f"https://e,URI={WEB}",)},
    {"uris": (f"{WEB},By=e",)},
    {"uris": (f"{WEB}\0/evil",)},
]


@asynccontextmanager
async def forwarding(
    folder: Path, template: Path, details: str, authority: Authority
) -> AsyncIterator[str]:
    """Serve with Envoy in front; give Envoy's address."""
    cert, key = authority.server().write(folder, "server")
    authority.issue(dns=("envoy.example",)).write(folder, "proxy")
    ca = folder / "ca.pem"
    ca.write_bytes(authority.certificate)
    access = folder / "access.toml"
    write_access_file(access, RULES)
    shutil.copy(template, folder / "jobledger.db")
    settings = Settings(
        listen="127.0.0.1:0",
        database=f"sqlite:///{folder}/jobledger.db",
        grace=2.0,
        access=access,
        tls_cert=cert,
        tls_key=key,
        tls_client_ca=ca,
    )
    port = free_port()
    async with open_app(settings) as app:
        values = {
            "port": port,
            "server": app.address.rpartition(":")[2],
            "folder": folder,
            "details": details,
        }
        (folder / "envoy.yaml").write_text(CONFIGURATION.substitute(values))
        command = (str(ENVOY), "-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id")
        with (folder / "envoy.log").open("wb") as log:
            envoy = await asyncio.create_subprocess_exec(
                *command, "--concurrency", "1", stdout=log, stderr=log
            )
        try:
            yield f"localhost:{port}"
        finally:
            envoy.kill()
            await envoy.wait()


async def code_of(address: str, authority: Authority, own: Pair) -> grpc.StatusCode:
    credentials = grpc.ssl_channel_credentials(authority.certificate, own.key, own.certificate)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        try:
            # Envoy may be starting.
            await JobServiceStub(channel).ListJobs(
                ListJobsRequest(), timeout=30, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("details", [CERTIFICATE, NAMES])
async def test_envoy_reports_whom_a_certificate_names_and_nobody_else(
    tmp_path: Path, sqlite_template: Path, details: str
) -> None:
    authority = Authority()
    async with forwarding(tmp_path, sqlite_template, details, authority) as envoy:
        for names in GENUINE:
            found = await code_of(envoy, authority, authority.issue(**names))
            assert (names, found) == (names, grpc.StatusCode.OK)
        for names in FORGED:
            found = await code_of(envoy, authority, authority.issue(**names))
            assert found in REFUSED, (names, found)
