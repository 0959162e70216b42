"""Claims: gives the jobs that are claimable to the workers that claim, oldest first.

Claims have transactions of their own, so that a creation or a report never waits for more
than one short commit. Claims that arrive together are served together. One read without a
lock finds what there is for all of them; where there is nothing, which is the answer to most
polls, no transaction begins. What there is, is shared out by types and sizes, and one
transaction loads and starts just these jobs. See docs/decisions/0037.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from jobledger_server.domain.commands import Claim
from jobledger_server.domain.job import Job
from jobledger_server.domain.leases import claim
from jobledger_server.domain.limits import MAX_ANSWER_BYTES
from jobledger_server.ledger.batcher import Batcher
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.store import Change, Claimable, Store, StoreError

MAX_BATCH = 100
"""Claims that are served together, each counted as its types or as the jobs that it wants."""

USUAL_WEIGHT = 10
"""What a claim weighs at most that counts as one of those that may wait."""

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of jobs that one transaction starts; one job at least."""

MAX_LOST_RACES = 3
"""How often in a row other servers may be faster, before claims are answered with nothing."""


class Claims:
    """Serves claims. Used as an `async with` block; at its end it drains.

    Args:
        store: Where the jobs are.
        committed: Is called with the changes of each transaction, before a claim is answered.
        failed: Is called with each error of the store, and how many claims it is the answer to.
        max_waiting: Claims that may wait to be served.
    """

    def __init__(
        self,
        store: Store,
        committed: Callable[[Sequence[Change]], None],
        failed: Callable[[StoreError, int], None],
        *,
        max_waiting: int,
        share: float = 1.0,
    ) -> None:
        self._store = store
        self._committed = committed
        self._failed = failed
        # Whether other servers claim the same jobs just now. Then what is planned is often gone,
        # and it is better to search once more, for what they have not locked.
        self._contended = False
        self._batcher = Batcher(
            "claims",
            self._serve,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting * USUAL_WEIGHT,
            share=share,
            weigh=_weigh,
        )

    async def __aenter__(self) -> Self:
        await self._batcher.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._batcher.__aexit__(kind, error, trace)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that claims, once the block has begun."""
        return self._batcher.task

    async def claim(self, command: Claim) -> list[Job]:
        """Return the jobs that are now the worker's, oldest first.

        Raises LimitExceeded and StoreUnavailable.
        """
        return await self._batcher.submit(command)

    async def _serve(self, claims: Sequence[Claim]) -> Sequence[list[Job] | Exception]:
        shares = [Share(command) for command in claims]
        try:
            await self._fill(shares)
        except Exception as error:  # noqa: BLE001
            if isinstance(error, StoreError):
                self._failed(error, sum(not share.jobs for share in shares))
            # Jobs that were started before it went wrong are their workers'.
            return [share.jobs or error for share in shares]
        return [share.jobs for share in shares]

    async def _fill(self, shares: Sequence["Share"]) -> None:
        lost_races = 0
        while lost_races < MAX_LOST_RACES:
            # A claim that was given something is served, though it may want more.
            unserved = [share for share in shares if not share.jobs]
            planned = await self._plan(unserved)
            if not planned:
                return
            started = await retry_if_stale(partial(self._start, unserved, planned))
            lost_races = 0 if started else lost_races + 1

    async def _plan(self, shares: Sequence["Share"]) -> Sequence[Claimable]:
        """Return which jobs to start, as things are just now."""
        limits: Counter[str] = Counter()
        wanted = 0
        for share in shares:
            wanted += share.command.max_jobs
            for job_type in share.command.job_types:
                limits[job_type] += share.command.max_jobs
        if not wanted:
            return ()
        found = await retry_if_stale(partial(self._store.find_claimable, limits, limit=wanted))
        return [job for job, _ in share_out(found, shares)]

    async def _start(self, shares: Sequence["Share"], planned: Sequence[Claimable]) -> bool:
        """Start what is planned, and neither locked nor started by others; whether any is."""
        async with self._store.transaction() as transaction:
            found = planned
            if self._contended:
                limits = Counter(job.job_type for job in planned)
                found = await transaction.find_claimable(limits, limit=len(planned))
                self._contended = found != planned
            given = share_out(found, shares)
            jobs = await transaction.load_unlocked_jobs([job.id for job, _ in given])
            self._contended |= len(jobs) < len(given)
            now = transaction.now
            decided = [
                (decision, share)
                for claimable, share in given
                if (job := jobs.get(claimable.id)) is not None
                and (decision := claim(job, share.command, now)) is not None
            ]
            if not decided:
                return False
            changes = await transaction.append([decision for decision, _ in decided], last=True)
        for decision, share in decided:
            share.jobs.append(decision.job)
        self._committed(changes)
        return True


@dataclass(eq=False)
class Share:
    """What a claim is given."""

    command: Claim
    jobs: list[Job] = field(default_factory=list)


def share_out(
    found: Sequence[Claimable], shares: Sequence[Share]
) -> Sequence[tuple[Claimable, Share]]:
    """Give each job, the oldest first, to one of the claims that want its type.

    They come in turn, so that a claim of many jobs leaves some for the others. A claim gets
    no more than it wants, nor than its answer holds; all together no more than one transaction
    starts.
    """
    room = {share: _Room(share.command.max_jobs) for share in shares}
    turns: dict[str, deque[Share]] = {}
    for share in shares:
        for job_type in share.command.job_types:
            turns.setdefault(job_type, deque()).append(share)
    given: list[tuple[Claimable, Share]] = []
    size = 0
    for job in found:
        if given and size + job.size > MAX_BYTES:
            break
        turn = turns[job.job_type]
        while turn and not room[turn[0]].fits(job):
            turn.popleft()
        if turn:
            share = turn[0]
            turn.rotate(-1)
            room[share].take(job)
            given.append((job, share))
            size += job.size
    return given


class _Room:
    """How much a claim may still be given."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._bytes = MAX_ANSWER_BYTES
        self._empty = True

    def fits(self, job: Claimable) -> bool:
        """Whether the job may be given to it. Where not, nothing more is."""
        if not self._empty and job.size > self._bytes:
            self._jobs = 0
        return self._jobs > 0

    def take(self, job: Claimable) -> None:
        self._jobs -= 1
        self._bytes -= job.size
        self._empty = False


def _weigh(command: Claim) -> int:
    return max(len(command.job_types), command.max_jobs)
