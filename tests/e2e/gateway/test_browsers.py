"""What a browser may do for which page, and what an answer lets it do."""

from pathlib import Path

import pytest

from tests.support.http_client import Http
from tests.support.in_turn import in_turn
from tests.support.server_process import ServerProcess

APP, EVIL = "https://app.example", "https://evil.example"
NEW = {"userId": "ada", "jobType": "render"}


@pytest.fixture
async def guarded(server: ServerProcess, start_gateway, tmp_path: Path) -> Http:
    (tmp_path / "page").mkdir()
    (tmp_path / "page/index.html").write_text("<title>page</title>")
    (tmp_path / "page/main.js").write_text("export {};")
    (tmp_path / "secret").write_text("secret")
    return await start_gateway(
        server.target,
        origins=(APP,),
        hosts=("localhost", "127.0.0.1", "jobs.example:443"),
        page=tmp_path / "page",
    )


async def test_a_listed_origin_may_call_and_no_other(guarded: Http) -> None:
    asks = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    allowed = await guarded.send("OPTIONS", "/v1/jobs", {"Origin": APP, **asks})
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, APP)
    refused = await guarded.send("OPTIONS", "/v1/jobs", {"Origin": EVIL, **asks})
    assert "access-control-allow-origin" not in refused.headers

    read = await guarded.get("/v1/jobs?user_id=ada", Origin=APP)
    assert read.headers["access-control-allow-origin"] == APP
    assert "access-control-allow-credentials" not in read.headers
    unread = await guarded.get("/v1/jobs?user_id=ada", Origin=EVIL)
    assert "access-control-allow-origin" not in unread.headers
    problem = await guarded.get("/v1/jobs?nonsense=1", Origin=APP)
    assert problem.headers["access-control-allow-origin"] == APP


async def test_a_change_has_to_come_from_a_known_page(guarded: Http) -> None:
    own = "http://127.0.0.1:1234"
    for origin in (APP, own):
        made = await guarded.post("/v1/jobs", NEW, Origin=origin, Host="127.0.0.1:1234")
        assert made.status == 201
    for origin in (EVIL, "null", "http://127.0.0.1:1235", "http://localhost:1234", ""):
        for method, path in (("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/a?user_id=ada")):
            headers = {"Origin": origin, "Host": "127.0.0.1:1234"}
            assert (await guarded.send(method, path, headers)).problem["status"] == 403
    # Not a browser.
    assert (await guarded.post("/v1/jobs", NEW)).status == 201


@in_turn(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:1", 200),
        ("jobs.example:443", 200),
        ("jobs.example", 421),
        ("evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("", 421),
    ],
)
async def test_only_the_gateways_own_names_are_answered(
    guarded: Http, host: str, status: int
) -> None:
    assert (await guarded.get("/v1/jobs?user_id=ada", Host=host)).status == status


async def test_every_answer_has_the_security_headers(guarded: Http) -> None:
    answers = {
        path: await guarded.get(path)
        for path in ("/", "/jobs/some/id", "/static/main.js", "/static/none", "/v1/jobs", "/none")
    }
    answers["refused"] = await guarded.get("/", Host="evil.example")
    answers["preflight"] = await guarded.send(
        "OPTIONS", "/v1/jobs", {"Origin": APP, "Access-Control-Request-Method": "POST"}
    )
    for answer in answers.values():
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= {*policy}
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert answers["/jobs/some/id"].body == answers["/"].body == b"<title>page</title>"
    assert answers["/static/main.js"].headers["content-type"].startswith("text/javascript")
    assert answers["/"].headers["cache-control"] == "no-cache"


async def test_no_file_outside_of_the_page_is_served(guarded: Http) -> None:
    for path in ("/static/../secret", "/static/%2e%2e/secret", "/static/..%2fsecret", "/static/"):
        assert (await guarded.get(path)).problem["status"] == 404


async def test_a_bug_is_a_problem_without_its_cause(
    server: ServerProcess, start_gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("the cause")

    http = await start_gateway(server.target)
    monkeypatch.setattr("jobledger_gateway.upstream.Upstream.call_unread", fail)
    answer = await http.get("/v1/jobs")
    assert answer.problem["status"] == 500
    assert b"the cause" not in answer.body
    assert answer.headers["x-content-type-options"] == "nosniff"
