"""What was recorded of a run: everything that clients sent and received, and the final state.

Plain facts without judgement; `validate.py` judges. The split is that of etcd's
robustness tests (reports and validators) and of Jepsen (history and checker).
All times are seconds of this machine's monotonic clock.
"""

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.checker.clock import Jump

TERMINAL = frozenset({"COMPLETED", "PARTIAL", "FAILED"})

SERVERS = 3
"""Of a run, at most."""


@dataclass(frozen=True, slots=True)
class Group:
    """What a group says of its jobs."""

    total: int
    queued: int
    processing: int
    completed: int
    partial: int
    failed: int
    sealed: bool
    fail_fast: bool

    @property
    def open(self) -> int:
        return self.queued + self.processing

    @property
    def ended(self) -> int:
        return self.completed + self.partial + self.failed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job as a caller received it.

    `content` is a fingerprint of all that a version names, without payloads. `parameters`,
    `result`, `details` and `checkpoint` are the marks in the payloads that came along; empty where
    none came.
    """

    job_id: str
    version: int
    status: str
    attempt: int = 0
    user_id: str = "ada"
    job_type: str = "render"
    content: bytes = b""
    message: str = ""
    """The progress message."""
    progress: int = 0
    worker: str = ""
    held: bool = False
    reason: str = ""
    cancelled: bool = False
    refuses_output: bool = False
    """Whether output is refused that is more than is stored."""
    parameters: str = ""
    result: str = ""
    details: str = ""
    checkpoint: str = ""
    due: int = 0
    """Its `schedule_time`, in microseconds by the service; 0 if it has none."""
    origin: str = ""
    unique: str = ""
    """Its `unique_key`."""
    own_policy: bool = True
    """Whether its creator set the load's policy. Else it has the service's default."""
    group_id: str = ""
    group: Group | None = None
    """Set if it is a group."""

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Step:
    """A transition as a caller received it."""

    version: int
    from_status: str
    to_status: str
    attempt: int = 1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt as a caller received it. `outcome` is empty, and it has no `seconds`, if it runs.

    `seconds` is how long it lasted, and `start` when it started in microseconds, by the service.
    """

    number: int
    worker: str
    outcome: str = ""
    seconds: float | None = None
    progress: int = 0
    reason: str = ""
    start: int = 0


class Outcome(enum.Enum):
    """What the one who asked knows of it."""

    ACKNOWLEDGED = enum.auto()
    REFUSED = enum.auto()
    UNKNOWN = enum.auto()
    """It may have been done or not, but not half."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client asked for, repeated with the same content until it was answered.

    `mark` names it in what it leaves behind: the label of a created job, the origin of a
    repetition, the result of an ended job, the storage path of an asset, the message of a report.
    `assets` are the storage paths that it asked to link, `checkpoint` is the mark of one that a
    report brought. `attempt` is that of the worker that asked, if it matters, and `attempts` are
    those that were listed. `changed` says that the answer shows a version that was committed after
    `sent`, the first time that it was asked for.
    """

    rpc: str
    sent: float
    answered: float
    outcome: Outcome
    job_id: str = ""
    user_id: str = ""
    """The owner of the jobs that it asked to create."""
    mark: str = ""
    assets: tuple[str, ...] = ()
    checkpoint: str = ""
    told: Snapshot | None = None
    misdated: int = 0
    """How many microseconds later than asked a job is due that was created with a delay."""
    misdefaulted: str = ""
    """What a created job has that neither its creation says nor the defaults of its type."""
    beyond: str = ""
    """What a creation asked for that its caller may not choose."""
    owed: Outcome | None = None
    """The outcome that it must have, if that is known."""
    existing: bool | None = None
    """Whether the answer to a creation said that the job was there before."""
    result_of: str = ""
    """The job that the result names, on a stream of Work."""
    version: int = 0
    """The job's version in an answer without the job: a result on a stream of Work."""
    attempt: int = 0
    attempts: tuple[Attempt, ...] = ()
    removed: tuple[str, ...] = ()
    """The assets that came with the answer to a deletion."""
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream."""

    at: float
    job: Snapshot | None = None
    steps: tuple[Step, ...] = ()
    deleted: bool = False
    removed: tuple[str, ...] = ()
    """The assets that came with a deletion."""
    synced: bool = False
    heartbeat: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """After this message of this stream, both by their numbers in the watcher's memory."""

    stream: int
    message: int


