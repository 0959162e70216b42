"""The port to the database. Its docstrings are the contract; the conformance suite is its meaning.

Every method raises StoreUnavailable when the database cannot be reached or does
not answer in time, and StoreFault when it is damaged or was changed by hand. A store
recovers by itself: the next call tries again.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from msgspec import Struct, field

from jobledger_server.domain.job import (
    Asset,
    AssetId,
    Instant,
    Job,
    JobId,
    JobStatus,
    Micros,
    Transition,
)
from jobledger_server.domain.state_machine import Decision

ErrorKind = Literal[
    "disk_full",
    "read_only",
    "constraint",
    "timeout",
    "connection",
    "io",
    "corrupt",
    "programming",
    "other",
]
"""Why the database did not do what it was asked."""


Owned = tuple[JobId, str]
"""A job's id, and the user that it must belong to."""


class StoreError(Exception):
    """The database did not do what it was asked."""

    kind: ErrorKind = "other"


class StoreUnavailable(StoreError):
    """The database is unavailable, does not answer in time, or takes no writes for now.

    `stale` says that a kept connection turned out to be dead before anything
    was written: trying again at once makes a new one, and may well succeed.
    Otherwise nothing is known: a commit may have been under way.
    """

    def __init__(self, cause: str, *, kind: ErrorKind = "connection", stale: bool = False) -> None:
        super().__init__(cause)
        self.kind = kind
        self.stale = stale


class StoreFault(StoreError):
    """The database is damaged, or lacks what a statement needs: it stays so until it is repaired.

    The message says what to do.
    """

    def __init__(self, cause: str, *, kind: ErrorKind) -> None:
        super().__init__(cause)
        self.kind = kind


class StoreConflict(StoreError):
    """The database refused what was to be written, and nothing was.

    A rule of the schema is broken: by another server that was faster (the same
    `request_id`), so that trying again succeeds, or by a bug.
    """

    kind = "constraint"


class FeedCompacted(StoreError):
    """Deletions after the place asked for are no longer known, so what followed it is neither."""


class FeedHead(Struct, frozen=True):
    """The newest committed place in the feed.

    `epoch` names the feed: a place in one is never taken for a place in another.
    It is made with the database, and anew where the database is found to be a copy
    or restored. Deletions up to the place `compacted_seq` are no longer known.
    """

    epoch: str
    seq: int
    compacted_seq: int = 0


class Change(Struct, frozen=True):
    """A job at a place in the feed: as it stood after change `seq`.

    `transitions` has the step that it took there, if it took one. `deleted` says
    that the job is gone; `job` is how it stood last, without its contents where it
    was read from a tombstone.

    `as_of` is the place where the feed stood when the change was read from the
    database: jobs that were deleted by then were passed over, but for their deletions.
    It is 0 for a change that is published as it was committed.
    """

    job: Job
    seq: int
    transitions: tuple[Transition, ...] = ()
    deleted: bool = False
    as_of: int = 0


PAGE_BYTES = 4 * 1024 * 1024
"""Bytes that the jobs of a page take at most, where the caller names no other bound."""


class FeedPage(Struct, frozen=True):
    """A part of the feed, in the order of the commits, and where the feed stood when it was read.

    Nothing that was committed up to the sequence number `through` is missing.
    """

    head: FeedHead
    changes: Sequence[Change]
    through: int


class ActivePage(Struct, frozen=True):
    """Active jobs, in the order of their latest changes; none is missing up to `through`."""

    changes: Sequence[Change]
    through: int


class JobQuery(Struct, frozen=True, kw_only=True):
    """Which of an owner's jobs; an empty filter lets all through.

    `created_after` and `created_before` are exclusive.
    """

    user_id: str
    statuses: frozenset[JobStatus] = frozenset()
    job_types: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    created_after: Instant | None = None
    created_before: Instant | None = None

    def key(self) -> tuple[object, ...]:
        """Return a key whose repr is the same for, and only for, the same query."""
        return (
            self.user_id,
            sorted(status.value for status in self.statuses),
            sorted(self.job_types),
            sorted(self.labels.items()),
            self.created_after,
            self.created_before,
        )


class JobPage(Struct, frozen=True):
    """A part of a list, newest first. It goes on before the job `rest`, None at its end."""

    jobs: Sequence[Job]
    rest: JobId | None


class Overdue(Struct, frozen=True):
    """Jobs whose deadline had passed at the database server's time `now`, longest first."""

    now: Instant
    jobs: Sequence[JobId]


class Claimable(Struct, frozen=True):
    """A job that waits for a worker. `size` is about how many bytes it takes in an answer."""

    id: JobId
    job_type: str
    size: int


