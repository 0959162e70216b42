"""Random identities: only valid proof gives access, and none causes an internal error."""

import base64
import binascii
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.access_file import write_access_file
from tests.support.authority import Authority
from tests.support.seed import SEED
from tests.support.token_issuer import PEOPLE, SigningKey, write_key_set

EXAMPLES = 200

POLICY = (
    PEOPLE
    + """
[[caller]]
name = "web"
identity = "spiffe://example.org/web"
roles = ["owner"]
users = ["ada"]

[[proxy]]
identity = "cn:proxy"
"""
)

TEXT = "abcXYZ019-_.=/:;,\"'\\*{}[] @%~"

PIECES = (
    *("URI=", "DNS=", "Subject=", "By=", "Hash=", "spiffe://example.org/web", '"', "\\", ",", ";"),
    *("spiffe://example.org/other", "CN=web", "O=x", "=", "uri=", " ", "spiffe://"),
)


def mutated(chance: random.Random, text: str) -> str:
    """Change one to three characters of a text."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(5):
            case 0:
                text = text[:at] + chance.choice(TEXT) + text[at:]
            case 1:
                text = text[:at] + text[at + chance.randint(1, 9) :]
            case 2:
                text = text[:at] + chance.choice(TEXT) + text[at + 1 :]
            case 3:
                text = text[at:] + text[:at]
            case _:
                parts = text.split(".")
                chance.shuffle(parts)
                text = ".".join(parts)
    return text


def content(token: str) -> list[bytes] | None:
    """Return the decoded parts of a token: one content has several encodings."""
    try:
        return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]
    except (binascii.Error, ValueError):
        return None


async def code_of(channel: grpc.aio.Channel, metadata: list[tuple[str, str]]) -> StatusCode:
    request = jobs.ListJobsRequest(user_id="ada")
    try:
        await JobServiceStub(channel).ListJobs(request, metadata=metadata, timeout=30)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return StatusCode.OK


@pytest.fixture
async def channel(start: Callable[..., Any], tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    """Connect as the trusted proxy, over mutual TLS."""
    authority = Authority()
    cert, key = authority.server().write(tmp_path, "server")
    client_ca, access = tmp_path / "clients.pem", tmp_path / "access.toml"
    client_ca.write_bytes(authority.certificate)
    write_access_file(access, POLICY)
    write_key_set(tmp_path / "keys.json", KEYS)
    app = await start(access=access, tls_cert=cert, tls_key=key, tls_client_ca=client_ca)
    own = authority.issue(common_name="proxy")
    credentials = grpc.ssl_channel_credentials(authority.certificate, own.key, own.certificate)
    async with grpc.aio.secure_channel(app.address, credentials) as channel:
        yield channel


KEYS = [SigningKey(name, name) for name in ("RS256", "ES256", "EdDSA")]


async def test_no_altered_token_is_accepted(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(SEED)
    whole = [key.token() for key in KEYS]
    for token in whole:
        assert await code_of(channel, [("authorization", f"Bearer {token}")]) is StatusCode.OK
    for _ in range(EXAMPLES):
        token = chance.choice(whole)
        changed = mutated(chance, token).strip()
        code = await code_of(channel, [("authorization", f"Bearer {changed}")])
        if content(changed) == content(token):
            assert code in (StatusCode.OK, StatusCode.UNAUTHENTICATED), changed
        else:
            assert code is StatusCode.UNAUTHENTICATED, changed
    for record in caplog.records:
        text = json.dumps(vars(record), default=str)
        assert not any(token[:40] in text for token in whole)
        assert record.message != "internal_error"


async def test_no_proxy_header_causes_an_internal_error_or_admits_another_identity(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(SEED)
    seen = set()
    made = ["".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(EXAMPLES)]
    for report in ["By=cn:proxy;URI=spiffe://example.org/web", *map(str.strip, made)]:
        code = await code_of(channel, [("x-forwarded-client-cert", report)])
        seen.add(code)
        if code is StatusCode.OK:
            assert "spiffe://example.org/web" in report, report
            assert "uri=" in report.lower(), report
        else:
            assert code in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED), report
    assert len(seen) > 1
    assert "internal_error" not in [record.message for record in caplog.records]
