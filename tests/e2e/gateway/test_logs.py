"""The gateway's log: JSON lines, by which programs find events and their fields."""

import ast
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jobledger_gateway
from jobledger_gateway.logs import JsonFormatter
from tests.support import forked
from tests.support.http_client import Http
from tests.support.server_process import ServerProcess


async def test_each_line_of_the_gateway_is_json(server: ServerProcess) -> None:
    arguments = ["--target", server.target, "--listen", "127.0.0.1:0"]
    process = forked.Piped("jobledger-gateway", arguments, env=os.environ)
    lines = [json.loads(process.stderr.readline())]
    while lines[-1]["event"] != "serving":
        lines.append(json.loads(process.stderr.readline()))
    serving = lines[-1]
    assert serving.pop("time").endswith("+00:00")
    url = serving.pop("url")
    assert serving == {
        "level": "info",
        "logger": "jobledger.gateway",
        "event": "serving",
        "target": server.target,
    }
    await Http(int(url.rpartition(":")[2])).get("/v1/jobs?user_id=secret")
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate()
    lines += [json.loads(line) for line in rest.splitlines()]
    assert process.returncode == 0
    (request,) = [line for line in lines if line["logger"] == "uvicorn.access"]
    assert request.pop("client").startswith("127.0.0.1:")
    del request["time"]
    assert request == {
        "level": "info",
        "logger": "uvicorn.access",
        "event": "request",
        "method": "GET",
        "path": "/v1/jobs",
        "http_version": "1.1",
        "status": 200,
    }
    assert {line["event"] for line in lines} == {"serving", "service_answers", "request"}


def formatted(message: str, *values: object, logger: str = "jobledger.gateway") -> Any:
    record = logging.getLogger(logger).makeRecord(
        logger, logging.WARNING, "", 0, message, values, sys.exc_info()
    )
    return json.loads(JsonFormatter().format(record))


def test_a_long_field_and_a_long_traceback_are_cut() -> None:
    try:
        os.environ["x" * 10_000]
    except KeyError:
        line = formatted("webhook_fails webhook=%s failure=%r", "w", "y" * 10_000)
    assert line["webhook"] == "w"
    assert line["failure"] == "y" * 1000
    assert line["exception"].endswith("xxx'")
    assert len(line["exception"]) == 3000


def test_a_message_of_a_library_is_a_text() -> None:
    """The client's core has sentences too."""
    for logger in ("uvicorn.error", "jobledger"):
        line = formatted("%s of %s failed", 1, 2, logger=logger)
        assert (line["event"], line["text"]) == ("library_message", "1 of 2 failed")


def messages() -> Iterator[str]:
    """Yield the first argument of each call of a logger in the gateway."""
    for file in Path(jobledger_gateway.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log")),
                    args=[ast.Constant(value=str(message)), *values],
                ):
                    assert len(values) == message.count("%")
                    yield message


def test_each_message_of_the_gateway_is_an_event_with_fields() -> None:
    found = list(messages())
    assert "serving url=%s target=%s" in found
    for message in found:
        event, *fields = message.split(" ")
        assert event.replace("_", "").islower(), message
        assert all(field.endswith(("=%s", "=%r")) for field in fields), message
