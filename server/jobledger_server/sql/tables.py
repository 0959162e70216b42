"""The tables. Their constraints check the domain's rules again.

Times are microseconds since the Unix epoch and payloads are serialized Structs, as in the
domain, so nothing is converted. See docs/decisions/0002-rows-hold-what-the-domain-holds.md.
"""

from typing import Any, NewType

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from jobledger_server.domain.job import Phase
from jobledger_server.domain.limits import (
    MAX_ASSET_NAME_CHARACTERS,
    MAX_ASSET_TYPE_CHARACTERS,
    MAX_ERROR_MESSAGE_CHARACTERS,
    MAX_ERROR_REASON_CHARACTERS,
    MAX_ETAG_CHARACTERS,
    MAX_ID_CHARACTERS,
    MAX_IDENTITY_CHARACTERS,
    MAX_JOB_TYPE_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_PROGRESS,
    MAX_STORAGE_PATH_CHARACTERS,
    MAX_STREAM_NAME_CHARACTERS,
    MAX_TRACEPARENT_CHARACTERS,
    MAX_URL_CHARACTERS,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = String(MAX_ID_CHARACTERS).with_variant(UUID(as_uuid=False), "postgresql")
"""The type of ids. They sort by their time of creation."""

# Only a column of this type is SQLite's own row number.
_SEQ = BigInteger().with_variant(Integer, "sqlite")

NewSeq = NewType("NewSeq", int)
"""A sequence number that a batch takes. A batch counts from the number after which it writes; see
`driver.Batch.writes`. One that is stored is an int: nothing may be added to it."""

NEW_SEQS = ("seq", "change_seq", "start_seq", "delete_seq")
"""The columns that are set to a NewSeq."""

_STATUSES = "('QUEUED', 'PROCESSING', 'COMPLETED', 'PARTIAL', 'FAILED')"
_TERMINAL = "('COMPLETED', 'PARTIAL', 'FAILED')"

_GROUP = "children IS NOT NULL"

ACTIVE = "complete_time IS NULL"
"""The condition for a job that has not finished."""

PHASES = ("ready", "blocked", "scheduled", "held", "waiting")
"""The counters of jobs by phase, in the order of Phase."""

READY, BLOCKED, SCHEDULED, HELD, WAITING = (f"phase = {phase:d}" for phase in Phase)
"""The conditions for jobs that are in these phases. They read no column that a report changes, for
an index with such a condition would make each report change every index."""

KNOWN_PHASE = f"phase BETWEEN {min(Phase):d} AND {max(Phase):d}"
"""The condition for a job that is not terminal, nor in a phase of newer servers."""

KEYED = "concurrency_key <> '' AND phase IS NOT NULL"
"""The condition for a job with a concurrency key that is not terminal."""

HELD_BY = f"worker_id <> '' AND {HELD}"
"""The condition for a job that a worker with an id holds. PostgreSQL would use an index with HELD
for any question about held jobs, where it has no statistics yet."""

HELD_OF = f"user_id <> '' AND {HELD}"
"""The condition for a job that is held, in statements about one owner's jobs; see HELD_BY."""

UNIQUE = "unique_key <> '' AND complete_time IS NULL"
"""The condition for a job that no other may have the unique key of."""

WITH_UNIQUE_KEY = "unique_key <> ''"
"""The condition for a job with a unique key."""

REQUESTED = "request_id <> ''"
"""The condition for a job that was created with a request id, and not deleted."""

DUE_TIME = "coalesce(retry_time, schedule_time)"
"""When a scheduled job is due."""


OUTLIVED_TIME = "(complete_time + retention)"
"""When a job has outlived its own retention."""

OUTLIVING = (
    "retention IS NOT NULL AND complete_time IS NOT NULL AND delete_seq IS NULL"
    " AND group_id IS NULL"
)
"""The condition for an ended job with a retention of its own, which goes without its group."""


def tenant(job: str = "jobs") -> str:
    """Return the tenant of a job, as `Job.tenant`. In `queues` it is the column `fairness_key`."""
    return f"CASE {job}.fairness_key WHEN '' THEN {job}.user_id ELSE {job}.fairness_key END"


def _where(condition: str) -> dict[str, Any]:
    """Return the arguments of an index on the rows with this condition, on both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


KEPT = "delete_seq IS NULL"
"""The condition for a job that was not deleted; in statements about one owner's jobs."""

CHILDREN = "group_id IS NOT NULL AND delete_seq IS NULL"
"""The condition for a child of a group that was not deleted."""

RERUNS = "origin_job_id IS NOT NULL AND delete_seq IS NULL"
"""The condition for a rerun: a job that runs another one again."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", ID, primary_key=True),
    Column("user_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("job_type", String(MAX_JOB_TYPE_CHARACTERS), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("queue_timeout", BigInteger, nullable=False),
    # The queue's row. It may be gone when the job has ended.
    Column("queue_id", BigInteger, nullable=False),
    # The transitions and the deletion; see history.py.
    Column("start_seq", BigInteger),
    Column("start_actor", String(MAX_NAME_CHARACTERS)),
    Column("start_worker_id", String(MAX_NAME_CHARACTERS)),
    Column("start_progress", Integer),
    Column("start_progress_message", String(MAX_MESSAGE_CHARACTERS)),
    Column("start_lease_expire_time", BigInteger),
    Column("start_children", Text),
    # Not later than the earliest time at which something happens without a call; NULL in a terminal
    # state. A report may postpone that time and leaves this as it is: the reaper corrects it.
    Column("deadline", BigInteger),
    Column("end_actor", String(MAX_NAME_CHARACTERS)),
    Column("delete_seq", BigInteger),
    Column("delete_time", BigInteger),
    # The sequence number of the job's latest change but its deletion.
    Column("change_seq", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("progress_time", BigInteger),
    Column("stall_expire_time", BigInteger),
    Column("lease_expire_time", BigInteger),
    Column("progress", Integer, nullable=False),
    Column("report_number", BigInteger, nullable=False),
    Column("checkpoint_bytes", Integer, nullable=False),
    Column("progress_message", String(MAX_MESSAGE_CHARACTERS), nullable=False),
    Column("asset_count", Integer, nullable=False),
    Column("asset_bytes", Integer, nullable=False),
    Column("status", String(10), nullable=False),
    Column("phase", SmallInteger),
    # Before its start; see `state_machine.version_of_start`.
    Column("updates", Integer, nullable=False),
    # As JSON, of a group; see domain/children.py.
    Column("children", Text),
    Column("labels", JSON, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("releases", Integer, nullable=False),
    Column("quick_releases", Integer, nullable=False),
    Column("started_by_id", Boolean, nullable=False),
    Column("worker_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("request_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("traceparent", String(MAX_TRACEPARENT_CHARACTERS), nullable=False),
    Column("origin_job_id", ID),
    Column("group_id", ID),
    Column("schedule_time", BigInteger),
    Column("retry_time", BigInteger),
    Column("start_time", BigInteger),
    Column("attempt_time", BigInteger),
    Column("complete_time", BigInteger),
    Column("lease_duration", BigInteger),
    Column("queue_expire_time", BigInteger),
    Column("stall_timeout", BigInteger),
    Column("run_timeout", BigInteger),
    Column("run_expire_time", BigInteger),
    Column("cancel_request_time", BigInteger),
    Column("cancel_reason", String(MAX_MESSAGE_CHARACTERS), nullable=False),
    Column("outcome_digest", LargeBinary),
    Column("outcome_bytes", Integer, nullable=False),
    Column("parameters_bytes", Integer, nullable=False),
    Column("silent", SmallInteger, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("initial_backoff", BigInteger, nullable=False),
    Column("max_backoff", BigInteger, nullable=False),
    Column("backoff_multiplier", Double, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("fairness_key", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("concurrency_key", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("unique_key", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("refuse_output", Boolean, nullable=False),
    Column("retention", BigInteger),
    # As JSON: few jobs have any, and then few.
    Column("output_streams", Text),
    Column("last_error_reason", String(MAX_ERROR_REASON_CHARACTERS)),
    Column("last_error_message", String(MAX_ERROR_MESSAGE_CHARACTERS)),
    Column("error_reason", String(MAX_ERROR_REASON_CHARACTERS)),
    Column("error_message", String(MAX_ERROR_MESSAGE_CHARACTERS)),
    # Payloads that come with the end: nothing changes the row afterwards but its deletion. They are
    # last, so that SQLite reads the others without them.
    Column("result", LargeBinary),
    Column("error_details", LargeBinary),
    CheckConstraint(f"status IN {_STATUSES}", name="status"),
    CheckConstraint(f"progress BETWEEN 0 AND {MAX_PROGRESS}", name="progress"),
    CheckConstraint(f"length(user_id) BETWEEN 1 AND {MAX_NAME_CHARACTERS}", name="user_id"),
    CheckConstraint(f"length(job_type) BETWEEN 1 AND {MAX_JOB_TYPE_CHARACTERS}", name="job_type"),
    # Only updates come before a job's first transition; see `state_machine.was_just_started`.
    CheckConstraint(
        "version >= 1 AND updates >= 0 AND (status = 'QUEUED') = (version = 1 + updates)"
        " AND (status = 'QUEUED') = (start_seq IS NULL)",
        name="version",
    ),
    # A group starts without an attempt.
    CheckConstraint(
        f"attempt >= 0 AND (attempt = 0) = ({_GROUP} OR start_time IS NULL)"
        " AND (attempt = 0) = (attempt_time IS NULL)",
        name="attempt",
    ),
    # A job that ends without a start passes through PROCESSING, and fails with its next version.
    CheckConstraint(
        "(start_time IS NULL"
        " AND (status = 'QUEUED' OR (status = 'FAILED' AND version = 3 + updates)))"
        " OR (start_time IS NOT NULL AND status <> 'QUEUED')",
        name="start_time",
    ),
    CheckConstraint(
        f"(status IN {_TERMINAL}) = (complete_time IS NOT NULL)"
        " AND (complete_time IS NULL) = (end_actor IS NULL)",
        name="complete_time",
    ),
    CheckConstraint(
        f"status NOT IN ('COMPLETED', 'PARTIAL') OR progress = {MAX_PROGRESS}",
        name="complete_progress",
    ),
    CheckConstraint(
        "(error_message IS NULL) = (error_reason IS NULL)"
        " AND (error_message IS NULL OR length(error_message) > 0)"
        " AND (status <> 'FAILED' OR error_message IS NOT NULL)"
        " AND (status IN ('PARTIAL', 'FAILED') OR error_message IS NULL)",
        name="error",
    ),
    CheckConstraint(
        "(last_error_message IS NULL) = (last_error_reason IS NULL)"
        " AND (last_error_message IS NULL OR attempt > 0)",
        name="last_error",
    ),
    CheckConstraint("status = 'PROCESSING' OR lease_expire_time IS NULL", name="lease"),
    # A group that is sealed waits for its children only.
    CheckConstraint(
        "(complete_time IS NULL AND lease_expire_time IS NULL) = (queue_expire_time IS NOT NULL)"
        f" OR ({_GROUP} AND complete_time IS NULL)",
        name="queue",
    ),
    CheckConstraint(
        f"(status IN {_TERMINAL}) = (deadline IS NULL) OR ({_GROUP} AND complete_time IS NULL)",
        name="deadline",
    ),
    CheckConstraint(
        "max_attempts >= 0 AND releases BETWEEN 0 AND attempt"
        " AND quick_releases BETWEEN 0 AND releases",
        name="attempts",
    ),
    CheckConstraint(
        "initial_backoff > 0 AND max_backoff >= initial_backoff AND backoff_multiplier >= 1",
        name="backoff",
    ),
    CheckConstraint(
        "retry_time IS NULL OR (queue_expire_time IS NOT NULL AND attempt > 0)",
        name="retry_time",
    ),
    CheckConstraint(
        "(phase IS NULL) = (complete_time IS NOT NULL)"
        f" AND (phase IS NULL OR {KNOWN_PHASE})"
        f" AND coalesce({WAITING}, FALSE) = ({_GROUP} AND complete_time IS NULL)"
        f" AND (lease_expire_time IS NOT NULL) = coalesce({HELD}, FALSE)"
        f" AND ({DUE_TIME} IS NOT NULL OR NOT coalesce({SCHEDULED}, FALSE))",
        name="phase",
    ),
    CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
    CheckConstraint(
        "parameters_bytes >= 0 AND checkpoint_bytes >= 0 AND outcome_bytes >= 0"
        " AND (outcome_bytes = 0 OR complete_time IS NOT NULL)"
        " AND (outcome_bytes > 0 OR (result IS NULL AND error_details IS NULL))",
        name="payloads",
    ),
    CheckConstraint(
        "asset_count >= 0 AND asset_bytes >= 0 AND (asset_count = 0) = (asset_bytes = 0)"
        " AND (asset_count = 0 OR attempt > 0)",
        name="assets",
    ),
    CheckConstraint(
        "(delete_seq IS NULL) = (delete_time IS NULL)"
        " AND (delete_seq IS NULL OR complete_time IS NOT NULL)",
        name="deleted",
    ),
    Index("ix_jobs_user_id_id", "user_id", "id", **_where(KEPT)),
    # Deleted jobs, which are kept for the feed for some time.
    Index("ix_jobs_delete_seq", "delete_seq", **_where("delete_seq IS NOT NULL")),
    # A job has one rerun. Deleted jobs are reruns of none.
    Index("uq_jobs_origin_job_id", "origin_job_id", unique=True, **_where(RERUNS)),
    Index("ix_jobs_group_id_id", "group_id", "id", **_where(CHILDREN)),
    # Jobs that wait for their time.
    Index("ix_jobs_scheduled", text(DUE_TIME), **_where(SCHEDULED)),
    # Jobs that may be claimed, oldest first within each queue.
    Index("ix_jobs_ready", "queue_id", "create_time", "id", **_where(READY)),
    # Jobs with a concurrency key: those that hold its slots, and those that go next.
    Index(
        *("ix_jobs_keyed", "concurrency_key", "phase", "job_type"),
        *(text("priority DESC"), "create_time", "id"),
        **_where(KEYED),
    ),
    Index("uq_jobs_unique_key", "user_id", "job_type", "unique_key", unique=True, **_where(UNIQUE)),
    # All jobs with a unique key, to list them.
    Index(
        "ix_jobs_user_id_unique_key_id",
        "user_id",
        "unique_key",
        "id",
        **_where(f"{WITH_UNIQUE_KEY} AND {KEPT}"),
    ),
    Index("ix_jobs_deadline", "deadline", **_where("deadline IS NOT NULL")),
    # Ended jobs with a retention of their own, in the order in which they are to be deleted.
    Index("ix_jobs_outlived", text(OUTLIVED_TIME), **_where(OUTLIVING)),
    # What an owner's feed has of held jobs; see `changes`.
    Index("ix_jobs_user_id_held", "user_id", **_where(HELD_OF)),
    # What each worker holds, for those that ask for it.
    Index("ix_jobs_worker", "worker_id", "id", **_where(HELD_BY)),
    # Active jobs: a feed watch starts with these, and does not read finished ones.
    Index("ix_jobs_active", "user_id", "id", **_where(ACTIVE)),
    Index("uq_jobs_user_id_request_id", "user_id", "request_id", unique=True, **_where(REQUESTED)),
)

OUTCOME_COLUMNS = ("result", "error_details")
"""The columns with the payloads that come with the end."""

STATE = [column for column in jobs.c if column.name not in OUTCOME_COLUMNS]
"""The other columns: a job without its payloads."""

NOT_DELETED = jobs.c.delete_time.is_(None)
"""The condition for a job that was not deleted, where it is found by its id. It does not imply
KEPT: without statistics PostgreSQL would read the whole of an index with that condition."""

# The parameters and the checkpoints of jobs, apart: a change of a job's state writes nothing here.
# No foreign key, for its check locks the job's row. SQLite stores a row in the index of its primary
# key.
payloads = Table(
    "payloads",
    metadata,
    Column("job_id", ID, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    PrimaryKeyConstraint("job_id", "kind"),
    CheckConstraint("kind BETWEEN 1 AND 2", name="kind"),
    CheckConstraint("length(content) > 0", name="content"),
    sqlite_with_rowid=False,
)

# Attempts that ended without ending their job. No foreign key, as above.
attempts = Table(
    "attempts",
    metadata,
    Column("job_id", ID, nullable=False),
    Column("number", Integer, nullable=False),
    Column("worker_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("progress", Integer, nullable=False),
    Column("end_time", BigInteger, nullable=False),
    Column("outcome", String(13), nullable=False),
    Column("error_reason", String(MAX_ERROR_REASON_CHARACTERS)),
    Column("error_message", String(MAX_ERROR_MESSAGE_CHARACTERS)),
    PrimaryKeyConstraint("job_id", "number"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint(f"progress BETWEEN 0 AND {MAX_PROGRESS}", name="progress"),
    CheckConstraint(
        "outcome IN ('LEASE_EXPIRED', 'STALLED', 'RELEASED', 'RETRIED')", name="outcome"
    ),
    CheckConstraint("(error_message IS NULL) = (error_reason IS NULL)", name="error"),
    sqlite_with_rowid=False,
)

assets = Table(
    "assets",
    metadata,
    Column("id", ID, nullable=False),
    Column("job_id", ID, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("asset_type", String(MAX_ASSET_TYPE_CHARACTERS), nullable=False),
    Column("url", String(MAX_URL_CHARACTERS), nullable=False),
    Column("storage_path", String(MAX_STORAGE_PATH_CHARACTERS), nullable=False),
    Column("file_size", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("request_id", String(MAX_NAME_CHARACTERS), nullable=False),
    # Empty if a later attempt has replaced it.
    Column("name", String(MAX_ASSET_NAME_CHARACTERS), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("etag", String(MAX_ETAG_CHARACTERS), nullable=False),
    Column("attempt", Integer, nullable=False),
    PrimaryKeyConstraint("job_id", "id"),
    CheckConstraint("file_size >= 0", name="file_size"),
    CheckConstraint(
        f"length(asset_type) BETWEEN 1 AND {MAX_ASSET_TYPE_CHARACTERS}", name="asset_type"
    ),
    CheckConstraint("length(url) > 0 OR length(storage_path) > 0", name="location"),
    CheckConstraint("length(sha256) IN (0, 64)", name="sha256"),
    CheckConstraint("attempt >= 1", name="attempt"),
    Index("uq_assets_job_id_name", "job_id", "name", unique=True, **_where("name <> ''")),
    Index(
        *("uq_assets_job_id_request_id", "job_id", "request_id"),
        unique=True,
        **_where("request_id <> ''"),
    ),
    sqlite_with_rowid=False,
)

# The feed: a row for the latest change of each job, for its first transition, and for its deletion.
# A change replaces the row of the job's previous one, unless that was the first transition or the
# end. It is apart from the jobs, so that a report changes the indexes of a narrow row only.
# The row of a report has no owner, and is in no other index: its job is held, and an owner's held
# jobs are few.
changes = Table(
    "changes",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=False),
    Column("job_id", ID, nullable=False),
    Column("user_id", String(MAX_NAME_CHARACTERS)),
    Index("ix_changes_user_id_seq", "user_id", "seq", **_where("user_id IS NOT NULL")),
)

# What jobs write. Rows are inserted, and the oldest ones deleted, but none is updated. A row is
# what one commit has of a stream and attempt. No foreign key: its check would write the row of the
# job.
outputs = Table(
    "outputs",
    metadata,
    Column("job_id", ID, primary_key=True),
    Column("stream", String(MAX_STREAM_NAME_CHARACTERS), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    CheckConstraint("start >= 0 AND attempt >= 1 AND number >= 0", name="position"),
    CheckConstraint("length(data) > 0", name="data"),
)

QUEUE_NAME = ("fairness_key", "job_type", "priority")
"""The columns of `queues` that are the queue's name. The tenant is first: its counts are read."""

# Who goes next, and how many jobs there are; see domain/queues.py. A level, of all queues with the
# same type and priority, is a row without a tenant: it lies beside those of its queues, and changes
# with them. These counters change in the commit that changes their jobs, while the feed is locked.
# No index is on a counter, so that PostgreSQL need not add to the indexes. No constraint is on them
# either: a row that is proposed to an upsert has the difference, which may be negative.
queues = Table(
    "queues",
    metadata,
    # In the order of creation, so that entries of new queues lie together in the indexes, and those
    # of their jobs, too. With hashes as ids each entry would change a page of its own.
    Column("id", _SEQ, Identity(), primary_key=True),
    Column("job_type", String(MAX_JOB_TYPE_CHARACTERS), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("fairness_key", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("vtime", BigInteger, nullable=False),
    Column("claimed", BigInteger, nullable=False),
    # Whether any job is ready. Nobody claims from a level.
    Column("claimable", SmallInteger, nullable=False),
    *(Column(phase, BigInteger, nullable=False) for phase in PHASES),
    # How often the row was written: whoever deletes a level knows by this that no queue came since.
    Column("writes", BigInteger, nullable=False, server_default=text("0")),
    Index(
        *("ix_queues_claimable", "job_type", text("priority DESC"), "vtime", "id"),
        **_where("claimable = 1"),
    ),
    Index("uq_queues_fairness_key_job_type_priority", *QUEUE_NAME, unique=True),
)

levels = queues.alias("levels")

IS_LEVEL = "fairness_key = ''"
"""The condition for the row of a level, in text: PostgreSQL knows how few there are."""

limit_keys = Table(
    "limit_keys",
    metadata,
    Column("key", String(MAX_NAME_CHARACTERS), primary_key=True),
    # The part of the key before its ':'.
    Column("name", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("running", BigInteger, nullable=False),
    Column("blocked", BigInteger, nullable=False),
    # Whether somebody has to look if a blocked job has a free slot.
    Column("recheck", SmallInteger, nullable=False),
    Index("ix_limit_keys_name_key", "name", "key"),
    Index("ix_limit_keys_recheck", "key", **_where("recheck = 1")),
    sqlite_with_rowid=False,
)

# Jobs that ended in the last hour, in steps of 10 seconds.
ended = Table(
    "ended",
    metadata,
    Column("job_type", String(MAX_JOB_TYPE_CHARACTERS), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("status", String(10), nullable=False),
    Column("reason", String(MAX_ERROR_REASON_CHARACTERS), nullable=False),
    Column("count", BigInteger, nullable=False),
    PrimaryKeyConstraint("job_type", "time", "status", "reason"),
    Index("ix_ended_time", "time"),
    sqlite_with_rowid=False,
)

# What operators set. A key's own rule comes before that of its name.
limit_rules = Table(
    "limit_rules",
    metadata,
    Column("name", String(MAX_NAME_CHARACTERS), primary_key=True),
    Column("max_running", Integer),
    Column("pause_time", BigInteger),
    Column("pause_actor", String(MAX_IDENTITY_CHARACTERS), nullable=False),
    Column("pause_reason", String(MAX_MESSAGE_CHARACTERS), nullable=False),
    CheckConstraint("max_running >= 0", name="max_running"),
    sqlite_with_rowid=False,
)

paused_types = Table(
    "paused_types",
    metadata,
    Column("job_type", String(MAX_JOB_TYPE_CHARACTERS), primary_key=True),
    Column("pause_time", BigInteger, nullable=False),
    Column("pause_actor", String(MAX_IDENTITY_CHARACTERS), nullable=False),
    Column("pause_reason", String(MAX_MESSAGE_CHARACTERS), nullable=False),
    sqlite_with_rowid=False,
)

# The defaults of job types. NULL is no default.
type_defaults = Table(
    "type_defaults",
    metadata,
    Column("job_type", String(MAX_JOB_TYPE_CHARACTERS), primary_key=True),
    Column("max_attempts", Integer),
    Column("initial_backoff", BigInteger),
    Column("max_backoff", BigInteger),
    Column("backoff_multiplier", Double),
    Column("queue_timeout", BigInteger),
    Column("run_timeout", BigInteger),
    Column("stall_timeout", BigInteger),
    Column("priority", SmallInteger),
    Column("retention", BigInteger),
    CheckConstraint(
        "(max_attempts IS NULL) = (initial_backoff IS NULL)"
        " AND (max_attempts IS NULL) = (max_backoff IS NULL)"
        " AND (max_attempts IS NULL) = (backoff_multiplier IS NULL)",
        name="policy",
    ),
    CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
    sqlite_with_rowid=False,
)

# Which servers' workers ask for which types.
pollers = Table(
    "pollers",
    metadata,
    Column("server", String(MAX_ID_CHARACTERS), nullable=False),
    Column("job_type", String(MAX_JOB_TYPE_CHARACTERS), nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    PrimaryKeyConstraint("job_type", "server"),
    sqlite_with_rowid=False,
)

webhook_deliverers = Table(
    "webhook_deliverers",
    metadata,
    Column("id", String(MAX_NAME_CHARACTERS), primary_key=True),
    # When it counts no more, unless it claims again.
    Column("expire_time", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", ID, primary_key=True),
    # Empty: all owners.
    Column("user_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("url", String(MAX_URL_CHARACTERS), nullable=False),
    Column("job_types", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("transitions", JSON, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("secret", Text, nullable=False),
    Column("cursor", Text, nullable=False),
    Column("disable_time", BigInteger),
    Column("disable_reason", String(MAX_MESSAGE_CHARACTERS), nullable=False),
    Column("success_time", BigInteger),
    Column("failure_time", BigInteger),
    Column("last_failure", String(MAX_MESSAGE_CHARACTERS), nullable=False),
    Column("pending", LargeBinary, nullable=False),
    Column("pending_count", Integer, nullable=False),
    Column("given_up", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("creator", Text, nullable=False),
    Column("enable_time", BigInteger),
    Column("request_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("previous_secret", Text, nullable=False),
    Column("previous_secret_expire_time", BigInteger),
    Column("rotation_ids", JSON, nullable=False),
    # Empty: nobody.
    Column("holder", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("lease_expire_time", BigInteger, nullable=False),
    Index(
        *("uq_webhooks_user_id_request_id", "user_id", "request_id"),
        unique=True,
        **_where("request_id <> ''"),
    ),
    sqlite_with_rowid=False,
)

# One row. A writer of the feed or of counters locks it until the commit, so sequence order is
# commit order. The newest sequence number is the greatest in `changes`: a counter in this row would
# leave a dead row version for each commit, as many as a long snapshot has seen. `compacted_seq` is
# the greatest sequence number of a deletion that is no longer known. `config_version` grows with
# each change of a pause, a limit, a default or `watch_key`, which signs watch tokens and is 32
# bytes in hexadecimal digits. `database_identity` differs in a copy of the database.
feed = Table(
    "feed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Text, nullable=False),
    Column("compacted_seq", BigInteger, nullable=False),
    Column("config_version", BigInteger, nullable=False),
    Column("watch_key", Text, nullable=False),
    Column("database_identity", Text, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
