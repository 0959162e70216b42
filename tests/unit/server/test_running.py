"""The end of the process: no task holds it up."""

import asyncio
import threading

from jobledger_server.cli.running import run


async def _stubborn() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.Event().wait()  # as aiosqlite does where its thread has ended


def test_a_task_that_ignores_its_cancellation_does_not_block_the_exit() -> None:
    tasks = []

    async def work() -> None:
        tasks.append(asyncio.create_task(_stubborn()))
        await asyncio.sleep(0)

    # Beside the test, which could not end a loop that waits forever.
    running = threading.Thread(target=run, args=(work,), daemon=True)
    running.start()
    running.join(20)
    assert not running.is_alive()
    assert tasks[0].cancelled()
