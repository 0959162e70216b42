"""Where appends to output and the watches of it meet.

A watch is a cursor. It is sent what the buffer of its stream has, which all watches of the stream
share, or else what the table has. Nothing is read of a stream that nobody watches here.

A job's end closes its streams without a write: a watch that has seen the end reads the table once
more, and nothing can follow, for an append needs an attempt that has not ended. Then it sees that
the job is there yet, for its output is deleted with it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from jobledger_server.admission.caller import Caller
from jobledger_server.admission.endings import Ending
from jobledger_server.admission.fair_queue import Turns
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.job import Job, JobId
from jobledger_server.domain.output import OutputPiece
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.store import Change, Store, StoreError
from jobledger_server.tuning import Tuning
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.output_buffer import OutputBuffer
from jobledger_server.watch.wake_up import WakeUp

log = logging.getLogger("jobledger.outputs")

Stream = tuple[JobId, str]
"""A job, and the name of a stream of its output."""


class OutputWatch:
    """A watch of one stream. The hub tells it what becomes of the job."""

    __slots__ = ("_ending", "_wake_up", "buffer", "deleted", "stream", "terminal", "wake_scheduled")

    def __init__(self, stream: Stream, buffer: OutputBuffer) -> None:
        self.stream = stream
        self.buffer = buffer
        self.wake_scheduled = False
        self.terminal = False
        """Whether the job has ended."""
        self.deleted = False
        """Whether the job was deleted."""
        self._ending: Ending | None = None
        self._wake_up = WakeUp()

    def read(self, job: Job) -> None:
        """Take note of the job as it was read after the watch was opened."""
        self.terminal |= job.status in TERMINAL

    def offer(self, change: Change) -> bool:
        """Take a change of the job; return whether the watch is to be woken."""
        self.deleted |= change.deleted
        self.terminal |= change.job.status in TERMINAL
        return self.terminal

    def wake(self) -> None:
        """Wake the watch: there may be more."""
        self._wake_up.set()

    def close(self) -> None:
        """Release the wake-up's timer: the client is gone."""
        self._wake_up.close()

    def end(self, ending: Ending) -> None:
        """End the watch, with the reason that `wait` raises."""
        self._ending = ending
        self.wake()

    async def wait(self, max_wait: float) -> bool:
        """Wait until there may be more; return whether that was in time.

        Raises:
            Ending: The stream has to end.
        """
        if self._ending is not None:
            raise self._ending
        return await self._wake_up.wait(max_wait)


