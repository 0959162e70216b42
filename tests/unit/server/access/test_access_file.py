"""Access files: what each part means, and what is refused in words."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobledger_server.admission.caller import Identity, Permissions
from jobledger_server.rpc.access.access_file import BadAccessFile, read_access_file
from jobledger_server.rpc.access.permissions import AccessDenied, check_method, check_user
from jobledger_server.rpc.access.policy import Policy
from jobledger_server.rpc.methods import JOB_SERVICE, METHODS, WORKER_SERVICE, Method
from tests.support.access_file import write_access_file
from tests.support.callers import CALLERS, rules_of_callers, token_digest

DIGEST = "0" * 64
TOKEN = f"[[caller]]\nname = 'a'\ntoken_sha256 = '{DIGEST}'\n"
JWT = "[[caller]]\nname = 'a'\nidentity = 'jwt:accounts/*'\n"
OPERATOR = "roles = ['operator']\n"
ISSUER = "[[issuer]]\nname = 'accounts'\nissuer = 'https://a.example'\n"


def policy(tmp_path: Path, content: str) -> Policy:
    file = tmp_path / "access.toml"
    write_access_file(file, content)
    return read_access_file(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "missing required field `caller`"),
        ("not toml", "cannot read"),
        ("audit = true", "unknown field `audit`"),
        ("[[caller]]", "missing required field `name`"),
        ("[caller]\nname = 'a'", r"Expected `array`.*\$\.caller`"),
        ("caller = ['a']", r"Expected `object`.*\$\.caller\[0\]`"),
        (f"[[caller]]\nname = 'a'\n{OPERATOR}", "needs `identity` or `token_sha256`"),
        (f"[[caller]]\nname = 'a'\ntoken_sha256 = 'abc'\n{OPERATOR}", r"\{64\}.*\.token_sha256`"),
        (f"{TOKEN}identity = 'cn:a'\n{OPERATOR}", "`token_sha256`, one of them"),
        (f"{TOKEN}services = ['JobService']\n{OPERATOR}", "unknown field `services`"),
        (TOKEN, "needs `roles` or `methods`"),
        (f"{TOKEN}roles = ['admin']", r"'admin'.*\.roles\[0\]`"),
        (f"{TOKEN}roles = 'owner'", r"Expected `array`.*\.roles`"),
        (f"{TOKEN}methods = ['GetJob']", "'GetJob' is no method"),
        (f"{TOKEN}methods = ['JobService/Get']", "'JobService/Get' is no method"),
        (f"{TOKEN}roles = ['owner']", "needs `users`"),
        (f"{TOKEN}roles = ['owner']\nusers = 'ada'", r"Expected `array`.*\.users`"),
        # An empty user is how ListJobs asks for all users' jobs.
        (f"{TOKEN}roles = ['owner']\nusers = ['']", r"length >= 1.*\.users\[0\]`"),
        (f"{TOKEN}roles = ['owner']\nusers = ['ada', '']", r"length >= 1.*\.users\[1\]`"),
        (f"{TOKEN}methods = ['JobService/GetJob']", "needs `users`"),
        (f"{TOKEN}roles = ['owner', 'operator']", "needs `users`"),
        (f"{TOKEN}roles = ['owner']\nusers_claim = 'sub'", "`users_claim` is for"),
        (f"{TOKEN}roles = ['worker']", "needs `job_types`"),
        (f"{TOKEN}methods = ['WorkerService/Work']", "needs `job_types`"),
        (f"{TOKEN}roles = ['worker']\njob_types = ['A b']", r"\.job_types\[0\]`"),
        (f"{TOKEN}roles = ['worker']\njob_types = ['*']\nfencing = 'yes'", r"'yes'.*\.fencing`"),
        (f"{TOKEN}{OPERATOR}fencing = true", r"`str`.*\.fencing`"),
        (f"{TOKEN}{OPERATOR}fairness = 'mine'", r"'mine'.*\.fairness`"),
        (f"{TOKEN}{OPERATOR}max_priority = 10", r"<= 9.*\.max_priority`"),
        (f"{TOKEN}{OPERATOR}create_types = ['A b']", r"\.create_types\[0\]`"),
        (f"{TOKEN}{OPERATOR}concurrency_keys = ['a*b']", "in `concurrency_keys`.* at the end"),
        (f"{TOKEN}{OPERATOR}concurrency_keys = ['a*']", "in `concurrency_keys`.* after '/' or ':'"),
        # The user `a` would have keys of the user `a:b`.
        (f"{TOKEN}{OPERATOR}concurrency_keys = ['{{user}}:*']", r"does not stand with \{user\}"),
        (f"{TOKEN}{OPERATOR}quotas = 7", r"Expected `object`.*\.quotas`"),
        (f"{TOKEN}{OPERATOR}[caller.quotas]\nlists = 7", "unknown field `lists`"),
        (f"{TOKEN}{OPERATOR}[caller.quotas]\nwatches = 0", r">= 1.*\.watches`"),
        (f"{TOKEN}{OPERATOR}[caller.quotas]\nwatches = 1.5", r"`float`.*\.watches`"),
        (f"{TOKEN}{OPERATOR}[caller.quotas]\nwatches = true", r"`bool`.*\.watches`"),
        (f"{TOKEN}{OPERATOR}[caller.quotas]\ncalls_per_second = inf", r"< .*\.calls_per_second`"),
        (f"{TOKEN}{OPERATOR}[caller.quotas]\ncalls_per_second = nan", r"> 0.*\.calls_per_second`"),
        (f"{TOKEN}{OPERATOR}{TOKEN}{OPERATOR}", "two .* the same `name`: 'a' and 'a'"),
        (
            f"{TOKEN}{OPERATOR}{TOKEN}{OPERATOR}".replace("'a'", "'b'", 1),
            "`token_sha256`: 'b' and 'a'$",
        ),
        (
            f"[[caller]]\nname='a'\ntoken_sha256='{hashlib.sha256().hexdigest()}'\n{OPERATOR}",
            "empty token",
        ),
        (JWT.replace("jwt:accounts/*", "accounts") + OPERATOR, "`identity` begins with"),
        (JWT.replace("accounts/*", "*/x") + OPERATOR, "only its end may be"),
        (JWT.replace("accounts/*", "acc*") + OPERATOR, "stands after '/' or ':'"),
        (JWT.replace("accounts/*", "*") + OPERATOR, "`identity` begins with"),
        (JWT.replace("jwt:accounts/*", "dns:Web.example") + OPERATOR, "in lower case"),
        (
            f"{JWT}{OPERATOR}{JWT}{OPERATOR}".replace("'a'", "'b'", 1),
            "the same `identity`: 'b' and 'a'",
        ),
        (f"{TOKEN}{OPERATOR}{ISSUER}", "missing required field `audience`"),
        (f"{TOKEN}{OPERATOR}{ISSUER}audience = 'j'", "needs `jwks_file` or `jwks_url`"),
        (
            f"{TOKEN}{OPERATOR}{ISSUER}audience = 'j'\njwks_url = 'http://a/j'",
            "begins with https://",
        ),
        *(
            (f"{TOKEN}{OPERATOR}{ISSUER}audience = 'j'\njwks_url = '{url}'", "https:// and a host")
            for url in ("https://", "https:///j", "https://[a/j", "https://a:99999/j")
        ),
        (
            f'{TOKEN}{OPERATOR}{ISSUER}audience = "j"\njwks_file = "a\\u0000"',
            r"regex.*\.jwks_file`",
        ),
        *(
            # As people see these names, they are those of others.
            (f"{TOKEN}{OPERATOR}".replace("'a'", f'"a{hidden}"'), r"be printed.*\.caller\[0\]`")
            for hidden in ("\\u202e", "\\u200b", "\\u2028", "\\u00a0")
        ),
        (
            f"{TOKEN}{OPERATOR}{ISSUER}audience = 'j'\njwks_url = 'https://me:secret@a/j'",
            "no user and password",
        ),
        (
            f"{TOKEN}{OPERATOR}{ISSUER}audience = 'j'\njwks_file = 'j'\njwks_url = 'https://a/j'",
            "needs `jwks_file` or `jwks_url`",
        ),
        (f"{TOKEN}{OPERATOR}{ISSUER}audience = 'j'\nalgorithms = ['none']", "unknown field"),
        (f"{TOKEN}{OPERATOR}[[proxy]]\nname = 'envoy'", "unknown field `name`"),
        (f"{TOKEN}{OPERATOR}[[proxy]]", "missing required field `identity`"),
        (f"{TOKEN}{OPERATOR}[[proxy]]\nidentity = 'envoy'", "of a certificate"),
        (f"{TOKEN}{OPERATOR}[[proxy]]\nidentity = 'dns:*'", "of a certificate"),
        (f"{TOKEN}{OPERATOR}[[proxy]]\nidentity = 'spiffe://a/*'", "of a certificate"),
        (f"{TOKEN}{OPERATOR}[[proxy]]\nidentity = 'jwt:a/b'", "of a certificate"),
        (f"{TOKEN}{OPERATOR}[[proxy]]\nidentity = 'dns:Envoy.example'", "in lower case"),
        (f"x = {'[' * 5000}", "cannot read"),
        (f"x = {'7' * 5000}", "cannot read"),
    ],
)
def test_a_bad_access_file_is_refused_with_an_explanation(
    tmp_path: Path, content: str, words: str
) -> None:
    with pytest.raises(BadAccessFile, match=words):
        policy(tmp_path, content)


def test_an_access_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    write_access_file(
        file,
        f"{TOKEN}{OPERATOR}[caller.quotas]\nwatches = 10\n{JWT}{OPERATOR}".replace("'a'", "'b'", 1),
    )
    whole = file.read_text().rstrip()
    assert read_access_file(file)
    for size in range(len(whole)):
        file.write_text(whole[:size])
        with pytest.raises(BadAccessFile, match=r"its last line is not `\[end\]`"):
            read_access_file(file)
    for more in ("\n\n", "\r\n"):
        file.write_text(whole + more)
        assert read_access_file(file)
    for more in (f"\n{ISSUER}", "\nwatches = 10", "\n# a comment"):
        file.write_text(whole + more)
        with pytest.raises(BadAccessFile, match="its last line"):
            read_access_file(file)


def test_a_missing_access_file_is_refused_with_an_explanation(tmp_path: Path) -> None:
    with pytest.raises(BadAccessFile, match="cannot read the access file"):
        read_access_file(tmp_path / "nowhere.toml")


RULES = """
[[caller]]
name = "one"
identity = "spiffe://example.org/jobs/web"
methods = ["JobService/GetJob"]
users = ["ada"]

