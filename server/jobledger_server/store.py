"""The port to the database. Its docstrings are the contract, and the conformance suite tests it.

Every method raises StoreUnavailable if the database cannot be reached or does not answer
in time, and StoreFault if it is damaged or its schema was changed by hand. A store recovers
by itself: the next call tries again.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Literal, Protocol, TypeVar

from msgspec import Struct, field
from msgspec.structs import force_setattr

from jobledger_server.domain.decisions import Created
from jobledger_server.domain.job import (
    NO_PAYLOADS,
    Asset,
    AssetId,
    Attempt,
    Instant,
    Job,
    JobId,
    JobStatus,
    Micros,
    Payloads,
    Phase,
    Transition,
)
from jobledger_server.domain.output import OutputCut, Tails
from jobledger_server.domain.queues import KeyState, QueueName
from jobledger_server.domain.retention import Purgeable
from jobledger_server.domain.state_machine import Decision
from jobledger_server.domain.type_defaults import TypeDefaults
from jobledger_server.output_store import Outputs
from jobledger_server.queue_store import QueueReports, QueueSettings
from jobledger_server.webhook_store import Webhooks

Key = TypeVar("Key")

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
"""Why the database failed a statement."""


class StoreError(Exception):
    """The database failed a statement."""

    kind: ErrorKind = "other"


class StoreUnavailable(StoreError):
    """The database is unreachable, does not answer in time, or temporarily refuses writes.

    `stale`: a pooled connection was dead, and nothing was committed. An immediate retry opens
    a new connection and is likely to succeed. Otherwise the outcome is unknown: a commit may
    have been under way.
    """

    def __init__(self, cause: str, *, kind: ErrorKind = "connection", stale: bool = False) -> None:
        super().__init__(cause)
        self.kind = kind
        self.stale = stale


class StoreFault(StoreError):
    """The database is damaged or lacks a table or column. It fails until somebody repairs it.

    The message says how.
    """

    def __init__(self, cause: str, *, kind: ErrorKind) -> None:
        super().__init__(cause)
        self.kind = kind


class StoreConflict(StoreError):
    """A constraint of the schema rejected the write, and nothing was written.

    Either another server was faster with the same `request_id`, so that a retry succeeds,
    or it is a bug. The ledger raises it too, for commands that have to be committed apart.
    """

    kind = "constraint"


class FeedCompacted(StoreError):
    """Deletions after the requested sequence number are no longer known."""


class Outdated(StoreError):
    """It was decided by what has changed since: nothing was written. Decide it again."""


class GroupsLocked(Outdated):
    """Groups that the jobs of a commit belong to are not loaded.

    They are locked by others, or do not exist, or a creation names them by its request only. Decide
    it again, with these groups loaded with the jobs.
    """

    def __init__(self, groups: Collection[JobId]) -> None:
        super().__init__()
        self.groups = groups


class FeedHead(Struct, frozen=True):
    """The newest committed sequence number of the feed.

    Attributes:
        epoch: Identifies the feed. Sequence numbers are comparable only within an epoch. A
            database gets its epoch when it is created, and a new one when it is found to be
            a copy or restored.
        seq: The sequence number of the newest change; 0 if there is none.
        compacted_seq: Deletions up to this sequence number are no longer known.
        identity: On PostgreSQL the cluster, its timeline and the table, separated by spaces, as
            they were verified last. Elsewhere empty.
    """

    epoch: str
    seq: int
    compacted_seq: int = 0
    identity: str = ""

    def has_other_timeline(self, before: "FeedHead") -> bool:
        """Return whether it is the same cluster and table as before, with another timeline."""
        parts = zip(self.identity.split(), before.identity.split(), strict=False)
        return [now == then for now, then in parts] == [True, False, True]


class Change(Struct, frozen=True, gc=False):
    """One change of a job.

    Attributes:
        job: The job as of this change. For a deletion, the job as it was last, at the version
            and the time of its deletion.
        seq: The change's sequence number in the feed.
        transitions: The transition that the change makes, if it makes one.
        deleted: Whether the job was deleted.
        content_bytes: Those of its job. Whoever keeps or sends the change counts them.
    """

    job: Job
    seq: int
    transitions: tuple[Transition, ...] = ()
    deleted: bool = False
    content_bytes: int = 0

    def __post_init__(self) -> None:
        force_setattr(self, "content_bytes", self.job.content_bytes)

    @property
    def memory_bytes(self) -> int:
        """About how much memory the change takes, with its owner's queue in the change buffer."""
        return CHANGE_BYTES + self.content_bytes