@dataclass(slots=True)
class Stream:
    """One stream from its opening to its end.

    `after` is the message whose resume token it began with, `after_version` what
    a watch of one job began with. `end` is a status code or why the watcher itself left.
    """

    opened: float
    replica: int = 0
    after: Place | None = None
    after_version: int = 0
    messages: list[Message] = field(default_factory=list)
    closed: float | None = None
    end: str = ""


@dataclass(slots=True)
class Watcher:
    """A watcher, with all its streams. `job_id` is empty for a watch of many jobs.

    `full` says that it asked for payloads.
    `left` says that it did not stay until the end of the run, so that nothing is
    owed to it.
    """

    name: str
    job_id: str = ""
    user_id: str = ""
    job_types: frozenset[str] = frozenset()
    full: bool = False
    streams: list[Stream] = field(default_factory=list)
    left: bool = False

    def asks_for(self, job: Snapshot) -> bool:
        """Whether its filters let the job through."""
        if self.user_id and job.user_id != self.user_id:
            return False
        return not self.job_types or job.job_type in self.job_types


@dataclass(slots=True)
class Append:
    """A piece of output that a worker asked to append, again and again until it was answered.

    `data` is unlike that of any other. `fenced` says that the attempt was known to have ended.
    `repeated` are the offsets that later repetitions of an acknowledged append were answered with.
    """

    job_id: str
    stream: str
    attempt: int
    number: int
    data: bytes
    fenced: bool = False
    sent: float = 0.0
    answered: float = 0.0
    tries: int = 0
    outcome: Outcome = Outcome.UNKNOWN
    next_offset: int = 0
    repeated: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Piece:
    """A message with output, or the answer to a read."""

    at: float
    offset: int
    data: bytes
    attempt: int
    next_offset: int
    up_to_date: bool
    closed: bool
    truncated_before: int


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """What a read or a watch of output asked for: from an offset on, or the last bytes."""

    offset: int = 0
    last_bytes: int | None = None


@dataclass(slots=True)
class OutputStream:
    """One stream of a watch of output from its opening to its end, which is that of a `Stream`."""

    place: OutputPlace
    opened: float
    replica: int = 0
    messages: list[Piece] = field(default_factory=list)
    closed: float | None = None
    end: str = ""


@dataclass(slots=True)
class OutputWatcher:
    """A watcher of one stream of a job's output, to its end."""

    name: str
    job_id: str
    stream: str
    streams: list[OutputStream] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OutputRead:
    """A read of output, of at most so many bytes."""

    job_id: str
    stream: str
    place: OutputPlace
    max_bytes: int
    sent: float
    piece: Piece


@dataclass(slots=True)
class Hold:
    """A job that a worker held on one stream of Work, in one attempt.

    A `resumed` one was brought from another stream, and `greeted` is when its stream's first
    message came. It is `finishing` if its finish was brought along, which may have been made, or
    was sent before that message.
    `asked` is when the worker received a cancellation. A `frozen` worker did not read for a while.
    `lost` says that it was told that it has lost the job.
    """

    worker: str
    job_id: str
    attempt: int
    began: float
    resumed: bool = False
    finishing: bool = False
    greeted: float | None = None
    asked: float | None = None
    ended: float | None = None
    frozen: bool = False
    lost: bool = False

    def end(self, at: float) -> None:
        """Record that the job is no longer held, unless that is known."""
        if self.ended is None:
            self.ended = at


@dataclass(frozen=True, slots=True)
class Record:
    """What the service holds of a job when all is over; of a deleted one, what it held at its end.

    `created_by` and `ended_by` are the marks of the operations that it carries. `outputs` are its
    streams of output, read from their beginnings.
    """

    job: Snapshot
    steps: tuple[Step, ...] = ()
    assets: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    created_by: str = ""
    ended_by: str = ""
    deleted: bool = False
    outputs: Mapping[str, Sequence[OutputRead]] = field(default_factory=dict)


@dataclass(slots=True)
class Fault:
    """Something that was broken on purpose. `replicas` are those whose watchers feel it.

    Recovery counts from `recovers_from`: from the end of what lasts, and from the
    beginning of what is done at once. `alone` says that nothing else was broken at that time.
    """

    kind: str
    began: float
    ended: float = 0.0
    recovers_from: float = 0.0
    replicas: frozenset[int] = frozenset()
    alone: bool = True


