"""The guide's receiver takes what a gateway delivers, and a gateway needs an operator's token."""

from collections.abc import Callable
from typing import Any

from jobledger import AsyncClient
from tests.e2e.webhooks.conftest import delivering
from tests.e2e.webhooks.test_deliveries import ended
from tests.support.pages import ROOT, blocks
from tests.support.webhook_receiver import Received, Receiver

GUIDE = ROOT / "docs/guides/webhooks.md"


async def test_the_receiver_of_the_guide_accepts_a_delivery_and_no_other(
    start: Callable[..., Any], receiver: Receiver, capsys: Any
) -> None:
    app = await start()
    (program,) = blocks(GUIDE, "python")
    page: dict[str, Any] = {}
    exec(compile(program.text, str(GUIDE), "exec"), page)
    assert capsys.readouterr().out == "400\n"

    async def answer(request: Received) -> int:
        return page["receive"](request.headers, request.body)

    receiver.answer = answer
    async with AsyncClient(app.address, user_id="ada") as client:
        page["SECRET"] = (await client.create_webhook(receiver.url)).secret
        async with delivering(app.address):
            job_id = await ended(client)
            await receiver.until(lambda: bool(receiver.succeeded))
    assert f"dev.jobledger.job.completed {job_id} JOB_STATUS_COMPLETED" in capsys.readouterr().out