[[caller]]
name = "all web"
identity = "spiffe://example.org/jobs/*"
roles = ["worker"]
job_types = ["render"]

[[caller]]
name = "everybody"
identity = "spiffe://example.org/*"
roles = ["operator"]

[[caller]]
name = "people"
identity = "jwt:accounts/*"
roles = ["owner"]
users = ["shared"]
users_claim = "sub"
"""


def permissions(tmp_path: Path, name: str, **claims: object) -> Permissions:
    return policy(tmp_path, RULES).permissions(Identity(name, claims=claims))


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("spiffe://example.org/jobs/web", f"{JOB_SERVICE}GetJob"),
        ("spiffe://example.org/jobs/web2", f"{WORKER_SERVICE}Work"),
        ("spiffe://example.org/jobs/", f"{WORKER_SERVICE}Work"),
        ("spiffe://example.org/other", f"{JOB_SERVICE}CancelJob"),
        ("spiffe://example.org.evil/jobs/web", None),
        ("spiffe://example.org", None),
        ("spiffe://example.org/*", f"{JOB_SERVICE}CancelJob"),
        ("dns:example.org", None),
        ("", None),
    ],
)
def test_the_rule_that_names_an_identity_most_exactly_is_its_rule(
    tmp_path: Path, name: str, may: str | None
) -> None:
    found = permissions(tmp_path, name).methods
    kinds = {f"{JOB_SERVICE}GetJob", f"{JOB_SERVICE}CancelJob", f"{WORKER_SERVICE}Work"}
    if may is None:
        assert found == frozenset()
    elif may.endswith("CancelJob"):
        assert found >= {may}
        assert f"{JOB_SERVICE}CreateJob" not in found
    else:
        assert found & kinds == {may}


@pytest.mark.parametrize(
    ("claim", "users"),
    [
        ("ada", {"ada"}),
        (["ada", "bob"], {"ada", "bob"}),
        (["ada", 7, "", None], {"ada"}),
        ("*", {"*"}),
        (["*"], {"*"}),
        (7, set()),
        (None, set()),
        ({"ada": 1}, set()),
        (["u"] * 1001, set()),
    ],
)
def test_a_claim_names_users_literally(tmp_path: Path, claim: object, users: set[str]) -> None:
    found = permissions(tmp_path, "jwt:accounts/x", sub=claim)
    assert found.users == users | {"shared"}
    assert found.any_user == frozenset()


def test_an_operator_may_read_everybodys_jobs_and_create_none(tmp_path: Path) -> None:
    found = policy(tmp_path, f"{TOKEN}roles = ['owner', 'operator']\nusers = ['ada']").token(
        bytes(32)
    )
    assert f"{JOB_SERVICE}ListJobs" in found.any_user
    assert f"{JOB_SERVICE}CreateJob" in found.methods - found.any_user


@pytest.mark.parametrize(
    ("rules", "summary"),
    [
        (
            "roles = ['owner']\nusers = ['ada']",
            "types *, fairness owner, max_priority 5, concurrency_keys *",
        ),
        (
            """
            roles = ['owner']
            users = ['ada']
            fairness = 'any'
            max_priority = 0
            concurrency_keys = ['gpu:*', 'a']
            create_types = ['render']
            """,
            "types render, fairness any, max_priority 0, concurrency_keys a gpu:*",
        ),
        (OPERATOR, "types *, fairness any, max_priority 9, concurrency_keys *"),
        (
            f"{OPERATOR}fairness = 'owner'",
            "types *, fairness owner, max_priority 9, concurrency_keys *",
        ),
        ("roles = ['worker']\njob_types = ['*']", None),
    ],
)
def test_the_summary_says_what_created_jobs_may_have(
    tmp_path: Path, rules: str, summary: str | None
) -> None:
    lines = [*policy(tmp_path, TOKEN + rules).summary()]
    created = [line for line in lines if line.startswith("  jobs that it creates")]
    assert created == ([] if summary is None else [f"  jobs that it creates: {summary}"])


def may_call(permissions: Permissions, method: Method, user: str) -> bool:
    request = method.request()
    if "user_id" in request.DESCRIPTOR.fields_by_name:
        request.user_id = user
    call = SimpleNamespace(metadata=[("x-jobledger-user", user)])
    try:
        check_method(permissions, method)
        check_user(permissions, method, request, call)
    except AccessDenied:
        return False
    return True


@pytest.mark.parametrize("name", CALLERS)
def test_each_caller_may_call_its_methods_and_no_others(tmp_path: Path, name: str) -> None:
    found = policy(tmp_path, rules_of_callers()).token(token_digest(name))
    for user, allowed in zip(("ada", "bob"), CALLERS[name][1:], strict=True):
        called = {path for path, method in METHODS.items() if may_call(found, method, user)}
        assert {path.rpartition("/")[2] for path in called} == allowed, user
