"""Who a caller is: by its certificate, by a JSON Web Token, and by what a proxy says of it."""

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import jwt
import pytest
from grpc import StatusCode
from grpc.experimental.session_cache import ssl_session_cache_lru

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.app import App
from tests.support.access_file import rule, write_access_file
from tests.support.authority import Authority, Pair
from tests.support.rpc_caller import decoded
from tests.support.token_issuer import (
    AUDIENCE,
    ISSUER,
    PEOPLE,
    KeyServer,
    SigningKey,
    key_server,
    key_set,
    write_key_set,
)

DENIED = (StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
UNKNOWN = (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
LET_IN = (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")

Serve = Callable[[str], Awaitable[tuple[App, grpc.aio.Channel]]]
Connect = Callable[..., Awaitable[grpc.aio.Channel]]

ADAS = 'roles = ["owner"]\nusers = ["ada"]\n'


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def keys() -> dict[str, SigningKey]:
    return {name: SigningKey(name, f"key-{name}") for name in ("RS256", "ES256", "EdDSA")}


@pytest.fixture
async def serve(start_with: Callable[..., Any]) -> AsyncIterator[Serve]:
    """Start a server with an access file, and connect to it."""
    async with AsyncExitStack() as channels:

        async def serve(policy: str) -> tuple[App, grpc.aio.Channel]:
            app = await start_with(policy)
            channel = grpc.aio.insecure_channel(app.address)
            return app, await channels.enter_async_context(channel)

        yield serve


async def answer(
    channel: grpc.aio.Channel, token: str | None = None, user: str = "ada", **metadata: str
) -> tuple[StatusCode, str]:
    """Ask for a job that does not exist; return the refusal."""
    sent = [(key.replace("_", "-"), value) for key, value in metadata.items()]
    if token is not None:
        sent.append(("authorization", f"Bearer {token}"))
    request = jobs.GetJobRequest(user_id=user, job_id="nowhere")
    try:
        await JobServiceStub(channel).GetJob(request, metadata=sent, timeout=30)
    except grpc.aio.AioRpcError as error:
        refused = decoded(error)
        return refused.code, refused.reason
    raise AssertionError("found a job that does not exist")


# --- certificates --------------------------------------------------------------------------------

CERTIFICATES = f"""
[[caller]]
name = "web"
identity = "spiffe://example.org/web"
{ADAS}
[[caller]]
name = "cron"
identity = "dns:cron.example"
{ADAS}
[[caller]]
name = "jo"
identity = "cn:jo"
{ADAS}

[[proxy]]
identity = "dns:envoy.example"
""" + rule("token", 'roles = ["owner"]\nusers = ["bob"]', "secret")


@pytest.fixture
async def connected(
    start_with: Callable[..., Any],
    tmp_path: Path,
    authority: Authority,
    keys: dict[str, SigningKey],
) -> AsyncIterator[Connect]:
    """Serve; yield what opens a channel with a certificate that has these names."""
    cert, key = authority.server().write(tmp_path, "server")
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(authority.certificate)
    write_key_set(tmp_path / "keys.json", list(keys.values()))
    files = {"tls_cert": cert, "tls_key": key, "tls_client_ca": client_ca}
    app = await start_with(CERTIFICATES + TOKENS, **files)
    async with AsyncExitStack() as channels:

        async def connected(
            own: Pair | None = None, options: Sequence[tuple[str, Any]] = (), **names: Any
        ) -> grpc.aio.Channel:
            own = own or authority.issue(**names)
            credentials = grpc.ssl_channel_credentials(
                authority.certificate, own.key, own.certificate
            )
            options = [("grpc.use_local_subchannel_pool", 1), *options]
            return await channels.enter_async_context(
                grpc.aio.secure_channel(app.address, credentials, options)
            )

        yield connected


async def test_a_certificate_names_its_holder(connected: Connect) -> None:
    web = "spiffe://example.org/web"
    cases: list[tuple[dict[str, Any], tuple[StatusCode, str]]] = [
        ({"uris": (web,)}, LET_IN),
        ({"uris": (web,), "dns": ("other.example",), "common_name": "x"}, LET_IN),
        ({"dns": ("cron.example", "other.example"), "common_name": "x"}, LET_IN),
        ({"dns": ("CRON.example",)}, LET_IN),
        ({"common_name": "jo"}, LET_IN),
        ({"uris": ("https://jo.example",), "common_name": "jo"}, LET_IN),
        # A rule for one kind of name is not for another kind.
        ({"common_name": "cron.example"}, DENIED),
        ({"common_name": web}, DENIED),
        ({"dns": ("jo",)}, DENIED),
        # The SPIFFE ID counts, and the other names do not.
        ({"uris": ("spiffe://example.org/other",), "common_name": "jo"}, DENIED),
        ({"dns": ("other.example", "cron.example")}, DENIED),
        # With several URIs it is no SPIFFE certificate, and identifies no caller.
        ({"uris": (web, "spiffe://example.org/other"), "common_name": "jo"}, UNKNOWN),
        ({"uris": ("spiffe://example.org/../web",), "common_name": "jo"}, UNKNOWN),
        ({}, UNKNOWN),
        # Names are taken as a whole. A caller has one common name.
        ({"common_name": "jo\0.evil.example"}, UNKNOWN),
        ({"dns": ("cron.example\0.evil.example",)}, UNKNOWN),
        ({"uris": (f"{web}\0/evil",)}, UNKNOWN),
        ({"common_names": ("jo", "eve")}, UNKNOWN),
        ({"common_names": ("eve", "jo")}, UNKNOWN),
        ({"organization": "x,CN=jo"}, UNKNOWN),
        ({"organization": "x,CN=eve", "common_name": "jo"}, LET_IN),
        ({"dns": ("cron.example,URI=spiffe://example.org/web",)}, UNKNOWN),
        ({"dns": ("*.example",)}, UNKNOWN),
        ({"dns": ("",), "common_name": "jo"}, UNKNOWN),
    ]
    for names, expected in cases:
        assert (names, await answer(await connected(**names))) == (names, expected)


async def test_a_certificate_is_refused_from_its_end_on_also_in_a_resumed_session(
    connected: Connect, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS checks it in a whole handshake only, and a session can be resumed for two days."""
    web = authority.issue(uris=("spiffe://example.org/web",), days=2)
    report = f'Cert="{quote(authority.issue(common_name="jo", days=2).certificate)}"'
    session = ("grpc.ssl_session_cache", ssl_session_cache_lru(1))
    open_before = await connected(own=web, options=[session])
    proxy = await connected(dns=("envoy.example",))
    expired_proxy = await connected(dns=("envoy.example",), days=2)
    names = {"x_forwarded_client_cert": "URI=spiffe://example.org/web"}
    assert await answer(open_before) == LET_IN
    assert await answer(proxy, x_forwarded_client_cert=report) == LET_IN
    assert await answer(expired_proxy, **names) == LET_IN
    later(monkeypatch, days=2)
    resumed = await connected(own=web, options=[session])
    assert await answer(resumed) == UNKNOWN
    assert await answer(open_before) == UNKNOWN
    assert await answer(proxy, x_forwarded_client_cert=report) == UNKNOWN
    assert await answer(proxy, **names) == LET_IN
    assert await answer(expired_proxy, **names) == UNKNOWN


async def test_a_stream_ends_when_its_callers_certificate_or_token_expires(
    connected: Connect, keys: dict[str, SigningKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    web = {"uris": ("spiffe://example.org/web",)}
    short, long = await connected(**web, days=2), await connected(**web, days=20)
    day = int(time.time()) + timedelta(days=1).total_seconds()
    ended = [
        await watching(short),
        await watching(long, keys["ES256"].token(exp=day)),
    ]
    stay = [await watching(long), await watching(short, "secret", user="bob")]
    later(monkeypatch, days=2)
    async with asyncio.timeout(10):
        for stream in ended:
            assert await end_of(stream) is StatusCode.UNAVAILABLE
    assert not any(stream.done() for stream in stay)


async def test_a_stream_ends_when_the_key_of_its_callers_token_is_removed(
    serve: Serve, tmp_path: Path, keys: dict[str, SigningKey]
) -> None:
    other = SigningKey("ES256", "other")
    write_key_set(tmp_path / "keys.json", list(keys.values()))
    write_key_set(tmp_path / "others.json", list(keys.values()))
    others = (TOKENS.partition("[[caller]]")[0]).replace("keys", "others").replace(ISSUER, "b")
    rules = CERTIFICATES + TOKENS + others.replace("accounts", "others") + OTHERS
    _, channel = await serve(rules)
    removed = await watching(channel, keys["ES256"].token())
    stay = [
        await watching(channel, keys["RS256"].token()),
        await watching(channel, keys["ES256"].token(iss="b")),
        await watching(channel, "secret", user="bob"),
    ]
    write_key_set(tmp_path / "keys.json", [other, keys["RS256"]])
    async with asyncio.timeout(10):
        assert await end_of(removed) is StatusCode.UNAVAILABLE
    assert not any(stream.done() for stream in stay)
    assert await answer(channel, keys["ES256"].token()) == UNKNOWN


OTHERS = """
[[caller]]
name = "others"
identity = "jwt:others/*"
roles = ["owner"]
users_claim = "sub"
"""


async def watching(channel: grpc.aio.Channel, token: str | None = None, user: str = "ada") -> Any:
    """Begin to watch the jobs of a user."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    request = jobs.WatchJobsRequest(user_id=user)
    stream = JobServiceStub(channel).WatchJobs(request, metadata=metadata)
    await stream.read()
    return stream


async def end_of(stream: Any) -> StatusCode:
    """Read a stream until it ends with an error."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return StatusCode.OK


def later(monkeypatch: pytest.MonkeyPatch, **time_passed: float) -> None:
    """Set the clock of the server forward."""
    from jobledger_server.rpc.access import access

    real, seconds = time.time, timedelta(**time_passed).total_seconds()
    monkeypatch.setattr(access.time, "time", lambda: real() + seconds)


async def test_a_token_takes_precedence_over_a_certificate(connected: Connect) -> None:
    channel = await connected(common_name="jo")
    assert await answer(channel, "secret", "bob") == LET_IN
    assert await answer(channel, "secret", "ada") == DENIED
    assert await answer(channel, "wrong", "ada") == UNKNOWN
    assert await answer(channel, authorization="Basic am86") == UNKNOWN


async def test_only_a_trusted_proxy_may_name_its_client(
    connected: Connect, authority: Authority
) -> None:
    web = "URI=spiffe://example.org/web"

    def cert(**names: Any) -> str:
        return f'"{quote(authority.issue(**names).certificate)}"'

    reports = {
        f"By=spiffe://example.org/envoy;Hash=ab12;{web}": LET_IN,
        f'Hash=ab12;Subject="CN=x,OU=y";{web};DNS=z': LET_IN,
        "DNS=cron.example": LET_IN,
        'Hash=ab;Subject="CN=jo,O=Example"': LET_IN,
        'Subject="O=Example, CN=jo"': LET_IN,
        f'By=a;By=b;Hash=ab12;Subject="";{web};DNS=': LET_IN,
        'Subject="CN=jo,O=Example\\, Inc.";URI=;DNS=': LET_IN,
        'Subject="O=x\\"y,CN=jo"': LET_IN,
        # The certificate itself counts more than what the proxy says of it.
        f"Hash=ab12;Cert={cert(common_name='jo')};{web}": LET_IN,
        f"Cert={cert(dns=('eve.example',))};{web}": DENIED,
        f"Cert={cert(dns=(f'e,{web}',))};{web}": UNKNOWN,
        f"Cert={cert(common_name='jo')};Cert={cert(common_name='jo')}": UNKNOWN,
        f"DNS=e;Cert={cert(common_name='jo')}": UNKNOWN,
        'Cert="jo"': UNKNOWN,
        # The proxy reports one certificate. More may come from its names, or from the client.
        f"{web},URI=spiffe://example.org/other": UNKNOWN,
        f"URI=spiffe://example.org/other,{web}": UNKNOWN,
        f"DNS=e,{web}": UNKNOWN,
        f"{web},Hash=ab12": UNKNOWN,
        f"{web},": UNKNOWN,
        f"{web};": UNKNOWN,
        f"{web};URI=spiffe://example.org/other": UNKNOWN,
        # A name of the certificate adds no key that Envoy writes earlier, or once, or never.
        f"DNS=e;{web}": UNKNOWN,
        'DNS=e;Subject="CN=jo"': UNKNOWN,
        f"{web};Hash=ab12": UNKNOWN,
        'Subject="CN=jo";Subject="CN=jo"': UNKNOWN,
        'Subject="CN=jo";Name=x': UNKNOWN,
        'Subject="CN=jo";URI=https://x;DNS=cron.example': UNKNOWN,
        "DNS=cron.example\\": UNKNOWN,
        "DNS=*.example": UNKNOWN,
        'Subject="O=x\\,CN=jo"': UNKNOWN,
        'Subject="O=x\\\\,CN=jo"': UNKNOWN,
        'Subject="CN=jo\\,CN=eve"': UNKNOWN,
        'Subject="CN=jo,CN=eve"': UNKNOWN,
        'Subject="CN=eve,CN=jo"': UNKNOWN,
        'Subject="OU=CN=jo"': UNKNOWN,
        'Subject="CN=jo': UNKNOWN,
        "Hash=ab12": UNKNOWN,
        "By=spiffe://example.org/web": UNKNOWN,
        "nonsense": UNKNOWN,
        "": UNKNOWN,
        f'Subject="{web}"': UNKNOWN,
    }
    proxy, cron = await connected(dns=("envoy.example",)), await connected(common_name="eve")
    for report, expected in reports.items():
        found = await answer(proxy, x_forwarded_client_cert=report)
        assert (report, found) == (report, expected)
        assert await answer(cron, x_forwarded_client_cert=report) == DENIED
    assert await answer(proxy) == DENIED
    # A token takes precedence for a proxy's client too.
    assert await answer(proxy, "secret", "bob", x_forwarded_client_cert=web) == LET_IN


# --- JSON Web Tokens -----------------------------------------------------------------------------

TOKENS = (
    PEOPLE
    + """
[[caller]]
name = "staff"
identity = "jwt:accounts/staff:*"
roles = ["operator"]
"""
)


@pytest.fixture
async def channel(serve: Serve, tmp_path: Path, keys: dict[str, SigningKey]) -> grpc.aio.Channel:
    """Serve the accounts of an issuer whose keys are in a file."""
    write_key_set(tmp_path / "keys.json", list(keys.values()))
    return (await serve(TOKENS))[1]


async def test_a_token_of_each_algorithm_names_its_subject_and_its_users(
    channel: grpc.aio.Channel, keys: dict[str, SigningKey]
) -> None:
    for key in keys.values():
        for _ in range(2):  # the second time it is remembered
            assert await answer(channel, key.token()) == LET_IN
            assert await answer(channel, key.token(), "bob") == DENIED
            assert await answer(channel, key.token("*"), "bob") == DENIED
            assert await answer(channel, key.token("staff:jo"), "bob") == LET_IN


def altered(token: str, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Change a token after it was signed."""
    parts = token.split(".")
    for index, changes in ((0, header or {}), (1, claims)):
        content = json.loads(base64.urlsafe_b64decode(parts[index] + "=="))
        parts[index] = encoded({**content, **changes})
    return ".".join(parts)


def encoded(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def confused(key: SigningKey, secret: bytes) -> str:
    """Sign with the public key as if it were a secret that both sides know."""
    claims = key.token().split(".")[1]
    signed = f"{encoded({'alg': 'HS256', 'kid': key.kid, 'typ': 'JWT'})}.{claims}"
    mac = hmac.new(secret, signed.encode(), "sha256").digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def signed(key: SigningKey, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Sign a token whose header and claims are otherwise good, and may be of any kind."""
    content = jwt.decode(key.token(), options={"verify_signature": False}) | claims
    given = {"kid": key.kid, **(header or {})}
    given = {name: value for name, value in given.items() if value is not None}
    return jwt.api_jws.encode(json.dumps(content).encode(), key.private, key.algorithm, given)


def bad_tokens(keys: dict[str, SigningKey]) -> Iterator[tuple[str, str]]:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    now = int(time.time())
    rsa, ecdsa, other = keys["RS256"], keys["ES256"], SigningKey("ES256", "key-ES256")
    yield "expired", rsa.token(exp=now - 60)
    yield "not yet valid", rsa.token(nbf=now + 60)
    yield "issued in the future", rsa.token(iat=now + 600)
    for claim in ("exp", "sub", "aud", "iss"):
        yield f"no {claim}", rsa.token(**{claim: None})
    yield "another audience", rsa.token(aud="other")
    yield "an audience that begins alike", rsa.token(aud=f"{AUDIENCE}.evil.example")
    yield "an audience that is a number", signed(rsa, aud=7)
    yield "another issuer", rsa.token(iss="https://evil.example")
    yield "an issuer that begins alike", rsa.token(iss=f"{ISSUER}.evil.example")
    yield "an issuer that is a list", signed(rsa, iss=[ISSUER])
    yield "an empty subject", rsa.token("")
    yield "a subject with a line break", rsa.token("ada\n")
    yield "a subject that is a number", signed(rsa, sub=7)
    yield "a subject that is a list", signed(rsa, sub=["ada"])
    yield "a long subject", rsa.token("a" * 600)
    yield "an expiry that is a text", signed(rsa, exp="soon")
    yield "an expiry that is nothing", signed(rsa, exp=None)
    yield "a beginning that is a text", signed(rsa, nbf="now")
    yield "an expiry that is a number in a text", rsa.token(exp=str(now + 300))
    yield "no expiry ever", rsa.token(exp=float("inf"))
    yield "an expiry that is no number", rsa.token(exp=float("nan"))
    yield "a negative expiry", rsa.token(exp=-1e300)
    yield "an expiry of zero", rsa.token(exp=0)
    yield "another key with a known id", other.token()
    yield "an unknown key", SigningKey("ES256", "key-other").token()
    yield "no key id", signed(rsa, {"kid": None})
    yield "the id of a key of another kind", signed(rsa, {"kid": ecdsa.kid})
    yield "a critical header", signed(rsa, {"crit": ["x"], "x": 1})
    yield "a key of its own", signed(other, {"kid": "x", "jwk": other.public})
    yield "a URL of its own", signed(other, {"kid": "x", "jku": "https://evil.example/k"})
    yield (
        "another algorithm of the same key",
        jwt.encode(
            jwt.decode(rsa.token(), options={"verify_signature": False}),
            rsa.private,
            "RS512",
            headers={"kid": rsa.kid},
        ),
    )
    yield "no signature", altered(rsa.token(), {"alg": "none"}).rpartition(".")[0] + "."
    yield "another subject", altered(rsa.token(), sub="bob")
    yield "another algorithm in the header", altered(rsa.token(), {"alg": "ES256"})
    pem = rsa.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield "the public key as a secret", confused(rsa, pem)
    yield "its modulus as a secret", confused(rsa, rsa.public["n"].encode())
    yield "two parts", rsa.token().rpartition(".")[0]
    yield "four parts", f"{rsa.token()}.x"
    yield "nothing in it", ".."
    yield "no JSON", "a.b.c"
    yield "deep JSON", f"{encoded({'alg': 'RS256', 'kid': rsa.kid})}.{'W1tb' * 1500}.x"
    yield "a text as claims", jwt.api_jws.encode(b'"ada"', rsa.private, "RS256", {"kid": rsa.kid})


async def test_an_invalid_token_is_unauthenticated(
    channel: grpc.aio.Channel, keys: dict[str, SigningKey]
) -> None:
    assert await answer(channel, signed(keys["RS256"])) == LET_IN
    for name, token in bad_tokens(keys):
        assert (name, await answer(channel, token)) == (name, UNKNOWN)


async def test_clocks_may_differ_by_less_than_half_a_minute(
    channel: grpc.aio.Channel, keys: dict[str, SigningKey]
) -> None:
    now = int(time.time())
    for claims in ({"exp": now - 10}, {"nbf": now + 10}, {"iat": now + 10}):
        assert await answer(channel, keys["EdDSA"].token(**claims)) == LET_IN


async def test_a_cached_token_expires_too(
    channel: grpc.aio.Channel, keys: dict[str, SigningKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = keys["ES256"].token(exp=int(time.time()) + 5)
    assert await answer(channel, token) == LET_IN
    later(monkeypatch, seconds=36)
    monkeypatch.setattr(jwt.api_jwt, "datetime", _Later, raising=True)
    assert await answer(channel, token) == UNKNOWN


class _Later:
    """The clock of the library, 36 seconds later."""

    @staticmethod
    def now(tz: Any) -> Any:
        from datetime import datetime, timedelta

        return datetime.now(tz) + timedelta(seconds=36)


async def test_a_broken_key_file_keeps_the_old_keys_and_is_logged(
    channel: grpc.aio.Channel,
    tmp_path: Path,
    keys: dict[str, SigningKey],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "keys.json").write_text('{"keys": [')
    with caplog.at_level(logging.WARNING):
        assert await answer(channel, SigningKey("ES256", "new").token()) == UNKNOWN
    assert "issuer_keys_unavailable" in [record.message for record in caplog.records]
    assert await answer(channel, keys["RS256"].token()) == LET_IN


def of_url(served: KeyServer) -> str:
    return TOKENS.replace(
        'jwks_file = "keys.json"', f'jwks_url = "{served.url}"\njwks_ca_file = "ca.pem"'
    )


@pytest.fixture
def served(
    authority: Authority, tmp_path: Path, keys: dict[str, SigningKey]
) -> Iterator[KeyServer]:
    """Serve the key ES256 at a URL."""
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    with key_server(authority, tmp_path) as served:
        served.content = key_set([keys["ES256"]])
        yield served


async def test_keys_from_a_url_are_cached_and_fetched_again_for_an_unknown_key(
    served: KeyServer,
    serve: Serve,
    keys: dict[str, SigningKey],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jobledger_server.rpc.access import issuers

    monkeypatch.setattr(issuers, "MIN_REFRESH_SECONDS", 0.0)
    first, second = keys["ES256"], SigningKey("ES256", "second")
    _, channel = await serve(of_url(served))
    for number in range(20):
        assert await answer(channel, first.token(jti=str(number))) == LET_IN
    assert served.requests == 1
    served.content = key_set([first, second])
    assert await answer(channel, second.token()) == LET_IN
    assert await answer(channel, first.token()) == LET_IN
    assert served.requests == 2
    # If the URL does not answer, or answers nonsense, the old keys stay in use.
    third = SigningKey("ES256", "third")
    large = b" " * 2**21 + key_set([first, third])
    bad = (500, b""), (200, b"<html>"), (302, b""), (200, b"[" * 9999), (200, large)
    for served.status, served.content in bad:
        assert await answer(channel, third.token()) == UNKNOWN
        assert await answer(channel, first.token()) == LET_IN
    assert served.requests == 2 + len(bad)


async def test_unknown_keys_cannot_make_the_server_fetch_more_often(
    served: KeyServer, serve: Serve, keys: dict[str, SigningKey]
) -> None:
    _, channel = await serve(of_url(served))
    begun = time.monotonic()
    token = keys["ES256"].token()
    for number in range(100):
        unknown = altered(token, {"kid": f"unknown-{number}"})
        assert await answer(channel, unknown) == UNKNOWN
    assert served.requests <= 1 + (time.monotonic() - begun) / issuer_minimum()


async def test_a_key_url_that_never_finishes_its_answer_blocks_no_call(
    served: KeyServer,
    serve: Serve,
    keys: dict[str, SigningKey],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jobledger_server.rpc.access import issuers

    monkeypatch.setattr(issuers, "MIN_REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(issuers, "FETCH_SECONDS", 0.5)
    served.endless.set()
    _, channel = await serve(of_url(served))
    assert await answer(channel, keys["ES256"].token()) == UNKNOWN
    served.endless.clear()
    assert await answer(channel, keys["ES256"].token()) == LET_IN


async def test_the_access_file_is_reloaded_while_keys_are_fetched(
    served: KeyServer,
    serve: Serve,
    tmp_path: Path,
    keys: dict[str, SigningKey],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jobledger_server.rpc.access import issuers

    monkeypatch.setattr(issuers, "FETCH_SECONDS", 600.0)
    served.endless.set()
    policy = of_url(served)
    app, channel = await serve(policy)
    waits = asyncio.ensure_future(answer(channel, keys["ES256"].token()))
    async with asyncio.timeout(30):
        while not served.requests:
            await asyncio.sleep(0.01)
        # The issuer is no longer trusted.
        write_access_file(tmp_path / "access.toml", CERTIFICATES + policy.partition("\n\n")[2])
        app.reload()
        while await answer(channel, "secret", "bob") != LET_IN:
            await asyncio.sleep(0.01)
    served.endless.clear()
    assert await waits == UNKNOWN
    assert served.requests == 1


def issuer_minimum() -> float:
    from jobledger_server.rpc.access.issuers import MIN_REFRESH_SECONDS

    return MIN_REFRESH_SECONDS


async def test_a_key_url_with_an_untrusted_certificate_is_refused(
    served: KeyServer, serve: Serve, tmp_path: Path, keys: dict[str, SigningKey]
) -> None:
    (tmp_path / "ca.pem").write_bytes(Authority().certificate)
    _, channel = await serve(of_url(served))
    assert await answer(channel, keys["ES256"].token()) == UNKNOWN
    assert served.requests == 0
