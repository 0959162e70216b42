"""What an identity may do now, by its name: its proof is not at hand."""

from pathlib import Path

import pytest

from jobledger_server.rpc.access.access import Access
from jobledger_server.rpc.access.lasting_calls import LastingCalls
from jobledger_server.rpc.access.permissions import may_have_webhooks
from tests.support.access_file import write_access_file
from tests.support.token_issuer import SigningKey, write_key_set

ISSUER = '[[issuer]]\nname = "idp"\nissuer = "https://idp"\naudience = "j"\njwks_file = "keys"\n'
ADA = '[[caller]]\nname = "ada"\nidentity = "jwt:idp/ada"\nroles = ["owner"]\nusers = ["ada"]\n'
STAFF = '[[caller]]\nname = "staff"\nidentity = "jwt:idp/*"\nroles = ["owner"]\n'
CLAIMED = f'{STAFF}users_claim = "team"\n'
HOST = '[[caller]]\nname = "web"\nidentity = "dns:web"\nroles = ["operator"]\n'


@pytest.mark.parametrize(
    ("rules", "name", "user_id", "may"),
    [
        (ISSUER + ADA, "jwt:idp/ada", "ada", True),
        (ISSUER + ADA, "jwt:idp/ada", "bob", False),
        (ISSUER + ADA, "jwt:idp/ada", "", False),
        (ISSUER + ADA, "jwt:idp/bob", "ada", False),
        (ISSUER.replace("idp", "other") + ADA, "jwt:idp/ada", "ada", False),
        (ISSUER + CLAIMED, "jwt:idp/ada", "blue", True),
        (ISSUER + CLAIMED, "jwt:idp/ada", "", False),
        (ISSUER + CLAIMED + ADA, "jwt:idp/ada", "blue", False),
        (HOST, "dns:web", "ada", True),
        (HOST, "dns:web", "", True),
        (HOST, "token:web", "ada", False),
        (HOST, "", "ada", False),
    ],
)
def test_a_rule_decides_for_the_name(
    tmp_path: Path, rules: str, name: str, user_id: str, *, may: bool
) -> None:
    write_key_set(tmp_path / "keys", [SigningKey("ES256", "1")])
    write_access_file(tmp_path / "access.toml", rules)
    access = Access(tmp_path / "access.toml", LastingCalls())
    assert may_have_webhooks(access.permissions_of(name, user_id), user_id) is may
