"""How many calls of one connection are served at once, and what happens to the others."""

import asyncio
import json
import re
from collections import Counter

import grpc

from tests.support.pages import ROOT
from tests.support.proxy import Proxy
from tests.support.rpc_caller import Caller, calling
from tests.support.server_process import ServerProcess

CLIENTS_PAGE = ROOT / "docs" / "guides" / "clients.md"


def retries() -> tuple[str, str]:
    """Return the option of a channel that repeats calls as docs/guides/clients.md says."""
    page = CLIENTS_PAGE.read_text(encoding="utf-8")
    config = json.loads(re.findall(r"```json\n(\{\n  \"methodConfig.*?)```", page, re.DOTALL)[0])
    return ("grpc.service_config", json.dumps(config))


async def created_at_once(
    target: str, count: int, *options: tuple[str, str], user_id: str = "ada"
) -> list[str]:
    """Create many jobs at once over one connection; return how each call ended, as it ends."""
    ended: list[str] = []
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        call = Caller(channel)

        async def create(number: int) -> None:
            try:
                await call.job(user_id=user_id, request_id=str(number))
            except grpc.aio.AioRpcError as error:
                ended.append(error.code().name)
            else:
                ended.append("OK")

        await asyncio.gather(*(create(number) for number in range(count)))
    return ended


async def jobs_of(target: str, user_id: str) -> int:
    count, token = 0, ""
    async with calling(target) as call:
        while True:
            page = await call.ListJobs(user_id=user_id, page_size=1000, page_token=token)
            count += len(page.jobs)
            token = page.next_page_token
            if not token:
                return count


async def test_a_thousand_concurrent_calls_over_one_connection_are_not_refused(
    own_server: ServerProcess,
) -> None:
    """Those beyond the connection's streams wait in the client."""
    assert Counter(await created_at_once(own_server.target, 1000)) == {"OK": 1000}


async def test_calls_on_a_broken_connection_are_retried_as_the_page_says(
    own_server: ServerProcess,
) -> None:
    async with Proxy(own_server.target) as proxy:

        async def cut(user_id: str) -> None:
            while not await jobs_of(own_server.target, user_id):
                pass
            proxy.cut()

        for user_id, options, codes in (
            ("ada", (), {"OK", "UNAVAILABLE"}),
            ("bob", (retries(),), {"OK"}),
        ):
            creating = created_at_once(proxy.target, 500, *options, user_id=user_id)
            ended, _ = await asyncio.gather(creating, cut(user_id))
            assert set(ended) == codes
        assert await jobs_of(own_server.target, "bob") == 500
