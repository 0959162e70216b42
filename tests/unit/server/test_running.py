"""The end of the process: no task holds it up."""

import subprocess
import sys

STUBBORN = """
import asyncio
from jobledger_server.cli.running import run

async def stubborn():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.Event().wait()  # as aiosqlite does where its thread has ended

async def work():
    global task
    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

run(work)
"""


def test_a_task_that_ignores_its_cancellation_does_not_block_the_exit() -> None:
    subprocess.run([sys.executable, "-c", STUBBORN], check=True, timeout=30)
