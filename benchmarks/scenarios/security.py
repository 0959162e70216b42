"""What encryption, identities and a policy cost a call, and whom an abuser with quotas harms."""

import hashlib
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from benchmarks.measure import Usage, Work, in_order, measure, together
from benchmarks.processes import all_do, cpu_seconds
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Server

GOOD_CALLERS = 10
GOOD_EVERY_SECONDS = 0.05
MOST_TIMES = 1.5
"""A good caller's p99 with an abuser at its limit, at most, as a multiple of that without it."""

BURST_SECONDS = 1.0

ABUSER_IN_FLIGHT = 60
ABUSER_QUOTAS = """
calls_per_second = 20
jobs_per_second = 20
unfinished_jobs = 1000
watches = 10
work_streams = 2
waiting_bytes = 4194304
"""

RULES = 'roles = ["owner", "worker"]\nusers = ["*"]\njob_types = ["*"]\n'


@dataclass(frozen=True)
class Protection:
    """A way to protect a server: its arguments, and what a caller needs."""

    name: str
    arguments: tuple[str, ...] = ()
    caller: dict[str, str] | None = None
    credentials: grpc.ChannelCredentials | None = None


def measure_security(run: Run) -> None:
    """Measure TLS, certificates, tokens and a policy against plain text, and an abuser's harm."""
    database = run.databases[0]
    works = [
        Work.calls("GetJob", "get", run.arguments.in_flight, changes=0),
        Work.calls("CreateJob", "create", run.arguments.in_flight),
    ]
    servers: dict[str, Server] = {}
    for each in _protections(run.folder):
        server = run.serving(database, *each.arguments, credentials=each.credentials)
        servers[each.name] = server
        all_do(run.generators, "calls.open", target=server.target, **(each.caller or {}))
        share = run.arguments.jobs // len(run.generators)
        all_do(run.generators, "calls.prepare", target=server.target, jobs=share)
        for work in works:
            measure(server, run.generators, work, min(0.25, run.seconds))
    abused = run.serving(database, "--access", str(_quotas(run.folder)))
    outcomes: Counter[str] = Counter()
    for turn in run.each_round():
        for work in works:
            usages: dict[str, Usage] = {}
            for name in in_order(tuple(servers), turn):
                usages[name] = measure(servers[name], run.generators, work, run.seconds)
            plain = together([usages["plain text"]])
            for name, usage in usages.items():
                if usage is not usages["plain text"]:
                    title = f"{work.title}, {name}"
                    beside = plain.microseconds
                    run.report.add(Kind.SERVER_CPU, title, "µs/call", usage.microseconds, beside)
        outcomes += _measure_abuse(run, abused)
    calls = outcomes.total()
    refused = outcomes["refused"] / calls
    run.report.note(f"Of {calls:,} calls of the abuser {refused:.0%} were refused.")


def _measure_abuse(run: Run, server: Server) -> Counter[str]:
    """Measure good callers without an abuser and with one that is held to its quotas.

    First in the second in which it may use what it had not used before, then at its limit. Return
    how many of its calls were accepted and refused. Fails if a call of a good caller does.
    """
    good, abuser = run.generators
    seconds = max(run.seconds, 2 * GOOD_EVERY_SECONDS)

    def create(seconds: float) -> tuple[float, float, float]:
        """Create jobs; return percentiles in ms, and the server's CPU in ms for each second."""
        before, begin = cpu_seconds(server.pid), time.monotonic()
        reply = good.do(
            "calls.steady",
            target=server.target,
            tokens=[f"good-{number}" for number in range(GOOD_CALLERS)],
            every=GOOD_EVERY_SECONDS,
            seconds=seconds,
        )
        used = (cpu_seconds(server.pid) - before) / (time.monotonic() - begin)
        return *percentiles(reply["each"]), used * 1e3

    alone = create(seconds)
    abuser.begin(
        "abuse.attack",
        target=server.target,
        token="abuser",
        in_flight=ABUSER_IN_FLIGHT,
        seconds=BURST_SECONDS + seconds,
    )
    begins, beside = create(BURST_SECONDS), create(seconds)
    attack = abuser.end()
    name = "CreateJob of ten good callers beside an abuser"
    for when, measured, bars in (
        ("", beside, (None, MOST_TIMES)),
        (" in its first second", begins, (None, None)),
    ):
        run.report.add(Kind.TIME, f"{name}{when}, p50", "ms", measured[0], alone[0], bar=bars[0])
        run.report.add(Kind.TIME, f"{name}{when}, p99", "ms", measured[1], alone[1], bar=bars[1])
    run.report.add(Kind.SERVER_CPU, name, "ms/s", beside[2], alone[2])
    return Counter({outcome: sum(calls.values()) for outcome, calls in attack.items()})


