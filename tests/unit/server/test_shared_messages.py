"""Messages for several watches: made once, also where a part of them is read first."""

import asyncio

import pytest

from jobledger_server.rpc.jobs.shared_messages import SharedMessages
from jobledger_server.tuning import Tuning


class Reading:
    """Makes a message once it may; counts how often it is asked to."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> bytes:
        self.begun += 1
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return b"message"


async def test_a_message_is_read_once_for_all_that_wait_for_it_and_those_that_follow() -> None:
    messages, reading = SharedMessages(), Reading()
    waiting = [asyncio.create_task(messages.read("key", reading)) for _ in range(3)]
    other = asyncio.create_task(messages.read("other", reading))
    await asyncio.sleep(0)
    reading.go_on.set()
    assert await asyncio.gather(*waiting, other) == [b"message"] * 4
    assert await messages.read("key", reading) == b"message"
    assert messages.get("key", lambda: b"another") == b"message"
    assert reading.begun == 2


async def test_who_leaves_takes_the_message_from_nobody() -> None:
    messages, reading = SharedMessages(), Reading()
    first = asyncio.create_task(messages.read("key", reading))
    second = asyncio.create_task(messages.read("key", reading))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    reading.go_on.set()
    assert await second == b"message"
    assert reading.begun == 1


async def test_an_error_is_for_those_that_wait_and_the_next_one_reads_again() -> None:
    messages, reading = SharedMessages(), Reading()
    reading.error = LookupError()
    reading.go_on.set()
    waiting = [asyncio.create_task(messages.read("key", reading)) for _ in range(2)]
    for each in waiting:
        with pytest.raises(LookupError):
            await each
    reading.error = None
    assert await messages.read("key", reading) == b"message"
    assert reading.begun == 2


async def test_the_oldest_messages_are_forgotten() -> None:
    messages, reading = SharedMessages(Tuning(shared_message_bytes=10)), Reading()
    reading.go_on.set()
    await messages.read(1, reading)
    await messages.read(2, reading)
    assert messages.get(2, lambda: b"made") == b"message"
    assert messages.get(1, lambda: b"made") == b"made"
