"""How many calls of one connection are served at once, and what happens to the others."""

import asyncio
import json
import re
from collections import Counter
from pathlib import Path

import grpc

from tests.support.pages import ROOT
from tests.support.rpc_caller import Caller
from tests.support.server_process import ServerProcess

CLIENTS_PAGE = ROOT / "docs" / "clients.md"


def retries() -> tuple[str, str]:
    """Return the option of a channel that repeats calls as docs/clients.md says."""
    page = CLIENTS_PAGE.read_text(encoding="utf-8")
    config = json.loads(re.findall(r"```json\n(\{\n  \"methodConfig.*?)```", page, re.DOTALL)[0])
    return ("grpc.service_config", json.dumps(config))


async def created_at_once(target: str, count: int, *options: tuple[str, str]) -> Counter[str]:
    """Create so many jobs at once over one connection; return how each call ended."""
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        call = Caller(channel)

        async def create(number: int) -> str:
            try:
                await call.job(request_id=str(number))
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

        return Counter(await asyncio.gather(*(create(number) for number in range(count))))


async def jobs_of(target: str, user_id: str) -> int:
    async with grpc.aio.insecure_channel(target) as channel:
        call, count, token = Caller(channel), 0, ""
        while True:
            page = await call.ListJobs(user_id=user_id, page_size=1000, page_token=token)
            count += len(page.jobs)
            token = page.next_page_token
            if not token:
                return count


async def test_a_thousand_calls_at_once_over_one_connection_succeed(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        assert await created_at_once(server.target, 1000) == {"OK": 1000}


async def test_calls_refused_at_the_limit_of_streams_are_safe_to_repeat(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, arguments=["--max-streams", "50"]) as server:
        plain = await created_at_once(server.target, 500)
        assert set(plain) == {"OK", "UNAVAILABLE"}  # decision 0042: gRPC refuses some of them
        assert await created_at_once(server.target, 500, retries()) == {"OK": 500}
        assert await jobs_of(server.target, "ada") == 500