CHANGE_BYTES = 2560
"""Memory that a change takes besides the texts of its job's callers."""


class StoredJob(Struct, frozen=True):
    """A job as it is read: with its transitions, oldest first, and with its payloads if asked."""

    job: Job
    transitions: Sequence[Transition] = ()
    payloads: Payloads = NO_PAYLOADS


class FeedPage(Struct, frozen=True):
    """A part of the feed in commit order, and the feed's head when it was read.

    No change up to the sequence number `through` is missing.
    """

    head: FeedHead
    changes: Sequence[Change]
    through: int


class ActivePosition(Struct, frozen=True):
    """A position in the list of active jobs, which is ordered by owner and then by id."""

    user_id: str
    job_id: JobId


START_OF_ACTIVE = ActivePosition("", JobId("00000000-0000-0000-0000-000000000000"))
"""The position before every active job."""


class ActivePage(Struct, frozen=True):
    """A part of the list of active jobs, each as its latest change.

    `next_after` is the argument `after` of the next page, or None on the last page.
    """

    changes: Sequence[Change]
    next_after: ActivePosition | None


class JobQuery(Struct, frozen=True, kw_only=True):
    """Selects jobs of one owner, or of all (None). An empty filter matches every job.

    `created_after` and `created_before` are exclusive. `cancelled` selects jobs that ended because
    their cancellation was requested, or all others. `group_id` selects the children of a group.
    `not_rerun` leaves out jobs that were rerun, `uncancelled` those whose cancellation was
    requested. A `unique_key` selects active and ended jobs.
    """

    user_id: str | None
    statuses: frozenset[JobStatus] = frozenset()
    job_types: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    created_after: Instant | None = None
    created_before: Instant | None = None
    error_reasons: frozenset[str] = frozenset()
    origin_job_id: JobId | None = None
    held: bool | None = None
    cancelled: bool | None = None
    unique_key: str = ""
    request_id: str = ""
    concurrency_key: str = ""
    phases: frozenset[Phase] = frozenset()
    worker_id: str = ""
    group_id: JobId | None = None
    not_rerun: bool = False
    uncancelled: bool = False

    def key(self) -> tuple[object, ...]:
        """Return a key whose repr is the same for equal queries, and only for those."""
        return (
            self.user_id,
            sorted(status.value for status in self.statuses),
            sorted(self.job_types),
            sorted(self.labels.items()),
            self.created_after,
            self.created_before,
            sorted(self.error_reasons),
            self.origin_job_id,
            self.held,
            self.cancelled,
            self.unique_key,
            self.request_id,
            self.concurrency_key,
            sorted(self.phases),
            self.worker_id,
            self.group_id,
            self.not_rerun,
            self.uncancelled,
        )


class JobPage(Struct, frozen=True):
    """A part of a list, newest first.

    `next_before` is the argument `before` of the next page, or None on the last page.
    """

    jobs: Sequence[Job]
    next_before: JobId | None


class Claimable(Struct, frozen=True):
    """A job that may be claimed. `size` is about the bytes of its content in an answer."""

    id: JobId
    job_type: str
    size: int
    priority: int
    tenant: str

    @property
    def queue(self) -> QueueName:
        """The name of its queue."""
        return QueueName(self.job_type, self.priority, self.tenant)


class Config(Struct, frozen=True):
    """What operators have set, but for limits and pauses of keys: these are read when they matter.

    Attributes:
        version: Grows with each change of anything that operators set.
        paused_types: The job types that are paused.
        defaults: The defaults of the job types that have any.
    """

    version: int
    paused_types: frozenset[str]
    defaults: Mapping[str, TypeDefaults]


class News(Struct, frozen=True):
    """What a server has to look at regularly: whether there is anything to do.

    Attributes:
        now: The database server's time.
        head: The feed's.
        config_version: The version of what operators have set.
        overdue: Whether the deadline of a job has passed.
        due: Whether a scheduled job is due.
        recheck: Whether somebody has to look if a blocked job has a free slot.
        ready: By job type, how many jobs are ready.
    """

    now: Instant
    head: "FeedHead"
    config_version: int
    overdue: bool
    due: bool
    recheck: bool
    ready: Mapping[str, int]


class BlockedType(Struct, frozen=True):
    """A type with blocked jobs of a concurrency key, and how many others of it are ready."""

    job_type: str
    ready: int


