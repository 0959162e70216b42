"""An issuer of JSON Web Tokens for tests, with keys of each kind, and its keys at an https URL."""

import json
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.authority import Authority

ISSUER = "https://accounts.example"
AUDIENCE = "jobledger"

PEOPLE = f"""
[[issuer]]
name = "accounts"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks_file = "keys.json"

[[caller]]
name = "people"
identity = "jwt:accounts/*"
roles = ["owner"]
users_claim = "sub"
"""
"""Rules of an access file: the users of this issuer's tokens act for themselves."""


class SigningKey:
    """A private key, and its public part for a JSON Web Key Set."""

    def __init__(self, algorithm: str, kid: str) -> None:
        self.algorithm = algorithm
        self.kid = kid
        match algorithm:
            case "RS256":
                self.private: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
                public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
            case "ES256":
                self.private = ec.generate_private_key(ec.SECP256R1())
                public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
            case _:
                self.private = ed25519.Ed25519PrivateKey.generate()
                public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.public = {**public, "kid": kid, "use": "sig", "alg": algorithm}
        self.public.pop("key_ops", None)

    def token(self, subject: str = "ada", **changes: Any) -> str:
        """Sign a token that is good for five minutes; a claim that is None is left out."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "exp": now + 300,
            "nbf": now - 5,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.private, self.algorithm, headers={"kid": self.kid})


def key_set(keys: Sequence[SigningKey]) -> bytes:
    """Return the JSON Web Key Set of these keys."""
    return json.dumps({"keys": [key.public for key in keys]}).encode()


def write_key_set(path: Path, keys: Sequence[SigningKey]) -> None:
    """Replace a file as a tool that renews keys does: never half written."""
    new = path.with_suffix(".new")
    new.write_bytes(key_set(keys))
    new.replace(path)


class KeyServer:
    """Serves a key set over https. `content` may be replaced; `requests` counts.

    While `endless` is set, an answer begins with blanks, one after the other.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.content = b""
        self.status = 200
        self.requests = 0
        self.endless = threading.Event()


@contextmanager
def key_server(authority: Authority, folder: Path) -> Iterator[KeyServer]:
    """Serve a key set at https://localhost:PORT/keys during the block."""
    cert, key = authority.server().write(folder, "keys")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests += 1
            self.send_response(served.status)
            if served.status == 302:
                self.send_header("location", served.url)
            if not served.endless.is_set():
                self.send_header("content-length", str(len(served.content)))
            self.end_headers()
            with suppress(OSError):
                while served.endless.is_set():
                    self.wfile.write(b" ")
                    time.sleep(0.02)
                self.wfile.write(served.content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    served = KeyServer(f"https://localhost:{server.server_port}/keys")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield served
    finally:
        served.endless.clear()
        server.shutdown()
        thread.join()
        server.server_close()
