"""JSON Web Tokens as identities. Imported where the access file has an `[[issuer]]` only."""

from collections.abc import Collection, Mapping
from typing import Any

import jwt

from jobledger_server.admission.caller import Identity
from jobledger_server.domain.limits import MAX_IDENTITY_CHARACTERS
from jobledger_server.rpc.access.issuers import Issuer

CLOCK_SKEW_SECONDS = 30
"""How far an issuer's clock may differ from the server's."""

_OPTIONS: Any = {"require": ["exp", "iss", "aud", "sub"]}


async def verified(
    token: str, issuers: Mapping[str, Issuer], kept: Collection[str]
) -> Identity | None:
    """Return the identity of a token, or None if the token is not valid.

    Its `iss` names the issuer and its `kid` the key. The key alone determines the algorithm.

    Args:
        token: What the caller sent.
        issuers: By the value of `iss`.
        kept: The claims that the identity keeps.
    """
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
        issuer = issuers.get(claimed) if isinstance(claimed, str) else None
        key = None if issuer is None else await issuer.key(kid)
        if issuer is None or key is None:
            return None
        claims: dict[str, Any] = jwt.decode(
            token,
            key.public,
            algorithms=[key.algorithm],
            audience=list(issuer.settings.audiences),
            issuer=issuer.settings.issuer,
            leeway=CLOCK_SKEW_SECONDS,
            options=_OPTIONS,
        )
        # PyJWT takes a text for `exp` too: here that fails.
        until = claims["exp"] + CLOCK_SKEW_SECONDS
    except Exception:  # noqa: BLE001
        # Any client may send anything here, and must not get the reason.
        return None
    name = f"{issuer.identities}{claims['sub']}"
    if not claims["sub"] or len(name) > MAX_IDENTITY_CHARACTERS or not name.isprintable():
        return None
    kept_claims = {claim: claims[claim] for claim in kept if claim in claims}
    return Identity(name, until, kept_claims, key=key)
