"""What is committed. Whatever happens between two awaits is atomic, so a snapshot is a read."""

import bisect
import copy
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jobledger_server.domain.job import Instant, JobId, JobStatus, Phase
from jobledger_server.domain.output import OutputPiece
from jobledger_server.domain.queues import QueueName
from jobledger_server.domain.type_defaults import TypeDefaults
from jobledger_server.domain.waiting import Pause
from jobledger_server.store import Change, FeedHead
from jobledger_server.webhook_store import Webhook
from jobledger_world.memory.rows import Group, Row

NOBODY: Collection[JobId] = ()


def no_jobs() -> list[int]:
    """Return the counts by phase where there are no jobs."""
    return [0] * len(Phase)


@dataclass
class Level:
    """A priority of a job type: its virtual time, how often it was written, and its counts."""

    vtime: int = 0
    writes: int = 0
    phases: list[int] = field(default_factory=no_jobs)


@dataclass
class Queue:
    """The jobs of a type, priority and tenant: its virtual time, and its counts."""

    vtime: int
    phases: list[int] = field(default_factory=no_jobs)


@dataclass
class Key:
    """A concurrency key; `recheck`: somebody has to look if a blocked job has a free slot."""

    recheck: bool = False
    running: int = 0
    blocked: int = 0


@dataclass
class Rule:
    """What operators set for a concurrency key, or for all keys of a name."""

    max_running: int | None = None
    pause: Pause | None = None


@dataclass
class HeldWebhook:
    """A webhook, and who delivers it until when; the holder is empty if nobody does."""

    webhook: Webhook
    holder: str = ""
    lease_expire_time: int = 0


@dataclass
class Tables:
    """What is committed.

    `levels`, `queues` and `keys` count jobs, as the tables of a database do: by what each commit
    says that it changes. A sweep deletes those that are idle.

    Attributes:
        random: Decides epochs and the key of watch tokens.
        identity: Of the database: another one where it was restored.
        rows: The jobs, with those that were deleted and are in the feed yet.
        levels: By job type and priority.
        queues: By their names.
        keys: By concurrency key.
        ended: By job type, time, status and reason, how many jobs ended.
        paused_types: By job type.
        defaults: By job type.
        rules: By name.
        pollers: By job type and server, when the record expires.
        webhooks: By id.
        webhook_deliverers: When each one counts no more, by id.
        outputs: By job and the name of the stream, the pieces that are stored.
        written: Called after a commit's jobs were written, with each as it was and as it is.
    """

    random: random.Random
    rows: dict[JobId, Row] = field(default_factory=dict)
    levels: dict[tuple[str, int], Level] = field(default_factory=dict)
    queues: dict[QueueName, Queue] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    ended: Counter[tuple[str, int, JobStatus, str]] = field(default_factory=Counter)
    paused_types: dict[str, Pause] = field(default_factory=dict)
    defaults: dict[str, TypeDefaults] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    pollers: dict[tuple[str, str], Instant] = field(default_factory=dict)
    webhooks: dict[str, HeldWebhook] = field(default_factory=dict)
    webhook_deliverers: dict[str, int] = field(default_factory=dict)
    outputs: dict[tuple[JobId, str], list[OutputPiece]] = field(default_factory=dict)
    written: Callable[[Sequence[tuple[Row | None, Row]]], None] | None = None
    config_version: int = 0
    compacted_seq: int = 0

    def __post_init__(self) -> None:
        self.epoch = self.new_epoch()
        self.identity = self._known_identity = 0
        self.watch_key = self.random.randbytes(32)
        self._groups: dict[Group, dict[JobId, None]] = {}
        self._seqs: list[int] = []  # of all changes in the feed, in their order
        self._job_at: dict[int, JobId] = {}

    def copy(self) -> "Tables":
        """Return a copy of all that is committed, which later commits do not change."""
        return copy.deepcopy(self, {id(self.random): self.random})

    def verify_identity(self) -> None:
        """Give the feed another epoch if this is another database than when this was last asked."""
        if self.identity != self._known_identity:
            self._known_identity = self.identity
            self.epoch = self.new_epoch()

    def new_epoch(self) -> str:
        """Return an epoch that no feed has."""
        return f"{self.random.getrandbits(128):032x}"

    @property
    def head(self) -> FeedHead:
        """The newest sequence number."""
        newest = self._seqs[-1] if self._seqs else 0
        return FeedHead(self.epoch, max(newest, self.compacted_seq), self.compacted_seq)

    def put(self, rows: Mapping[JobId, Row]) -> None:
        """Write these rows."""
        changes = [(self.rows.get(job_id), row) for job_id, row in rows.items()]
        for before, row in changes:
            self._move(row.job.id, before, row)
            self.rows[row.job.id] = row
        if self.written is not None:
            self.written(changes)

    def forget(self, job_id: JobId) -> None:
        """Delete a row, and its changes."""
        self._move(job_id, self.rows.pop(job_id), None)

    def _move(self, job_id: JobId, before: Row | None, after: Row | None) -> None:
        old = set() if before is None else before.seqs
        new = set() if after is None else after.seqs
        for seq in old - new:
            del self._seqs[bisect.bisect_left(self._seqs, seq)]
            del self._job_at[seq]
        for seq in new - old:
            bisect.insort(self._seqs, seq)
            self._job_at[seq] = job_id
        left = [] if before is None else list(before.groups())
        entered = [] if after is None else list(after.groups())
        if left == entered:
            return
        for group in left:
            members = self._groups[group]
            del members[job_id]
            if not members:
                del self._groups[group]
        for group in entered:
            self._groups.setdefault(group, {})[job_id] = None

    def kept(self, job_id: JobId) -> Row | None:
        """Return the row of a job that exists and was not deleted."""
        row = self.rows.get(job_id)
        return None if row is None or row.deletion is not None else row

    def members(self, group: Group) -> Collection[JobId]:
        """Return the jobs of a group."""
        return self._groups.get(group, NOBODY)

    def in_group(self, group: Group) -> Iterable[Row]:
        """Return the rows of a group's jobs."""
        return [self.rows[job_id] for job_id in self.members(group)]

    def changes(
        self, after: int, until: int, *, limit: int, user_id: str | None = None
    ) -> Sequence[Change]:
        """Return changes in their order."""
        found: list[Change] = []
        for index in range(bisect.bisect_right(self._seqs, after), len(self._seqs)):
            seq = self._seqs[index]
            if seq > until or len(found) == limit:
                break
            row = self.rows[self._job_at[seq]]
            if user_id in (None, row.job.user_id):
                found.append(row.change_at(seq))
        return found