class Transaction(Protocol):
    """One writing transaction. Its writes are invisible to others until it commits."""

    async def now(self) -> Instant:
        """Return the database server's time. It is read once, at the latest by the first call."""

    async def load_jobs(self, ids: Collection[JobId], *, look: bool = True) -> dict[JobId, Job]:
        """Return the jobs that exist, and lock them until the end of the transaction.

        Jobs are locked in the order of their ids, so that transactions do not deadlock.
        Call it once, before `append`. A store may lock them later, at the latest in `append`, and
        then raise Outdated if one has changed. Without a `look` they may be as this process last
        wrote them.
        """

    async def load_claimed(self, ids: Collection[JobId]) -> dict[JobId, StoredJob]:
        """Like `load_jobs`, but skip jobs that another transaction has locked.

        The jobs have their parameters and checkpoints, which a worker needs, and no other
        payloads.
        """

    async def find_created(
        self, requests: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Created]:
        """Return the jobs that were created with these (user id, request id) pairs."""

    async def find_reruns(self, origins: Collection[JobId]) -> dict[JobId, Job]:
        """Return the reruns of these jobs that are not deleted, by the job that each runs again."""

    async def find_linked(
        self, requests: Collection[tuple[JobId, str]]
    ) -> dict[tuple[JobId, str], Asset]:
        """Return the assets that were linked with these (job id, request id) pairs."""

    async def find_named(
        self, names: Collection[tuple[JobId, str]]
    ) -> dict[tuple[JobId, str], Asset]:
        """Return the assets that have these (job id, name) pairs."""

    async def load_outputs(self, jobs: Collection[Job]) -> dict[JobId, Tails]:
        """Return the streams of these loaded jobs' output.

        They may be those that this process knows: `append` raises Outdated if another one has
        appended to them since.
        """

    async def find_active(
        self, keys: Collection[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Job]:
        """Return the jobs with these (user id, job type, unique key) that are not terminal."""

    async def find_ready(self, planned: Sequence[Claimable]) -> list[Claimable]:
        """Return the oldest ready jobs of the same queues, but for locked ones, and lock them.

        Args:
            planned: As many jobs of each queue, in their order. Others may have them by now.
        """

    async def lock_keys(self, keys: Collection[str]) -> dict[str, KeyState]:
        """Lock the feed until the end of the transaction, and return the states of these keys.

        Nobody else can change them then. Call it after the jobs are loaded.
        """

    async def lock_groups(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        """Lock the feed until the end of the transaction, and return these groups, locked.

        Those are left out that do not exist, or that another transaction has locked: it may wait
        for the feed. Call it after the jobs are loaded.
        """

    async def find_blocked_types(self, key: str, *, ready: int) -> list[BlockedType]:
        """Return the types with blocked jobs of a concurrency key.

        Ready jobs are counted no further than `ready`; types that have as many are left out.
        """

    async def find_blocked(self, key: str, job_type: str, *, limit: int) -> list[Job]:
        """Return the blocked jobs that go next, but for locked ones, and lock them."""

    async def find_due(self, *, limit: int) -> list[Job]:
        """Return scheduled jobs that are due, the longest due first, but for locked ones.

        They are locked until the end of the transaction.
        """

    async def find_overdue(self, *, limit: int) -> dict[JobId, Job]:
        """Return jobs whose deadline has passed, the longest overdue, but for locked ones.

        They are locked until the end of the transaction. Those in a phase of newer servers are
        left out: these servers expire them.

        A report can postpone a deadline without the store taking note. Such a job is returned
        when its earlier deadline has passed, until a decision about it is appended.
        """

    async def clear_recheck(self, key: str, *, unblocked: bool) -> None:
        """Record that no blocked job of this key has a free slot.

        With `unblocked`, only if no job of this key is blocked.
        """

    async def append(
        self,
        decisions: Sequence[Decision],
        *,
        config_version: int | None = None,
        settled: Collection[str] = (),
        cuts: Sequence[OutputCut] = (),
        last: bool = False,
    ) -> list[Change]:
        """Write the decisions, each change as the next one of the feed, in this order.

        The sequence numbers are consecutive and follow the last committed one. The feed
        stays locked until the end of the transaction, so sequence order is commit order, and
        a rollback leaves no gap. A job that was only renewed takes no sequence number, and
        its row keeps the one of its latest change. The counters of queues and keys change with
        their jobs. Call it once, after everything else but `find_blocked_types`, which sees what
        was written, and `clear_recheck`.

        What is written does not depend on the payloads that the job has already.

        Args:
            decisions: Decisions with something to write, about new jobs or loaded ones.
            config_version: The version of what operators set by which they were decided, if they
                start or create jobs.
            settled: Concurrency keys whose free slots these decisions give to blocked jobs, so that
                nobody has to look.
            cuts: What to drop of the outputs of loaded jobs.
            last: The block ends without any further statement, so `append` may commit.

        Raises:
            StoreConflict: A constraint was violated.
            Outdated: The version of what operators set is another one, a loaded job has changed, or
                another one has appended to its output.
        """


class CountedLevel(Struct, frozen=True):
    """The counters of a job type's priority, as they were read.

    Attributes:
        job_type: The type.
        priority: The priority.
        writes: How often they have changed.
        idle: Whether no job is counted.
    """

    job_type: str
    priority: int
    writes: int
    idle: bool


class Swept(Struct, Generic[Key], frozen=True):
    """One step of a sweep.

    Attributes:
        last: Where the next step begins; None if there is none.
        deleted: How many rows were deleted.
    """

    last: Key | None
    deleted: int


class Sweeps(Protocol):
    """Deletes counters that count nothing any more.

    Rows are looked at without a lock, in the order of their keys. Those that were idle are deleted
    while the feed is locked, but for those that became busy meanwhile. If none was idle, nothing
    is locked.
    """

    async def levels(self, *, after: tuple[str, int], limit: int) -> list[CountedLevel]:
        """Return levels, in the order of their types and priorities."""

    async def queues(self, *, after: Any, limit: int) -> Swept[Any]:
        """Look at `limit` queues, and delete those without jobs.

        `after` is the `last` of the step before, None in the first one. What it is depends on the
        store.

        A queue stays that is more than FORGOTTEN_STARTS ahead of its level, while the level counts
        a job: its tenant would gain by it. See domain/queues.py.
        """

    async def delete_levels(self, levels: Sequence[CountedLevel]) -> int:
        """Delete those of the levels that were not written to since; return how many."""

    async def keys(self, *, after: str, limit: int) -> Swept[str]:
        """Look at `limit` concurrency keys, and delete those without held and blocked jobs.

        Keys are marked to be looked at whose blocked jobs wait for nothing: a server died before
        it marked them.
        """

    async def ended(self, age: Micros, *, limit: int) -> int:
        """Delete counts of jobs that ended longer than `age` ago; return how many."""

    async def pollers(self) -> None:
        """Delete the records of pollers that have expired."""


class Store(Protocol):
    """Jobs, assets and transitions in a database, and the feed of their changes."""

    @property
    def queue_settings(self) -> QueueSettings:
        """What operators set: pauses, limits, and defaults of job types."""

    @property
    def queue_reports(self) -> QueueReports:
        """What operators read: counts, and what keeps a job waiting."""

    @property
    def webhooks(self) -> Webhooks:
        """Subscriptions, and how far each has come."""

    @property
    def outputs(self) -> Outputs:
        """What jobs wrote."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction. Commit it at the end of the block, or roll it back on an error.

        After the block has ended without an error, the changes are durable: they survive a
        crash of this process, of the database and of the machine. The end of the block
        raises StoreUnavailable and StoreConflict too.
        """

    async def read_jobs(self, ids: Collection[JobId], *, full: bool) -> dict[JobId, StoredJob]:
        """Return the jobs that exist, with all their transitions, `full` ones with payloads."""

    async def list_attempts(self, job_id: JobId, *, after: int, limit: int) -> list[Attempt]:
        """Return the attempts that ended without ending the job, numbered from after `after`."""

    async def list_jobs(
        self, query: JobQuery, *, before: JobId | None, limit: int, full: bool = False
    ) -> JobPage:
        """Return jobs with ids less than `before`, greatest id (newest) first.

        A page has at most `limit` jobs. It has no more of them than fit MAX_ANSWER_BYTES, or
        with their payloads if `full` MAX_FULL_PAGE_BYTES, or one larger job; the payloads
        themselves are not read. It scans at most MAX_SCANNED_JOBS jobs of the owner, so it may be
        short, or empty, before the end of the list. Jobs whose ids are at least ID_AHEAD after
        `created_before` are not scanned. Nor are, in a query of one owner, jobs with another
        unique key or request id than the query's. If the call is cancelled, its statement is
        interrupted.
        """

    async def list_assets(self, job_id: JobId, *, after: AssetId | None, limit: int) -> list[Asset]:
        """Return the job's assets with ids greater than `after`, oldest first.

        Those that later attempts have replaced are left out.
        """

    async def read_assets(self, ids: Collection[JobId]) -> dict[JobId, Sequence[Asset]]:
        """Return all assets of those of the jobs that have any, oldest first.

        Those of a deleted job are returned until its deletion is forgotten, and with them those
        that later attempts have replaced.
        """

    async def find_claimable(self, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        """Return ready jobs whose deadline has not passed, in the order in which they go next.

        See `queues.next_queues`. Their payloads are not read.

        Args:
            limits: By job type, how many jobs at most.
            limit: How many jobs at most of all types.
        """

    async def config(self) -> Config:
        """Return what operators have set."""

    async def news(self, job_types: Collection[str]) -> News:
        """Return what there is to do, of these types as to `ready`.

        Like `feed_head`, it first verifies the identity of a database that was unavailable.
        """

    async def find_rechecks(self, *, after: str, limit: int) -> list[str]:
        """Return concurrency keys where somebody has to look if a blocked job has a free slot.

        The first ones after the key `after`, in their order.
        """

    @property
    def sweeps(self) -> Sweeps:
        """Deletes what is idle."""

    async def record_pollers(
        self, server: str, job_types: Collection[str], *, lasts: Micros
    ) -> None:
        """Record that workers of a server ask for these types. It expires after `lasts`."""

    async def find_held(
        self, worker_id: str, job_types: Collection[str], *, limit: int
    ) -> list[tuple[JobId, int]]:
        """Return jobs of these types that a worker holds, with their attempts, oldest first.

        A change that was committed before the call is seen.
        """

    async def count_active(self, user_id: str, *, limit: int) -> int:
        """Return how many jobs of an owner are not terminal; it counts no further than `limit`."""

    async def find_purgeable(self, age: Micros, *, after: int, limit: int) -> Purgeable:
        """Return jobs that have been terminal for longer than `age`, by the database's clock.

        Those with a retention of their own are passed over: see `find_outlived`.

        They are in the order of their latest changes, which is the order in which they finished.
        A call reads a bounded part of the feed after the sequence number `after`. A job that
        changes later gets a greater number, so a caller that continues at `through` never reads
        an unfinished job twice. Jobs that are passed over are returned once, as `later`: see
        domain/retention.py.
        """

    async def find_outlived(self, *, limit: int) -> list[JobId]:
        """Return jobs that have been terminal for longer than their own retention, oldest first.

        Others are not read.
        """

    async def feed_head(self) -> FeedHead:
        """Return the newest committed sequence number, and the feed's epoch.

        If any method found the database unavailable since the last call, its identity is
        verified first: another database may answer now.
        """

    async def verify_identity(self) -> FeedHead:
        """Return the feed's head, under a new epoch if the database's identity has changed.

        It changes when the database is copied or restored, or a standby takes over, if the
        database itself can detect that.
        """

    async def changes_after(
        self, seq: int, *, limit: int, user_id: str | None = None, until: int | None = None
    ) -> FeedPage:
        """Return the changes after the sequence number `seq`, in commit order, without gaps.

        No change up to the page's `through` is missing. `through` is the head, unless the
        page was cut at its limit.

        The feed has each job at its latest change, each transition at the sequence number of its
        own change, with the job as of that transition, and each deletion. So the change at a
        sequence number is the same in every read, or absent if a later change has replaced it.
        A reader that has read up to a sequence number, in any pages and with any number of
        restarts from its cursor, has received each transition and each deletion up to there
        exactly once, and each job in ascending versions.

        Args:
            seq: Where the page begins.
            limit: Changes at most.
            user_id: The owner, or None for all owners. A call skips a bounded number of
                other owners' changes, so a page may be short, or empty, before the head.
            until: The last sequence number to read, of all owners' changes.

        Raises:
            FeedCompacted: Deletions after `seq` are no longer known.
        """

    async def active_jobs(
        self,
        after: ActivePosition,
        *,
        until: int,
        limit: int,
        user_id: str | None = None,
        ids: Collection[JobId] = (),
    ) -> ActivePage:
        """Return the jobs that are not terminal and whose latest change is not after `until`.

        With `ids` only those of them are read.

        They are in the order of their owners and ids, the first ones after `after`, and have no
        transitions. A page has at most `limit` jobs, and skips at most `limit` jobs that changed
        after `until`, so it may be short, or empty, before the end of the list.
        """

    async def compact_deletions(self, age: Micros, *, limit: int) -> int:
        """Forget at most `limit` jobs that were deleted longer than `age` ago, oldest first.

        Until then they are kept for the feed, and found by nothing else. Those that another server
        forgets at the same time are skipped.

        Returns:
            How many were forgotten.
        """

    async def renew_epoch(self, epoch: str) -> FeedHead:
        """Give the feed a new epoch, if `epoch` is its current one, and return its head.

        This invalidates every cursor. Use it if the feed may have held other changes at the
        same sequence numbers before.
        """

    async def close(self) -> None:
        """Close every connection. Idempotent."""
