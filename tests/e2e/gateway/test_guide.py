"""What docs/guides/gateway.md shows is so."""

import re
import shlex
from urllib.parse import urlsplit

from jobledger_gateway.routes.calls import CALLS
from tests.support.http_client import Answer, Http
from tests.support.pages import ROOT, commands, text_of

GUIDE = ROOT / "docs/guides/gateway.md"


async def curl(http: Http, command: str) -> Answer:
    """Do what a line of curl does, at the gateway of the test."""
    words = iter(shlex.split(command)[1:])
    method, headers, body, path = "GET", {}, b"", ""
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            method, body = "POST", next(words).encode()
        elif word != "-s":
            url = urlsplit(word)
            path = f"{url.path}?{url.query}"
    return await http.send(method, path, headers, body)


async def test_its_commands_create_list_and_count(http: Http) -> None:
    # The others read the output of a job that the reader has.
    create, listed, counted = [
        await curl(http, command)
        for command in commands(GUIDE)
        if command.startswith("curl") and "JOB_ID" not in command
    ]
    assert create.status == 201
    assert create.json()["job"] in listed.json()["jobs"]
    assert "render" in {each["jobType"] for each in counted.json()["stats"]}


def test_its_table_has_every_rpc() -> None:
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", text_of(GUIDE), re.MULTILINE)
    named = {name for _, rpcs in rows for name in re.findall(r"[A-Z][a-z]+[A-Z]\w+", rpcs)}
    assert {call.rpc.partition(".")[2] for call in CALLS} <= named
