"""The end of the process: no task holds it up."""

import asyncio

import pytest

from jobledger_server.cli.running import run


async def _stubborn() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.Event().wait()  # as aiosqlite does where its thread has ended


@pytest.mark.timeout(30)
def test_a_task_that_ignores_its_cancellation_does_not_block_the_exit() -> None:
    tasks = []

    async def work() -> None:
        tasks.append(asyncio.create_task(_stubborn()))
        await asyncio.sleep(0)

    run(work)
    assert tasks[0].cancelled()