class Transaction(Protocol):
    """One writing transaction. Nothing outside sees any of it before it commits."""

    @property
    def now(self) -> Instant:
        """The database server's time, read when the transaction began."""

    async def load_jobs(
        self, ids: Collection[JobId], owned: Collection[Owned] = ()
    ) -> dict[JobId, Job]:
        """Return those of the jobs that exist, and let nobody else change them until the end.

        Also those of the `owned` ones that are their users'. Another user's is neither
        read nor locked.

        The jobs are locked in the order of their ids, so that two transactions
        never wait for each other. Call it once, before `append`.
        """

    async def load_unlocked_jobs(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        """Do as `load_jobs`, but pass over jobs that another transaction has locked."""

    async def find_created(
        self, requests: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Job]:
        """Return the jobs that were created with these (user id, request id) pairs."""

    async def find_linked(
        self, requests: Collection[tuple[JobId, str]]
    ) -> dict[tuple[JobId, str], Asset]:
        """Return the assets that were linked with these (job id, request id) pairs."""

    async def find_claimable(self, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        """Do as `Store.find_claimable`, with jobs that nobody else has locked, and lock them."""

    async def append(self, decisions: Sequence[Decision], *, last: bool = False) -> list[Change]:
        """Write what was decided, each decision as the next change of the feed, in this order.

        The places are consecutive and follow the last committed one: the
        counter is locked from here until the end of the transaction, so that
        the order of the places is the order of the commits, and a transaction
        that is rolled back gives its places back. Call it once, last. Who has
        nothing more to do in the transaction says so with `last`: then it may
        commit here. Raises StoreConflict.
        """


class Store(Protocol):
    """Jobs, assets and transitions in a database, and the feed of their changes."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction; commit it at the end of the block, roll it back on an error.

        When the block has ended without an error, the changes are durable: they
        survive a crash of this process, of the database and of the machine.
        Raises StoreUnavailable and StoreConflict at the end of the block too.
        """

    async def read_jobs(
        self, ids: Collection[JobId] = (), owned: Collection[Owned] = ()
    ) -> dict[JobId, Job]:
        """Return those of the jobs that exist, and those of the `owned` ones that are their users'.

        Another user's job is not read, so it takes as long as one that does not exist.
        """

    async def read_histories(
        self, ids: Collection[JobId] = (), owned: Collection[Owned] = ()
    ) -> dict[JobId, tuple[Job, list[Transition]]]:
        """Return the same, each job with all its transitions up to its version."""

    async def list_jobs(self, query: JobQuery, *, before: JobId | None, limit: int) -> JobPage:
        """Return the jobs with ids less than `before`, greatest id (newest) first.

        At most `limit`, of MAX_ANSWER_BYTES together but one at least, and only those among
        the next MAX_SCANNED_JOBS of the owner. What a caller does not wait for is not
        read on.
        """

    async def list_assets(self, job_id: JobId, *, after: AssetId | None, limit: int) -> list[Asset]:
        """Return the job's assets with ids greater than `after`, oldest first."""

    async def list_transitions(
        self, job_id: JobId, *, after_version: int, limit: int
    ) -> list[Transition]:
        """Return the job's transitions with greater versions, oldest first."""

    async def find_claimable(self, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        """Return the jobs that wait for a worker, oldest first, but for those that are overdue.

        `limits` says of which types, and how many of each at most; `limit`, how many in
        all. However large the jobs are, only their sizes are read.
        """

    async def overdue(self, *, limit: int) -> Overdue:
        """Return jobs whose deadline has passed by the database server's clock."""

    async def ended_before(self, age: Micros, *, limit: int) -> list[JobId]:
        """Return jobs that ended longer than `age` ago by the database server's clock."""

    async def feed_head(self) -> FeedHead:
        """Return the newest committed place in the feed."""

    async def verify_identity(self) -> FeedHead:
        """Return the head, under a new epoch if this database is another than it was.

        A copy, a restored one, or a standby that took over: as far as the database
        itself can tell.
        """

    async def changes_after(
        self, seq: int, *, limit: int, max_bytes: int = PAGE_BYTES, user_id: str | None = None
    ) -> FeedPage:
        """Return changes after the sequence number `seq`, in the order of their commits.

        At most `limit`, whose jobs take at most `max_bytes`, or one that takes more; the
        database is not asked for the contents of many more. They are all up to
        `through`, which is the head unless the page was cut.

        A job stands in the feed at its latest change; a deleted one stands there as
        such. A transition stands at its own place for ever: where its job went on,
        with the job as it stood after the transition. So what is told of a place
        never changes, but that it may be nothing any more; and whoever has read up
        to a place, in whatever pages and however often it began again, has been
        told each transition up to there once, and of each job ever newer versions.

        With a `user_id` the changes of other owners are left out. One call passes over a
        bounded number of those, so that a page may be cut short, or empty, before the head.

        Raises FeedCompacted.
        """

    async def newest_from(self, *, limit: int, max_bytes: int) -> int:
        """Return a sequence number after which at most about so many changes and bytes follow.

        The smallest one, as far as the database can tell without reading contents: twice
        the bytes may follow, and what is committed meanwhile. Not before what
        `changes_after` can read from.
        """

    async def active_jobs(
        self,
        seq: int,
        *,
        until: int,
        limit: int,
        max_bytes: int = PAGE_BYTES,
        user_id: str | None = None,
    ) -> ActivePage:
        """Return the jobs that have not ended and whose latest change is after `seq` up to `until`.

        In the order of their latest changes, without transitions; bounded as in
        `changes_after`.
        """

    async def compact_deletions(self, age: Micros, *, limit: int) -> int:
        """Forget deletions that are older than `age`, oldest first; return how many were."""

    async def renew_epoch(self, epoch: str) -> FeedHead:
        """Give the feed a new epoch, if this is the present one, and return its head.

        For when what it held before may differ from what it holds now, so that no
        place that was given out stays good.
        """

    async def close(self) -> None:
        """Let go of every connection. Idempotent."""
