"""What workers write: pieces of output, each unlike all others, numbered for its attempt."""

import itertools
import random
from collections import Counter, deque
from typing import Any

from jobledger.v1 import worker_service_pb2 as pb
from tests.checker.clients.asking import Replicas
from tests.checker.history import Append, History, Outcome

STREAMS = {"": "", "log": "text/plain", "video.ts": "video/mp2t"}
"""The streams that workers write to: their content types by name, empty for the default."""

LEAST_BYTES = 48
"""Of a piece: so many bytes are unlike those of any other one."""

REPEATED = 0.1
"""How many of the acknowledged appends are repeated."""


def content(mark: str, size: int) -> bytes:
    """Return so many bytes of which no part of LEAST_BYTES is that of another mark."""
    count = size // len(f"{mark}.0;") + 1
    return "".join(f"{mark}.{number};" for number in range(count)).encode()[:size]


class OutputWriter:
    """Makes the appends of one attempt of a job.

    Args:
        name: What no other attempt has.
        job: The job.
        rng: Decides which streams it writes to, and how much.
        sizes: Of its pieces, in bytes.
        numbered: Whether its appends have numbers.
    """

    def __init__(
        self,
        name: str,
        job: Any,
        rng: random.Random,
        sizes: tuple[int, ...],
        *,
        numbered: bool = True,
    ) -> None:
        self._name, self._job, self._rng, self._sizes = name, job, rng, sizes
        self._streams = rng.sample(list(STREAMS), rng.choice((1, 1, 2, 3)))
        self._numbers: Counter[str] = Counter()
        self._numbered = numbered
        self._count = itertools.count()

    def piece(self, *, fenced: bool = False) -> Append:
        """Return the next append."""
        stream = self._rng.choice(self._streams)
        self._numbers[stream] += self._numbered
        return Append(
            job_id=self._job.id,
            stream=stream,
            attempt=self._job.attempt,
            number=self._numbers[stream],
            data=content(f"{self._name}/{next(self._count)}", self._rng.choice(self._sizes)),
            fenced=fenced,
        )

    def give_up(self, append: Append) -> None:
        """Take back the number of the last append to its stream, which was refused."""
        self._numbers[append.stream] = max(0, append.number - 1)


def update_of(append: Append) -> pb.OutputUpdate:
    """Return the update that appends a piece."""
    return pb.OutputUpdate(
        stream=append.stream,
        data=append.data,
        content_type=STREAMS[append.stream],
        number=append.number,
    )


class UnaryAppends:
    """Appends by calls, and repeats some of them."""

    def __init__(self, replicas: Replicas, rng: random.Random, history: History) -> None:
        self._replicas, self._rng, self._history = replicas, rng, history
        self._done: deque[Append] = deque(maxlen=20)

    async def append(self, append: Append) -> bool:
        """Append a piece; return whether that was acknowledged."""
        # A repetition without a number is another append.
        answer = await self._replicas.ask(
            "AppendOutput", _request(append), patience=30.0 if append.number else 0.0
        )
        self._history.appends.append(append)
        append.sent, append.answered = answer.sent, answer.answered
        append.tries, append.outcome = answer.tries, answer.outcome
        if answer.response is None:
            return False
        append.next_offset = answer.response.next_offset
        if append.number:
            self._done.append(append)
        if self._done and self._rng.random() < REPEATED:
            await self._repeat(self._rng.choice(self._done))
        return True

    async def _repeat(self, append: Append) -> None:
        answer = await self._replicas.ask("AppendOutput", _request(append))
        if answer.outcome is Outcome.ACKNOWLEDGED:
            append.repeated.append(answer.response.next_offset)


def _request(append: Append) -> pb.AppendOutputRequest:
    return pb.AppendOutputRequest(
        job_id=append.job_id,
        attempt=append.attempt,
        stream=append.stream,
        content_type=STREAMS[append.stream],
        number=append.number,
        data=append.data,
    )