def _protections(folder: Path) -> Iterator[Protection]:
    ca, cert, key = _certificates(folder)
    roots = ca.read_bytes()
    tls = ("--tls-cert", str(cert), "--tls-key", str(key))
    own = {"ca": str(ca), "cert": str(cert), "key": str(key)}
    encrypted = grpc.ssl_channel_credentials(roots)
    mutual = grpc.ssl_channel_credentials(roots, key.read_bytes(), cert.read_bytes())
    client_ca = ("--tls-client-ca", str(ca))
    token = _access(folder, "token", f'token_sha256 = "{hashlib.sha256(b"t").hexdigest()}"')
    certificate = _access(folder, "certificate", 'identity = "dns:localhost"')
    web_token, issued = _issuer(folder)
    yield Protection("plain text")
    yield Protection("TLS", tls, {"ca": str(ca)}, encrypted)
    yield Protection("mTLS", (*tls, *client_ca), own, mutual)
    yield Protection("policy by static token", ("--access", str(token)), {"token": "t"})
    yield Protection("policy by JWT", ("--access", str(web_token)), {"token": issued})
    yield Protection(
        "policy by mTLS", (*tls, *client_ca, "--access", str(certificate)), own, mutual
    )


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Return the files of a CA, and of a certificate for both sides."""
    ca, ca_key, cert, key = (folder / name for name in ("ca.pem", "ca.key", "own.pem", "own.key"))
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-nodes", "-days", "2"]
    of_ca = ["-subj", "/CN=benchmark-ca", "-keyout", str(ca_key), "-out", str(ca)]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    issued = ["-subj", "/CN=localhost", "-CA", str(ca), "-CAkey", str(ca_key), *names]
    issued += ["-keyout", str(key), "-out", str(cert)]
    for arguments in (of_ca, issued):
        subprocess.run([*make, *arguments], check=True, capture_output=True)
    return ca, cert, key


def _access(folder: Path, name: str, identity: str, more: str = "") -> Path:
    file = folder / f"{name}.toml"
    file.write_text(f'{more}[[caller]]\nname = "{name}"\n{identity}\n{RULES}[end]\n')
    return file


def _issuer(folder: Path) -> tuple[Path, str]:
    """Return an access file for tokens of an issuer, and a token."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    (folder / "keys.json").write_text(json.dumps({"keys": [{**public, "kid": "k"}]}))
    issuer, audience = "https://accounts.example", "jobledger"
    claims = {"iss": issuer, "aud": audience, "sub": "ada", "exp": int(time.time()) + 86_400}
    more = (
        f'[[issuer]]\nname = "accounts"\nissuer = "{issuer}"\naudience = "{audience}"\n'
        'jwks_file = "keys.json"\n'
    )
    file = _access(folder, "jwt", 'identity = "jwt:accounts/*"', more)
    return file, jwt.encode(claims, private, "ES256", headers={"kid": "k"})


def _quotas(folder: Path) -> Path:
    """Return an access file of good callers and of one with quotas."""
    file = folder / "quotas.toml"
    text = ""
    for name in ("abuser", *(f"good-{number}" for number in range(GOOD_CALLERS))):
        digest = hashlib.sha256(name.encode()).hexdigest()
        text += f'[[caller]]\nname = "{name}"\ntoken_sha256 = "{digest}"\n{RULES}'
        if name == "abuser":
            text += f"[caller.quotas]{ABUSER_QUOTAS}"
    file.write_text(f"{text}[end]\n")
    return file


SCENARIO = Scenario(
    measure_security,
    {
        "in-flight": (32, "calls at once"),
        "jobs": (200, "running jobs that are read, in turn"),
    },
)
