"""What the gateway keeps of bodies that it refuses, while their senders wait for the refusal."""

import asyncio
import tracemalloc
from collections.abc import Iterator

import pytest
from starlette.types import Message

from jobledger_gateway import budget
from jobledger_gateway.app import make_app
from jobledger_gateway.settings import MAX_BODY, Settings
from tests.support.server_process import MIB, ServerProcess

BODIES = 8


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def _ignored(_: Message) -> None:
    pass


async def test_a_body_with_too_many_values_is_not_kept_while_its_refusal_waits(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, traced: None
) -> None:
    monkeypatch.setattr(budget, "REFUSAL_SECONDS", (3600.0, 3600.0))
    app = make_app(Settings(target=server.target))
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"[" + b"0," * (MAX_BODY // 2 - 2) + b"0]"}

    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "http_version": "1.1",
        "path": "/v1/jobs",
        "raw_path": b"/v1/jobs",
        "query_string": b"",
        "headers": [
            (b"host", b"gateway"),
            (b"content-type", b"application/json"),
            (b"content-length", str(MAX_BODY).encode()),
        ],
        "client": ("192.0.2.1", 1),
    }
    async with app.router.lifespan_context(app), asyncio.timeout(30), asyncio.TaskGroup() as group:
        before, _ = tracemalloc.get_traced_memory()
        refused = [group.create_task(app(dict(scope), receive, _ignored)) for _ in range(BODIES)]
        while received < BODIES:
            await asyncio.sleep(0.01)
        # They are parsed one after the other. All are refused when none is left.
        while tracemalloc.get_traced_memory()[0] - before > MIB:
            await asyncio.sleep(0.05)
        assert not any(task.done() for task in refused)
        for task in refused:
            task.cancel()