@dataclass(frozen=True, slots=True)
class Share:
    """The claimable queues of a type and priority: where the first and the last of them stand.

    Both are virtual times, as seen from that of their level.
    """

    level: tuple[str, int]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Recount:
    """What a look into the database found, besides the jobs themselves.

    `miscounted` are the counters that are not what the jobs are, and `forgotten` the keys with
    blocked jobs, a free slot and nobody who looks. `doubles` are unique keys of several active
    jobs. `overdue` is how many seconds ago the time of a job came that still waits for it.
    `overfull` are jobs of which too much output is stored.
    """

    at: float
    miscounted: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    doubles: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()
    overdue: float = 0.0
    overfull: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """A start as the database saw it in its commit. `wrong` is why it should not have been made.

    It was made at `time`, of a job that waited until `due` if that is not 0: microseconds by the
    service.
    """

    job_id: str
    key: str
    wrong: str = ""
    due: int = 0
    time: int = 0


@dataclass(frozen=True, slots=True)
class Unblocked:
    """A blocked job that was made ready, and the highest priority that stayed blocked.

    Those of its concurrency key and type count.
    """

    job_id: str
    priority: int
    highest_left: int


@dataclass(frozen=True, slots=True)
class WebhookClaim:
    """A webhook that a deliverer was given."""

    deliverer: str
    webhook_id: str
    generation: int
    sent: float
    answered: float


@dataclass(frozen=True, slots=True)
class WebhookSave:
    """What a deliverer stored of a webhook, as was acknowledged."""

    webhook_id: str
    generation: int
    sent: float
    answered: float
    released: bool


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """What its owner did with a webhook, as was acknowledged; `found` should be what is `wanted`.

    A change with a request id was sometimes asked for twice: these are both answers.
    """

    rpc: str
    webhook_id: str
    sent: float
    answered: float
    wanted: str = ""
    found: str = ""


@dataclass(slots=True)
class History:
    """A run."""

    operations: list[Operation] = field(default_factory=list)
    watchers: list[Watcher] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    jumps: list[Jump] = field(default_factory=list)
    """Of the service's clock."""
    outages: list[tuple[int, int]] = field(default_factory=list)
    """From when until when the database answered nobody, in microseconds by the service. Only those
    that were so long that each server must have noticed."""
    recounts: list[Recount] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    unblocked: list[Unblocked] = field(default_factory=list)
    """Blocked jobs that were made ready while others of their key and type stayed blocked."""
    defaulted_from: float = float("inf")
    """When it was acknowledged that one type has a default priority."""
    undefaulted: list[str] = field(default_factory=list)
    """Creations without the defaults that the database had in their commit."""
    settings: int = 0
    """How often an operator has changed a pause, a limit or a default."""
    updates: Counter[str] = field(default_factory=Counter)
    """What workers of the library sent on streams of Work, by the kinds of update_kinds.py; and the
    output of the others."""
    appends: list[Append] = field(default_factory=list)
    unsent: list[str] = field(default_factory=list)
    """What workers of the library did not append as their handlers had written it."""
    output_watchers: list[OutputWatcher] = field(default_factory=list)
    output_reads: list[OutputRead] = field(default_factory=list)
    job_output: int = 1024 * 1024
    """About how many bytes of a job's output the service stores."""
    webhook_claims: list[WebhookClaim] = field(default_factory=list)
    webhook_saves: list[WebhookSave] = field(default_factory=list)
    webhook_changes: list[WebhookChange] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    """The calls that were answered, and the streams that brought something, by the RPC."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Of all calls, by `RPC CODE REASON`."""
    load_began: float = 0.0
    load_ended: float = 0.0
    read_at: float = float("inf")
    """When all jobs were read, after the load."""
    lease: int = 5
    """The shortest one of all workers, in seconds: an attempt that lost it lasted for no less."""
    retain_deletions: float = float("inf")
    """How many seconds the service keeps a deletion, and the assets that were deleted."""

    @property
    def most_output(self) -> int:
        """How many bytes it stores at most, without the first row of each stream.

        An eighth more is dropped at once. Each server knows the other streams of a job as they were
        when it appended to the job before.
        """
        return SERVERS * (self.job_output + self.job_output // 8)
