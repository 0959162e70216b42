"""Why an identity is refused: the audit log says it, and no answer does."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from jobledger.v1.job_service_pb2 import GetJobRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.rpc.access.permissions import IdentityFault
from tests.support.access_file import rule
from tests.support.authority import Authority
from tests.support.token_issuer import PEOPLE, SigningKey, write_key_set

GOOD, UNKNOWN = SigningKey("ES256", "good"), SigningKey("ES256", "unknown")
FORGED = SigningKey("ES256", "good")
NOW = int(time.time())
TOKENS: dict[str, Sequence[str]] = {
    "unknown_token": ["Bearer secret"],
    "no_bearer_token": ["Basic YWRhOmFkYQ=="],
    "several_tokens": ["Bearer secret", f"Bearer {GOOD.token()}"],
    "wrong_issuer": [f"Bearer {GOOD.token(iss='https://other.example')}"],
    "unknown_key": [f"Bearer {UNKNOWN.token()}"],
    "wrong_signature": [f"Bearer {FORGED.token()}"],
    "wrong_audience": [f"Bearer {GOOD.token(aud='another')}"],
    "no_subject": [f"Bearer {GOOD.token(sub=None)}"],
    "expired": [f"Bearer {GOOD.token(exp=NOW - 60)}"],
    "not_valid_yet": [f"Bearer {GOOD.token(nbf=NOW + 600)}"],
    "wrong_claim": [f"Bearer {GOOD.token(exp=None)}"],
    "no_credentials": [],
}
OTHERS = {
    "no_subject": [f"Bearer {GOOD.token('')}"],
    "wrong_audience": [f"Bearer {GOOD.token(aud=None)}"],
    "wrong_issuer": [f"Bearer {GOOD.token(iss=None)}"],
    "wrong_signature": ["Bearer jlw_W10.c2lnbmVk"],
}


async def answer(channel: grpc.aio.Channel, authorizations: Sequence[str]) -> tuple[object, ...]:
    """Return all that a caller is told of its refusal."""
    metadata = [("authorization", each) for each in authorizations]
    request = GetJobRequest(user_id="ada", job_id="j")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await JobServiceStub(channel).GetJob(request, metadata=metadata, timeout=30)
    trailers = tuple(sorted(refused.value.trailing_metadata() or ()))
    return refused.value.code(), refused.value.details(), trailers


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the faults of the audit log since the last call."""
    found = [vars(each)["kind"] for each in caplog.records if each.name == "jobledger.audit"]
    caplog.clear()
    return found


async def test_the_audit_log_says_why_a_token_is_refused_and_the_answer_does_not(
    start_with: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobledger.audit")
    write_key_set(tmp_path / "keys.json", [GOOD])
    app = await start_with(PEOPLE + rule("web", 'roles = ["owner"]\nusers = ["ada"]'))
    answers = set()
    async with grpc.aio.insecure_channel(app.address) as channel:
        for fault, authorizations in (*TOKENS.items(), *OTHERS.items()):
            answers.add(await answer(channel, authorizations))
            assert faults(caplog) == [fault]
    assert len(answers) == 1
    # Those of certificates are below.
    assert TOKENS.keys() | {"no_name"} == set(IdentityFault)


async def test_the_audit_log_says_why_a_certificate_is_refused_and_the_answer_does_not(
    start_with: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobledger.audit")
    authority = Authority()
    cert, key = authority.server().write(tmp_path, "server")
    (tmp_path / "clients.pem").write_bytes(authority.certificate)
    own = authority.issue(common_name="ada\x07")
    app = await start_with(
        rule("web", 'roles = ["owner"]\nusers = ["ada"]'),
        tls_cert=cert,
        tls_key=key,
        tls_client_ca=tmp_path / "clients.pem",
    )
    credentials = grpc.ssl_channel_credentials(authority.certificate, own.key, own.certificate)
    async with grpc.aio.secure_channel(app.address, credentials) as channel:
        without_name = await answer(channel, [])
        assert faults(caplog) == ["no_name"]
        assert without_name == await answer(channel, ["Bearer secret"])
        assert faults(caplog) == ["unknown_token"]