class OutputHub:
    """Hands output to the watches of its streams.

    Args:
        store: What is stored.
        hub: Tells what becomes of the jobs, and counts the watches.
        tuning: How many watches are woken at once, and how much is buffered and read.
    """

    def __init__(self, store: Store, hub: WatchHub, tuning: Tuning = Tuning()) -> None:
        self._store = store
        self._hub = hub
        self._tuning = tuning
        self._watches: dict[Stream, dict[OutputWatch, None]] = {}
        self._buffers: dict[Stream, OutputBuffer] = {}
        self._streams: dict[JobId, set[str]] = {}  # those that are watched
        self._bytes = 0  # in all buffers
        self._heard: set[JobId] = set()
        self._listen = asyncio.Event()
        self._to_wake: deque[OutputWatch] = deque()
        self._waking = False
        self.turns = Turns(tuning.output_readers)
        """The turns of those who read the table."""
        self.delivered = {"commit": 0, "table": 0}
        """Pieces handed to watches: from this process's own commits, and read from the table."""

    @property
    def watched(self) -> int:
        """How many streams are watched."""
        return len(self._buffers)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of output in all buffers."""
        return self._bytes

    def written(self, pieces: Sequence[OutputPiece]) -> None:
        """Take the output of a commit of this process."""
        self.delivered["commit"] += self._hand_on(pieces)

    def heard(self, ids: Collection[JobId] | None) -> None:
        """Take note that another server has appended to these jobs, or perhaps to any (None)."""
        watched = self._streams.keys()
        self._heard.update(watched if ids is None else watched & ids)
        if self._heard:
            self._listen.set()

    async def run(self, poll_seconds: float) -> None:
        """Read what other servers append, until cancelled. What nobody tells is polled."""
        while True:
            try:
                async with asyncio.timeout(poll_seconds if self._streams else None):
                    await self._listen.wait()
            except TimeoutError:
                self.heard(None)
            self._listen.clear()
            heard, self._heard = self._heard, set()
            streams = [(each, name) for each in heard for name in self._streams.get(each, ())]
            try:
                step = self._tuning.polled_streams
                for begin in range(0, len(streams), step):
                    await self._catch_up(streams[begin : begin + step])
            except StoreError as error:
                log.warning("output_unavailable", extra={"cause": str(error), "count": 1})
            except Exception:
                # A bug, but one that must not leave every watch waiting indefinitely.
                log.exception("output_read_failed")

    async def finish(self, stream: Stream) -> None:
        """Read what is left of a stream whose job has ended.

        Raises:
            JobNotFound: The job was deleted, perhaps before all of its output was read.
        """
        buffer, job_id = self._buffers[stream], stream[0]
        if await self._catch_up([stream]) or buffer.final is not None:
            return
        end = buffer.end
        if job_id not in await self._store.read_jobs([job_id], full=False):
            raise JobNotFound(job_id)
        buffer.final = end

    async def _catch_up(self, streams: Iterable[Stream]) -> bool:
        """Read what these streams have after the ends of their buffers; return if any has."""
        after = [
            (*stream, buffer.end)
            for stream in streams
            if (buffer := self._buffers.get(stream)) is not None
            and buffer.end is not None
            and buffer.final is None
        ]
        if not after:
            return False
        pieces = await self._store.outputs.read(after, limit=self._tuning.output_page)
        self.delivered["table"] += self._hand_on(pieces)
        return bool(pieces)

    def _hand_on(self, pieces: Sequence[OutputPiece]) -> int:
        """Buffer what is new and watched; return how many pieces that were."""
        count = 0
        for piece in pieces:
            stream = piece.job_id, piece.stream
            buffer = self._buffers.get(stream)
            if buffer is None:
                continue
            before = buffer.bytes
            if buffer.add(piece):
                count += 1
                for watch in self._watches[stream]:
                    if not watch.wake_scheduled:
                        watch.wake_scheduled = True
                        self._to_wake.append(watch)
            self._bytes += buffer.bytes - before
        if self._bytes > self._tuning.output_buffer_bytes:
            self._shrink()
        if not self._waking:
            self._wake_some()
        return count

    def _shrink(self) -> None:
        """Drop a quarter of what is buffered, of the streams that were opened first."""
        for buffer in self._buffers.values():
            while self._bytes > self._tuning.output_buffer_bytes * 3 // 4:
                dropped = buffer.drop()
                if not dropped:
                    break
                self._bytes -= dropped

    def _wake_some(self) -> None:
        """Wake a few watches, and leave the rest for the next turn of the event loop.

        Fewer than the hub wakes, or the answers to who appends would wait: output has no end, and
        what is late is sent together later.
        """
        for _ in range(min(self._tuning.woken_readers, len(self._to_wake))):
            watch = self._to_wake.popleft()
            watch.wake_scheduled = False
            watch.wake()
        self._waking = bool(self._to_wake)
        if self._waking:
            asyncio.get_running_loop().call_soon(self._wake_some)

    @contextmanager
    def subscribe(self, job_id: JobId, name: str, caller: Caller) -> Iterator[OutputWatch]:
        """Watch a stream. Raises LimitExceeded and ShuttingDown."""
        stream = job_id, name
        buffer = self._buffers.get(stream) or OutputBuffer()
        watch = OutputWatch(stream, buffer)
        with self._hub.observed(job_id, watch, caller):
            self._buffers[stream] = buffer
            self._watches.setdefault(stream, {})[watch] = None
            self._streams.setdefault(job_id, set()).add(name)
            if len(self._streams) == 1:
                self._listen.set()  # from now on there is something to poll
            try:
                yield watch
            finally:
                del self._watches[stream][watch]
                if not self._watches[stream]:
                    self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        job_id, name = stream
        self._bytes -= self._buffers.pop(stream).bytes
        del self._watches[stream]
        self._streams[job_id].discard(name)
        if not self._streams[job_id]:
            del self._streams[job_id]
