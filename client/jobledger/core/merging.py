"""Several watches as one: a stream can name 1000 jobs. The two forms stand next to each other."""

import asyncio
import contextvars
import queue
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from functools import partial

from jobledger.core.reconnecting import EventT
from jobledger.core.streams import AsyncWatch, Stop, Watch


def merge_async(watches: Sequence[AsyncWatch[EventT]]) -> AsyncWatch[EventT]:
    """Yield the events of watches that do not end, as they come; raise what one of them raises."""
    return watches[0] if len(watches) == 1 else AsyncWatch(_read_all_async(watches), Stop())


async def _read_all_async(watches: Sequence[AsyncWatch[EventT]]) -> AsyncGenerator[EventT, None]:
    events: asyncio.Queue[EventT | Exception] = asyncio.Queue()

    async def read(watch: AsyncWatch[EventT]) -> None:
        try:
            async for event in watch:
                events.put_nowait(event)
        except Exception as error:  # noqa: BLE001
            events.put_nowait(error)

    readers = [asyncio.create_task(read(watch)) for watch in watches]
    try:
        while True:
            event = await events.get()
            if isinstance(event, Exception):
                raise event
            yield event
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)


def merge(watches: Sequence[Watch[EventT]]) -> Watch[EventT]:
    """Yield the events of watches that do not end, as they come; raise what one of them raises."""
    return watches[0] if len(watches) == 1 else Watch(_read_all(watches), Stop())


def _read_all(watches: Sequence[Watch[EventT]]) -> Generator[EventT, None, None]:
    events: queue.SimpleQueue[EventT | BaseException] = queue.SimpleQueue()

    def read(watch: Watch[EventT]) -> None:
        try:
            for event in watch:
                events.put(event)
        except BaseException as error:  # noqa: BLE001  # a callback may exit the program
            events.put(error)

    for watch in watches:
        # With the context of the caller, for its token and its trace.
        run = partial(contextvars.copy_context().run, read, watch)
        threading.Thread(target=run, name="jobledger-watch", daemon=True).start()
    try:
        while True:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
    finally:
        for watch in watches:
            watch.close()
