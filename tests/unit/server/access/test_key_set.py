"""A JSON Web Key Set: which keys are used. A key is judged as it is, not as it is written."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from jobledger_server.rpc.access.key_set import BadKeySet, KeySet
from tests.support.token_issuer import SigningKey


def kids(*entries: Any) -> list[str | None]:
    return [key.kid for key in KeySet.parse(json.dumps({"keys": entries}).encode()).keys]


def rsa_key(bits: int) -> dict[str, Any]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": str(bits)}


def padded(key: dict[str, Any], size: int) -> dict[str, Any]:
    """Write the modulus of a key with leading zeros, in this number of bytes."""
    modulus = base64.urlsafe_b64decode(key["n"] + "==").rjust(size, b"\0")
    return {**key, "n": base64.urlsafe_b64encode(modulus).decode().rstrip("=")}


def test_a_key_of_each_algorithm_is_used() -> None:
    names = ("RS256", "ES256", "EdDSA")
    assert kids(*(SigningKey(name, name).public for name in names)) == list(names)


def test_a_short_rsa_key_is_refused_however_long_its_text_is() -> None:
    good, short = rsa_key(2048), rsa_key(1024)
    for key in (
        short,
        padded(short, 256),
        padded(short, 512),
        {**short, "n": short["n"] + "!" * 512},
    ):
        assert kids(good, key) == ["2048"]
        with pytest.raises(BadKeySet, match="no public key"):
            kids(key)
    assert kids(padded(good, 300)) == ["2048"]


def test_of_a_private_key_only_its_public_part_is_used() -> None:
    key = SigningKey("EdDSA", "whole")
    whole = OKPAlgorithm.to_jwk(key.private, as_dict=True)
    (found,) = KeySet.parse(json.dumps({"keys": [whole]}).encode()).keys
    assert found.public == key.private.public_key()


def test_a_key_that_can_verify_nothing_is_refused() -> None:
    good, curve = SigningKey("ES256", "good").public, SigningKey("EdDSA", "x").public
    other = ec.generate_private_key(ec.SECP384R1())
    unusable = [
        {**good, "kid": "not on the curve", "y": good["x"]},
        {**good, "kid": "no text", "x": 7},
        {**curve, "kid": "short", "x": curve["x"][:8]},
        {**rsa_key(2048), "kid": "even exponent", "e": "Ag"},
        {**rsa_key(2048), "kid": "no number", "n": ""},
        {**good, "kid": "for another algorithm", "alg": "RS256"},
        {**good, "kid": "for encryption", "use": "enc"},
        {**ECAlgorithm.to_jwk(other.public_key(), as_dict=True), "kid": "another curve"},
        {"kty": "oct", "kid": "a secret", "k": "c2VjcmV0"},
    ]
    assert kids(good, *unusable) == ["good"]
